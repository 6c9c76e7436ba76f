"""Weighted layers, as modules or functions: the operations that the composite gives a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from spray.engine import axes
from spray.engine.calls import Early, LayerCall
from spray.engine.geometry import Convolution, Geometry, Linear, Product
from spray.engine.layer import Layer
from spray.engine.origins import MEETING, Call, Handler, Origin
from spray.engine.rules import RelevanceRule
from spray.engine.strides import is_channels_last


def weighted(
    call: Call, kind: str, geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Run a weighted layer under the rule its composite gives it.

    Raises:
        UnsupportedOperation: its input or weight is of a kind that no rule covers, or the rule cannot stand here.
    """
    trace = call.trace
    call.need_samples(first=True)
    origin = trace.origin(x)
    if origin is None or origin.gate is not None or trace.depends(weight) or trace.depends(bias):
        made_of = f" ({origin.gate})" if origin is not None and origin.gate else ""
        raise call.refuse(
            f"its weight depends on the input, or its input is held constant{made_of}. A weighted layer needs an "
            "input that depends on the model's input and constant weights."
        )
    name, module = trace.path[-1] if trace.path else ("", None)
    rule = trace.rules(kind=kind, name=name, module=module, position=len(trace.weighted))
    trace.weighted.append((name, module))
    early = None
    if isinstance(rule, RelevanceRule):
        if geometry.per_sample:
            raise call.refuse(
                f"each sample has weights of its own, which the rule {rule.name} cannot share by. Give layer '{name}' "
                "another rule."
            )
        if origin.early is None:
            raise call.refuse(
                f"the rule {rule.name} hands back relevance itself and so can only stand in a first layer, but "
                f"layer '{name}' comes after layers with other rules. Give it another rule."
            )
        origin.early.demand("relevance")
        early = Early(f"{call.name} '{name}'", carries=True)
    elif origin.early is not None:
        origin.early.demand("quotient")
    layer = Layer(
        geometry,
        weight,
        bias,
        derived=trace.derived,
        ledger=trace.ledger,
        nonnegative=origin.nonnegative,
        laid=weight.ndim == 4 and is_channels_last(x),
    )
    layer_call = LayerCall(layer, rule, early)
    out = layer_call.run(x)
    refused = rule.refuses(x.shape, out.shape) if isinstance(rule, RelevanceRule) else None
    if refused is not None:
        raise call.refuse(f"{refused} It is layer '{name}'.")
    call.origin = Origin(trace.token, call=layer_call, early=early)
    return out


def linear(call: Call) -> Tensor:
    """F.linear and nn.Linear."""

    def bind(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return weighted(call, "linear", Linear(), input, weight, bias)

    return bind(*call.args, **call.kwargs)


def addmm(call: Call) -> Tensor:
    """b + x @ W, as ``torch.addmm(b, x, W)``: a linear layer.

    Raises:
        UnsupportedOperation: b and W are no constant vector and matrix, or a factor is given.
    """
    bias, x, weight = (*call.args, *(call.kwargs[key] for key in ("mat1", "mat2") if key in call.kwargs))
    depends = call.trace.depends
    plain = not depends(bias) and not depends(weight) and bias.ndim == 1
    if not plain or any(call.kwargs.get(factor, 1) != 1 for factor in ("alpha", "beta")):
        raise call.refuse("only b + x @ W with constant b and W has a rule. Write the product and the sum.")
    return weighted(call, "linear", Linear(), x, torch.t(weight), bias)


def convolution(call: Call, dimensions: int) -> Tensor:
    """F.conv1d to conv3d and their modules."""

    def bind(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        every = partial(_tuple, dimensions)
        ends: tuple[int, ...] = ()
        if isinstance(padding, str):
            padding, ends = _explicit_padding(weight, padding, every(dilation))
        geometry = Convolution(every(stride), every(padding), every(dilation), groups, one_sided=ends)
        return weighted(call, "convolution", geometry, input, weight, bias)

    _refuse_single(call, dimensions)
    return bind(*call.args, **call.kwargs)


def transposed_convolution(call: Call, dimensions: int) -> Tensor:
    """F.conv_transpose1d to conv_transpose3d and their modules."""

    def bind(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
    ) -> Tensor:
        every = partial(_tuple, dimensions)
        geometry = Convolution(
            every(stride), every(padding), every(dilation), groups, True, every(output_padding)
        )
        return weighted(call, "convolution", geometry, input, weight, bias)

    _refuse_single(call, dimensions)
    return bind(*call.args, **call.kwargs)


def _tuple(dimensions: int, value: int | Sequence[int]) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def _explicit_padding(
    weight: Tensor, padding: str, dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """``padding='same'`` or ``'valid'`` in numbers: on both sides, and one-sided where the kernel is even."""
    if padding == "valid":
        return (0,) * len(dilation), ()
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    ends = [end for t in reversed(total) for end in (0, t % 2)]
    return tuple(t // 2 for t in total), tuple(ends) if any(ends) else ()


def _refuse_single(call: Call, dimensions: int) -> None:
    x = call.tracked[0]
    if x.ndim != dimensions + 2:
        raise call.refuse(
            f"its input has shape {tuple(x.shape)}, but {dimensions + 2} dimensions (samples, channels, "
            f"{dimensions} of place) are needed. Add the sample dimension."
        )


def product(call: Call, function: axes.Bilinear, x: Tensor, weight: Tensor) -> Tensor:
    """f(x, W), linear in x and in W, as a linear layer without bias, whatever its dimensions are.

    Raises:
        UnsupportedOperation: values of several samples are added up.
    """
    call.need_samples(first=False)
    trace, axis = call.trace, call.axis or 0
    samples = axes.of_product(function, x, axis, weight)
    if samples is None:
        raise call.refuse(MEETING)
    after, own = samples
    if own is not None and weight.stride(own) == 0:  # one for all, laid out as one for each
        weight, function, own = weight.narrow(own, 0, 1), _expanded(function, weight, own, axis), None

    def samples_first(x: Tensor, weight: Tensor) -> Tensor:
        out = function(x.movedim(0, axis), weight).movedim(after, 0)
        return out if out.ndim > 1 else out[:, None]

    with trace:
        x = x.movedim(axis, 0) if axis else x
    dims = axes.channels(samples_first, x, weight)
    geometry = Product(samples_first, *dims, per_sample=own is not None)
    first = replace(call, axis=0, tracked=[x])
    out = trace.marked(first, weighted(first, "linear", geometry, x, weight, None))
    with trace:
        out = out.squeeze(1) if axes.empty(function, x.movedim(0, axis), weight).ndim == 1 else out
        return out.movedim(0, after) if after else out


def _expanded(function: axes.Bilinear, weight: Tensor, dim: int, axis: int) -> axes.Bilinear:
    """f with the one weight of its dimension ``dim`` repeated for every sample of x."""
    return lambda x, one: function(
        x, one.expand(*(x.shape[axis] if d == dim else -1 for d in range(weight.ndim)))
    )


HANDLERS: dict[str, Handler] = {
    "linear": linear,
    "addmm": addmm,
    **{f"conv{d}d": partial(convolution, dimensions=d) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": partial(transposed_convolution, dimensions=d) for d in (1, 2, 3)},
}
