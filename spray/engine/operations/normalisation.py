"""Normalisations: BatchNorm folded by execution, and those by statistics of the sample, σ held constant.

BatchNorm in evaluation is x ↦ scale·x + shift per channel. Where it is the only consumer of a weighted layer it is
folded into that layer, whose rule then sees the folded W and b (folding changes the result, so composites say
whether they fold). Elsewhere it is a diagonal affine layer under LRP-0, its shift taking its own share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from spray.engine.calls import Early, LayerCall
from spray.engine.layer import Fold
from spray.engine.ledger import Ledger
from spray.engine.origins import Call, Handler, Origin


def batch_norm(call: Call) -> Tensor:
    """F.batch_norm and nn.BatchNorm1d to 3d, in evaluation.

    Raises:
        UnsupportedOperation: it normalises by the batch, so that samples explain each other.
    """

    def bind(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float | None = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Tensor:
        if training or running_mean is None or running_var is None:
            raise call.refuse(
                "it normalises with the statistics of the batch, so that one sample's map depends on the others. "
                "Call model.eval(), and use a BatchNorm that tracks running statistics."
            )
        with torch.no_grad():
            scale = (running_var + eps).rsqrt()
            if weight is not None:
                scale = scale * weight
            shift = -running_mean * scale
            if bias is not None:
                shift = shift + bias
        sources = tuple(t for t in (running_mean, running_var, weight, bias) if t is not None)
        return _affine(call, input, Fold(scale, shift, sources, eps))

    return bind(*call.args, **call.kwargs)


def _affine(call: Call, x: Tensor, fold: Fold) -> Tensor:
    """scale·x + shift over the channels, folded into the layer that made x if nothing else has used it."""
    trace = call.trace
    call.need_samples(first=True)
    origin = trace.origin(x)
    layer_call = origin.call if origin is not None else None
    foldable = trace.folds and layer_call is not None and _first_of_channels(layer_call, x)
    if not foldable:
        trace.consume([x])
    early = trace.early(call, carries=True)
    out: Tensor = _Affine.apply(x, fold, layer_call if foldable else None, early, trace.ledger)
    if foldable and layer_call is not None:
        layer_call.fold(fold, out.detach())
    call.origin = Origin(trace.token, call=layer_call if foldable else None, folded=foldable, early=early)
    return out


def _first_of_channels(layer_call: LayerCall, x: Tensor) -> bool:
    """Whether nothing has used the layer's output x yet, and x has the layer's channels where a BatchNorm's are."""
    layer = layer_call.layer
    channels = layer.geometry.channel_dim % x.ndim == 1 and layer.outputs == x.shape[1]
    return layer_call.uses == 0 and layer.fold is None and channels


class _Affine(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, fold: Fold, layer_call: LayerCall | None, early: Early | None, ledger: Ledger
    ) -> Tensor:
        ctx.fold, ctx.layer_call, ctx.early, ctx.ledger = fold, layer_call, early, ledger
        tail = [1] * (x.ndim - 2)
        return torch.addcmul(fold.shift.view(-1, *tail), x, fold.scale.view(-1, *tail))

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor, None, None, None, None]:
        folded = ctx.layer_call is not None and ctx.layer_call.layer.fold is ctx.fold
        if folded or (ctx.early is not None and ctx.early.carried == "relevance"):
            return c, None, None, None, None
        tail = [1] * (c.ndim - 2)
        ledger: Ledger = ctx.ledger
        ledger.book("bias", ledger.rows(c * ctx.fold.shift.view(-1, *tail)))
        return c * ctx.fold.scale.view(-1, *tail), None, None, None, None


def layer_norm(call: Call) -> Tensor:
    """F.layer_norm and nn.LayerNorm."""

    def bind(
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enable: bool = True,
    ) -> Tensor:
        dims = tuple(range(-len(normalized_shape), 0))
        return _standardise(call, input, input.shape, dims, weight, bias, eps)

    return bind(*call.args, **call.kwargs)


def group_norm(call: Call) -> Tensor:
    """F.group_norm and nn.GroupNorm."""

    def bind(
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Tensor:
        return _by_groups(call, input, num_groups, weight, bias, eps)

    return bind(*call.args, **call.kwargs)


def instance_norm(call: Call) -> Tensor:
    """F.instance_norm and nn.InstanceNorm1d to 3d: every channel a group of its own."""

    def bind(
        input: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Tensor:
        if not use_input_stats:
            raise call.refuse(
                "with running statistics it has no rule. Use BatchNorm, which is the same then."
            )
        return _by_groups(call, input, input.shape[1], weight, bias, eps)

    return bind(*call.args, **call.kwargs)


def rms_norm(call: Call) -> Tensor:
    """F.rms_norm and nn.RMSNorm: no centring."""

    def bind(
        input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
    ) -> Tensor:
        dims = tuple(range(-len(normalized_shape), 0))
        eps = torch.finfo(input.dtype).eps if eps is None else eps
        return _standardise(call, input, input.shape, dims, weight, None, eps, centred=False)

    return bind(*call.args, **call.kwargs)


def normalize(call: Call) -> Tensor:
    """F.normalize: divided by a norm, which is held constant."""

    def bind(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
        norm: Tensor = input.detach().norm(p, dim, keepdim=True).clamp_min(eps)
        divided: Tensor = input / norm
        return divided

    return bind(*call.args, **call.kwargs)


def _by_groups(
    call: Call, x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Standardised within groups of channels, with weight and bias per channel."""
    shape = torch.Size((x.shape[0], groups, x[0].numel() // groups))
    tail = [1] * (x.ndim - 2)
    weight, bias = (None if t is None else t.view(-1, *tail) for t in (weight, bias))
    return _standardise(call, x, shape, (2,), weight, bias, eps)


def _standardise(
    call: Call,
    x: Tensor,
    shape: torch.Size,
    dims: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    centred: bool = True,
) -> Tensor:
    """(x − mean)/σ·weight + bias over the dimensions ``dims`` of x in the given shape."""
    if bias is not None:
        call.need_samples(first=True)
    constants = [None if t is None else t.detach() for t in (weight, bias)]
    out: Tensor = _Standardise.apply(x, shape, dims, *constants, eps, centred, call.trace.ledger)
    return out


class _Standardise(Function):
    """Centring is linear and has its transpose; σ is held constant; the bias takes its own share."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shape: torch.Size,
        dims: tuple[int, ...],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        centred: bool,
        ledger: Ledger,
    ) -> Tensor:
        grouped = x.reshape(shape)
        if centred:
            grouped = grouped - grouped.mean(dims, keepdim=True)
        ctx.scale = grouped.square().mean(dims, keepdim=True).add_(eps).rsqrt_()
        ctx.shape, ctx.dims, ctx.weight, ctx.bias = shape, dims, weight, bias
        ctx.centred, ctx.ledger = centred, ledger
        out: Tensor = (grouped * ctx.scale).reshape(x.shape)
        if weight is not None:
            out = out * weight
        return out if bias is None else out + bias

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.bias is not None:
            ctx.ledger.book("bias", ctx.ledger.rows(c * ctx.bias))
        scaled = c if ctx.weight is None else c * ctx.weight
        grouped = scaled.reshape(ctx.shape) * ctx.scale
        if ctx.centred:
            grouped = grouped - grouped.mean(ctx.dims, keepdim=True)
        towards_x: Tensor = grouped.reshape(c.shape)
        return towards_x, *(None,) * 7


HANDLERS: dict[str, Handler] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "rms_norm": rms_norm,
    "normalize": normalize,
}
