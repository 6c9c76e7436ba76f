"""Operations that are positively homogeneous of degree 1, f(t·x) = t·f(x) for t > 0: no rule is needed.

For these Σ x·∂f/∂x = f(x) (Euler), so in the form c = R/x autograd's own gradient is LRP-0, exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spray.engine.functions import names
from spray.engine.operations import constants
from spray.engine.origins import Call, Handler, Origin

SHAPES = names(
    "view view_as reshape reshape_as flatten unflatten permute transpose t T mT adjoint swapaxes swapdims movedim "
    "moveaxis squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile contiguous clone to float "
    "double type_as chunk split tensor_split unsafe_chunk unsafe_split unbind narrow select __getitem__ index_select "
    "gather take_along_dim roll flip unfold pixel_shuffle pixel_unshuffle channel_shuffle diagonal ravel "
    "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool1d_with_indices "
    "adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices"
)
"""Values moved, copied or chosen: c and R both follow autograd's gradient. Of tied maxima pooling gives all to the
first."""

ELEMENTWISE = names("leaky_relu prelu neg positive abs hardshrink")
"""Elementwise and homogeneous (hardshrink piecewise): R, where it is carried, passes unchanged."""

LINEAR = names(
    "sum mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "cumsum amax amin fold"
)
"""Sums, averages and extrema over several values, which only c can pass. Of tied extrema ``amax`` and ``amin``, and
``max`` and ``min`` over all values, give each an even share, ``max(dim)`` gives all to one: as torch's gradients."""


def shape(call: Call) -> Any:
    """Shape operations and max-pooling."""
    call.carries = "natively"
    call.keeps_sign = True
    return call.native()


def view(call: Call) -> Any:
    """Views as reshapes: the engine may lay values out in memory otherwise than the model expects."""
    if call.name == "view" and not isinstance(call.args[1], torch.dtype):
        call.function = Tensor.reshape
    elif call.name == "view_as":
        call.function = Tensor.reshape_as
    return shape(call)


def elementwise(call: Call) -> Any:
    """Homogeneous activations."""
    call.carries = "elementwise"
    return call.native()


def linear(call: Call) -> Any:
    """Sums and averages."""
    call.keeps_sign = True
    return call.native()


def extremum(call: Call) -> Any:
    """Maxima and minima over a dimension, or of two tensors, a constant among these taking what it was chosen for."""
    others = [*call.args[1:], *(call.kwargs[key] for key in ("other",) if key in call.kwargs)]
    held = [k for k in (call.args[0], *others) if isinstance(k, Tensor) and not call.trace.depends(k)]
    if not held:
        return linear(call)
    constants.refuse_gates(call, held)
    out: Tensor = call.native()
    (x,), (k,) = call.tracked, held
    chosen = torch.where(k == out, 1.0, 0.0).to(out.dtype) / torch.where((k == out) & (x == out), 2, 1)
    constants.book(call, out, out.detach() * chosen)
    return out


def dropout(call: Call) -> Tensor:
    """Dropout in evaluation: the identity.

    Raises:
        UnsupportedOperation: it is active, so every pass is another function.
    """
    p = call.kwargs.get("p", call.args[1] if len(call.args) > 1 else 0.5)
    training = call.kwargs.get("training", call.args[2] if len(call.args) > 2 else True)
    if training and p > 0:
        raise call.refuse("dropout is active, so two passes differ. Call model.eval() first.")
    x: Tensor = call.args[0]
    return x


def unfold(call: Call) -> Any:
    """Windows side by side; the zero padding of ``F.unfold`` is one of its own, whose share is booked."""
    if call.function is not F.unfold:
        return shape(call)
    names = ("input", "kernel_size", "dilation", "padding", "stride")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    padding = given.pop("padding", 0)
    high, wide = (padding, padding) if isinstance(padding, int) else padding
    if not (high or wide):
        return shape(call)
    with call.trace:
        return F.unfold(F.pad(given.pop("input"), (wide, wide, high, high)), **given)


def interpolate(call: Call) -> Any:
    """Resizing is linear in the values, in every mode."""
    return call.native()


def pad(call: Call) -> Any:
    """Padding with zeros or with copies; another constant would add relevance of its own."""
    value = call.kwargs.get("value", call.args[3] if len(call.args) > 3 else None)
    mode = call.kwargs.get("mode", call.args[2] if len(call.args) > 2 else "constant")
    if mode == "constant" and value:
        raise call.refuse(f"padding with {value} adds a constant to the model. Pad with zeros or reflect.")
    trace, x = call.trace, call.tracked[0]
    early = trace.early(call, carries=True)
    if early is not None and mode == "constant":
        call.need_samples(first=True)
    origin = trace.origin(x)
    call.origin = Origin(trace.token, early=early, nonnegative=origin is not None and origin.nonnegative)
    out: Tensor = call.native()
    if early is not None and mode == "constant":
        widths = [-width for width in (call.args[1] if len(call.args) > 1 else call.kwargs["pad"])]
        ledger = trace.ledger

        def book(carried: Tensor) -> None:
            """R that a rule such as flat gives to the padding, a constant, ends there; c times 0 is nothing."""
            if early.carried == "relevance":
                ledger.book("tokens", ledger.rows(carried) - ledger.rows(F.pad(carried, widths)))

        out.register_hook(book)
    return out


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(SHAPES, shape),
    **dict.fromkeys(("view", "view_as"), view),
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(LINEAR, linear),
    **dict.fromkeys(("max", "min", "maximum", "minimum"), extremum),
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"), dropout
    ),
    "interpolate": interpolate,
    "unfold": unfold,
    "pad": pad,
}
