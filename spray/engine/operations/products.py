"""Products: a constant factor is linear, a gate is held constant, a true product of two tensors is split.

Matrix products with a constant are linear layers, which the composite gives a rule as others. One written elementwise
(``(x[:, None] * W).sum(-1)``) cannot be known as one: it is a scaling and a sum, and so LRP-0 under any composite.

Gates (sigmoid, hard-sigmoid, softmax) come by as constants, see ``gates``. Of x·y, with both depending on the
input, each factor takes one half of the relevance: c_x = ½·c·y, c_y = ½·c·x, so that R_x + R_y = R.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from spray.engine import axes
from spray.engine.axes import Bilinear
from spray.engine.errors import UnsupportedOperation
from spray.engine.geometry import Linear
from spray.engine.operations import weighted
from spray.engine.origins import MEETING, Call, Handler


class _Scaled(Function):
    """The identity, whose input gets a fixed share of what its output is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: float) -> Tensor:
        ctx.part = part
        return x.detach()

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor, None]:
        return c * ctx.part, None


def share(x: Tensor, part: float) -> Tensor:
    """x, which will take only that part of what it is given."""
    out: Tensor = _Scaled.apply(x, part)
    return out


def multiply(call: Call) -> Tensor:
    """x·y."""
    x, y = _factors(call)
    if call.trace.depends(x) and call.trace.depends(y):
        return _split(call, x, y)
    call.carries = "elementwise"
    out: Tensor = call.native()
    return out


def divide(call: Call) -> Tensor:
    """x / y, y held constant.

    Raises:
        UnsupportedOperation: the input stands in the denominator only, which is no share of anything.
    """
    x, y = _factors(call)
    if call.kwargs.get("rounding_mode"):
        raise call.refuse("rounding leaves steps, whose slope is 0 everywhere. Divide without rounding_mode.")
    if not call.trace.depends(x):
        raise _upside_down(call)
    if call.trace.depends(y):
        call.args, call.kwargs = (x, y.detach()), {}
    else:
        call.carries = "elementwise"
    out: Tensor = call.native()
    return out


def divide_by(call: Call) -> Tensor:
    """y / x, as Python writes ``1 / x``: always refused, since the input below is no share of anything."""
    raise _upside_down(call)


def power(call: Call) -> Tensor:
    """x², as the product x·x; no other power has a rule."""
    x, exponent = _factors(call)
    if isinstance(exponent, Tensor) and exponent.numel() == 1 and not call.trace.depends(exponent):
        exponent = exponent.item()
    if isinstance(exponent, Tensor) or exponent not in (1, 2):
        raise call.refuse(f"only x² has a rule, not the exponent {exponent}.")
    out: Tensor = x * 1 if exponent == 1 else share(x, 0.5) * share(x, 0.5)
    return out


def square(call: Call) -> Tensor:
    """x·x."""
    x = call.args[0]
    out: Tensor = share(x, 0.5) * share(x, 0.5)
    return out


def matmul(call: Call) -> Tensor:
    """x @ y: a linear layer where one side is constant, a true product where both depend on the input.

    A bias added afterwards is a sum with a constant, see ``constants``; ``F.linear`` has it in the layer.
    """
    x, y = _factors(call)
    if call.trace.depends(x) and call.trace.depends(y):
        return _split(call, x, y)
    if call.trace.depends(x) and y.ndim == 2 and call.axis == 0 and call.trace.origin(y) is None:
        return weighted.weighted(call, "linear", Linear(), x, torch.t(y), None)
    return _with_constant(call, torch.matmul, x, y)


def einsum(call: Call) -> Tensor:
    """Sums of products of two tensors, given as ``einsum(equation, x, y)``: as ``matmul``; of one, sums."""
    equation, *operands = call.args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if len(operands) > 2 or not isinstance(equation, str):
        raise call.refuse(
            "a product of more than two tensors, or one without an equation in letters, has no rule. Multiply two "
            "at a time."
        )
    call.args = (equation, *operands)
    if len(operands) == 1:
        summed: Tensor = call.native()
        return summed
    function = partial(torch.einsum, equation)
    if all(map(call.trace.depends, operands)):
        split: Tensor = function(*(share(operand, 0.5) for operand in operands))
        return split
    return _with_constant(call, function, *operands)


def _with_constant(call: Call, function: Bilinear, x: Tensor, y: Tensor) -> Tensor:
    """A product whose one side is held constant: what a gate made passes c as it is, a matrix is a weighted layer."""
    held, given, turned = (
        (y, x, function) if call.trace.depends(x) else (x, y, lambda x, held: function(held, x))
    )
    if call.trace.origin(held) is None:
        return weighted.product(call, turned, given, held)
    if call.trace.ledger.samples > 1 and axes.of_product(turned, given, call.axis or 0, held) is None:
        raise call.refuse(MEETING)
    out: Tensor = call.native()
    return out


def _upside_down(call: Call) -> UnsupportedOperation:
    return call.refuse("a constant divided by a value has no rule. Multiply by a gate, or normalise instead.")


def _factors(call: Call) -> tuple[Any, Any]:
    names = ("other", "exponent", "mat2", "tensor2")
    return call.args[0], (*call.args[1:], *(call.kwargs[name] for name in names if name in call.kwargs))[0]


def _split(call: Call, x: Tensor, y: Tensor) -> Tensor:
    out: Tensor = call.function(share(x, 0.5), share(y, 0.5))
    return out


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), multiply),
    **dict.fromkeys(("div", "divide", "true_divide", "__truediv__"), divide),
    **dict.fromkeys(("reciprocal", "__rdiv__", "__rtruediv__"), divide_by),
    **dict.fromkeys(("pow", "__pow__"), power),
    "square": square,
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "mm"), matmul),
    "einsum": einsum,
}
