"""Backpropagation with changed ReLUs: guided backpropagation and the deconvolutional network.

guided (Springenberg et al. 2015):       g_in = g · [x > 0] · [g > 0]
deconvnet (Zeiler and Fergus 2014):      g_in = g · [g > 0]
Both change ReLUs only: modules, functions, in place, or written as clamp(min=0), maximum(x, 0) or threshold(x, 0, 0).
A model with other activations is refused by name. Products with a mask (``x * (x > 0)``) are products, not ReLUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from spray.engine.errors import UnsupportedOperation
from spray.engine.functions import names, operation_name, overwrites, tensors_in
from spray.engine.operations import activations, gates

_EXTREMA = names("maximum minimum max min")
_CLIPS = names("clamp clip clamp_min clamp_max threshold") | _EXTREMA
"""What is a ReLU with a bound of 0 below, and another activation with any other bound."""

_OTHERS = (
    frozenset(activations.HANDLERS)
    | frozenset(gates.HANDLERS)
    | names(
        "leaky_relu prelu rrelu softplus logsigmoid log_sigmoid hardshrink softmax softmin log_softmax "
        "gumbel_softmax exp cos"
    )
) - {"relu"}


class ChangedReLU(TorchFunctionMode):
    """While it is entered, every ReLU hands back gradients by the chosen rule."""

    def __init__(self, kind: Literal["guided", "deconvnet"]) -> None:
        super().__init__()
        self.kind = kind

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        written, kwargs = operation_name(func), dict(kwargs or {})
        name = written.strip("_")
        if not any(tensor.requires_grad for tensor in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        x, bounds = _bounds(name, args, kwargs)
        if name == "relu" or (name in _CLIPS and _clips_at_zero(name, x, bounds)):
            return _ReLU.apply(x, overwrites(written) or bool(kwargs.get("inplace")), self.kind)
        if name in _OTHERS or (name in _CLIPS and _has_bound(name, bounds)):
            raise UnsupportedOperation(
                f"{name}: {self.kind} backpropagation is defined for ReLU networks only. Use gradient or an LRP "
                "composite for this model."
            )
        return func(*args, **kwargs)


def _bounds(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The value that an operation is given, and the bounds of one of ``_CLIPS`` by name."""
    order = {
        "clamp_max": ("input", "max"),
        "threshold": ("input", "threshold", "value", "inplace"),
        **dict.fromkeys(_EXTREMA, ("input", "other")),
    }.get(name, ("input", "min", "max"))
    given = dict(zip(order, args, strict=False)) | dict(kwargs)
    x, other = given.pop("input", None), given.get("other")
    if name in _EXTREMA and isinstance(other, Tensor) and not x.requires_grad:
        x, given["other"] = other, x
    return x, given


def _clips_at_zero(name: str, x: Tensor, bounds: Mapping[str, Any]) -> bool:
    """Whether it is max(x, 0)."""
    if name == "threshold":
        return bool(bounds["threshold"] == 0 and bounds["value"] == 0)
    if name in ("minimum", "min") or bounds.get("max") is not None:
        return False
    low = bounds.get("other" if name in _EXTREMA else "min")
    if isinstance(low, Tensor):
        return (
            not low.requires_grad and not low.any() and torch.broadcast_shapes(low.shape, x.shape) == x.shape
        )
    return low == 0 and name not in _EXTREMA  # of which a number is the dimension


def _has_bound(name: str, bounds: Mapping[str, Any]) -> bool:
    """Whether a constant clips the values; maxima over places or of two tensors of the model are no activations."""
    other = bounds.get("other")
    return name not in _EXTREMA or (isinstance(other, Tensor) and not other.requires_grad)


class _ReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool, kind: str) -> Tensor:
        ctx.kind = kind
        if in_place:
            ctx.mark_dirty(x)
        out = x.clamp_(min=0) if in_place else x.clamp(min=0)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        passed = g.clamp(min=0)
        return torch.where(out > 0, passed, 0) if ctx.kind == "guided" else passed, None, None
