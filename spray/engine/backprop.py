"""Backpropagation with changed ReLUs: guided backpropagation and the deconvolutional network.

guided (Springenberg et al. 2015):       g_in = g · [x > 0] · [g > 0]
deconvnet (Zeiler and Fergus 2014):      g_in = g · [g > 0]
Both change ReLUs only, whether module, function or in place; a model with other activations is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from spray.engine.errors import UnsupportedOperation
from spray.engine.functions import operation_name
from spray.engine.operations import activations, gates

_OTHERS = (
    frozenset(activations.HANDLERS) | frozenset(gates.HANDLERS) | {"leaky_relu", "prelu", "softplus"}
) - {
    "sin",
    "atan",
    "erf",
    "clamp",
    "clip",
    "clamp_min",
    "clamp_max",
}


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
        name = operation_name(func)
        kwargs = kwargs or {}
        if name in ("relu", "relu_"):
            in_place = name == "relu_" or bool(kwargs.get("inplace"))
            x = args[0] if args else kwargs["input"]
            return _ReLU.apply(x, in_place, self.kind)
        if name.rstrip("_") in _OTHERS:
            raise UnsupportedOperation(
                f"{name}: {self.kind} backpropagation is defined for ReLU networks only. Use gradient or an LRP "
                "composite for this model."
            )
        return func(*args, **kwargs)


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
