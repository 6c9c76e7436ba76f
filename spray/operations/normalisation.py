"""Normalisations: BatchNorm folded by execution, and those by statistics of the sample, σ held constant.

BatchNorm in evaluation is x ↦ scale·x + shift per channel. Where it is the only consumer of a weighted layer it is
folded into that layer, whose rule then sees the folded W and b (folding changes the result, so composites say
whether they fold). Elsewhere it is a diagonal affine layer under LRP-0, its shift taking its own share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from spray.calls import Early, LayerCall
from spray.layer import Fold
from spray.ledger import Ledger
from spray.trace import Call, Handler, Origin


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
        return _affine(call, input, Fold(scale, shift, sources))

    return bind(*call.args, **call.kwargs)


def _affine(call: Call, x: Tensor, fold: Fold) -> Tensor:
    """scale·x + shift over the channels, folded into the layer that made x if nothing else has used it."""
    trace = call.trace
    origin = trace.origin(x)
    layer_call = origin.call if origin is not None else None
    foldable = trace.folds and layer_call is not None and layer_call.uses == 0
    if not foldable:
        trace.consume([x])
    early = trace.early(call, carries=True)
    out: Tensor = _Affine.apply(x, fold, layer_call if foldable else None, early, trace.ledger)
    if foldable and layer_call is not None:
        layer_call.fold(fold, out.detach())
    call.origin = Origin(trace, early=early)
    return out


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


HANDLERS: dict[str, Handler] = {"batch_norm": batch_norm}
