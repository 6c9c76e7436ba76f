"""Activations with φ(0) = 0: c_in = c·φ(x)/x with its limit φ'(0) at 0, so that R passes unchanged.

For ReLU φ(x)/x is the gradient itself, as for LeakyReLU (see ``homogeneous``); for the others here it is not: plain
gradients would multiply the relevance (ReLU6 1.7 times, tanh 2.6 times, GELU 1.13 times, as measured).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from spray.engine.calls import LayerCall
from spray.engine.origins import Call, Handler
from spray.engine.rules.base import where_positive

Ratio = Callable[[Tensor, Tensor, Tensor], Tensor]
"""c of the input from c of the output, x and φ(x)."""


class _Activation(Function):
    """y = φ(x) with c_in = c·φ(x)/x; left to the layer that made x where it can tell R from c and y itself."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, held: Tensor, y: Tensor, ratio: Ratio, layer: LayerCall | None
    ) -> Tensor:
        ctx.save_for_backward(held, y)
        ctx.ratio, ctx.layer = ratio, layer
        return y.detach()  # not view_as, which loses the memory format of single samples

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor | None, ...]:
        left = ctx.layer is not None and ctx.layer.activated is not None
        return c if left else ctx.ratio(c, *ctx.saved_tensors), *(None,) * 4


def activation(call: Call, ratio: Ratio, *, rectifies: bool = False) -> Tensor:
    """Run an activation, φ(x)/x known in closed form or by division with its limit at 0."""
    call.carries = "elementwise"
    x = call.args[0] if call.args else call.kwargs["input"]
    origin = call.trace.origin(x)
    layer = origin.call if origin is not None else None
    left = layer is not None and origin is not None and layer.activates(folded=origin.folded)
    with torch.no_grad():
        y = x.detach().clamp_(min=0) if left and rectifies and call.in_place else call.native()
    if layer is not None and left:
        layer.activate(y, rectified=rectifies)
    # Of a ReLU the value tells all; holding x as well would keep another tensor of that size.
    out: Tensor = _Activation.apply(x, y if rectifies else x, y, ratio, layer if left else None)
    return out


def times(factor: Callable[[Tensor, Tensor], Tensor]) -> Ratio:
    """c·φ(x)/x, the factor given as a function of x and φ(x)."""
    return lambda c, x, y: factor(x, y).mul_(c)


def relu(call: Call) -> Tensor:
    """max(x, 0): its gradient; in place where the model has it in place and nothing else needs what is overwritten."""
    return activation(call, lambda c, x, y: where_positive(c, y), rectifies=True)


def threshold(call: Call) -> Tensor:
    """F.threshold and nn.Threshold at 0 and with 0, which is ReLU.

    Raises:
        UnsupportedOperation: at or with another value.
    """
    given = dict(zip(("input", "threshold", "value"), call.args, strict=False)) | call.kwargs
    if given["threshold"] != 0 or given["value"] != 0:
        raise call.refuse("only threshold(x, 0, 0), which is ReLU, has a rule.")
    call.name, call.function, call.args, call.kwargs = "relu", torch.relu, (given["input"],), {}
    return relu(call)


def by_division(c: Tensor, x: Tensor, y: Tensor, *, limit: float) -> Tensor:
    """c·φ(x)/x, with the limit φ'(0) at x = 0."""
    return torch.where(x == 0, limit, y / x).mul_(c)


def gelu(call: Call) -> Tensor:
    """x·Φ(x); the tanh approximation by division."""
    exact = call.kwargs.get("approximate", "none") == "none"
    return activation(call, times(_normal_cdf) if exact else partial(by_division, limit=0.5))


def _normal_cdf(x: Tensor, y: Tensor) -> Tensor:
    cdf: Tensor = torch.special.ndtr(x)
    return cdf


def celu(call: Call) -> Tensor:
    """max(0, x) + min(0, α(exp(x/α) − 1)), with slope 1 at 0."""
    return activation(call, partial(by_division, limit=1.0))


def elu(call: Call) -> Tensor:
    """x or α(exp(x) − 1), with slope 1 on the right of 0."""
    return activation(call, partial(by_division, limit=1.0))


def hardtanh(call: Call) -> Tensor:
    """x clipped to bounds around 0 (ReLU6, hardtanh, clamp).

    Raises:
        UnsupportedOperation: 0 lies outside the bounds, so φ(0) ≠ 0.
    """
    ends = ("max",) if call.name == "clamp_max" else ("min", "max")
    bounds = dict(zip(ends, call.args[1:3], strict=False))
    bounds |= {key.removesuffix("_val"): value for key, value in call.kwargs.items() if key.startswith("m")}
    default = 1.0 if call.name == "hardtanh" else None
    low = bounds.get("min", None if default is None else -default)
    high = bounds.get("max", default)
    if any(isinstance(bound, Tensor) for bound in (low, high)):
        raise call.refuse("bounds given as tensors have no rule. Use numbers.")
    if (low is not None and low > 0) or (high is not None and high < 0):
        raise call.refuse(
            f"it clips to [{low}, {high}], so its value at 0 is not 0 and no share belongs to x."
        )
    return activation(call, partial(by_division, limit=1.0))


def glu(call: Call) -> Tensor:
    """First half times sigmoid of the second: the gate is held constant."""
    x = call.args[0]
    dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else -1)
    a, b = x.chunk(2, dim)
    out: Tensor = a * torch.sigmoid(b.detach())
    return out


HANDLERS: dict[str, Handler] = {
    "relu": relu,
    **dict.fromkeys(("threshold", "_threshold"), threshold),
    "silu": partial(activation, ratio=times(lambda x, y: torch.sigmoid(x))),
    "hardswish": partial(activation, ratio=times(lambda x, y: F.hardsigmoid(x))),
    "mish": partial(activation, ratio=times(lambda x, y: torch.tanh(F.softplus(x)))),
    "softsign": partial(activation, ratio=times(lambda x, y: 1 / (1 + x.abs()))),
    "tanh": partial(activation, ratio=partial(by_division, limit=1.0)),
    "relu6": partial(activation, ratio=partial(by_division, limit=1.0)),
    "selu": partial(activation, ratio=partial(by_division, limit=1.0507009873554805)),
    "tanhshrink": partial(activation, ratio=partial(by_division, limit=0.0)),
    "softshrink": partial(activation, ratio=partial(by_division, limit=0.0)),
    "erf": partial(activation, ratio=partial(by_division, limit=1.1283791670955126)),
    "sin": partial(activation, ratio=partial(by_division, limit=1.0)),
    "atan": partial(activation, ratio=partial(by_division, limit=1.0)),
    "gelu": gelu,
    "elu": elu,
    "celu": celu,
    "glu": glu,
    **dict.fromkeys(("hardtanh", "clamp", "clip", "clamp_min", "clamp_max"), hardtanh),
}
