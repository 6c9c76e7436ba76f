"""Sums with constants: learned tokens, position embeddings and shifts take their own share of the relevance.

c passes to the part that depends on the input; Σ c·k, the relevance of the constant k, is booked as ``tokens``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spray.engine.calls import Early
from spray.engine.origins import Call, Handler, Origin


def add(call: Call) -> Tensor:
    """x + α·y, one of them possibly constant."""
    return _sum(call, sign=1)


def subtract(call: Call) -> Tensor:
    """x − α·y, one of them possibly constant."""
    return _sum(call, sign=-1)


def reversed_subtract(call: Call) -> Tensor:
    """y − x, as Python writes ``1 - x``."""
    x, y = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    call.args, alpha = (y, x), call.kwargs.get("alpha", 1)
    call.kwargs = {"alpha": alpha}
    call.function = torch.sub if isinstance(y, Tensor) else _subtract_from_number
    return _sum(call, sign=-1)


def concatenate(call: Call) -> Tensor:
    """Concatenation, of tokens that do not depend on the input as well."""
    call.carries = "natively"
    pieces = call.args[0]
    out: Tensor = call.native()
    constants = [not call.trace.depends(piece) for piece in pieces]
    call.keeps_sign = not any(constants)
    if any(constants):
        refuse_gates(call, pieces)
        dim = call.kwargs.get("dim", call.kwargs.get("axis", call.args[1] if len(call.args) > 1 else 0))
        dim = 1 if call.name == "hstack" and out.ndim > 1 else dim
        sizes = [1 if call.name == "stack" else piece.shape[dim] for piece in pieces]
        held = [
            torch.full_like(part, float(constant))
            for part, constant in zip(out.detach().split(sizes, dim), constants, strict=True)
        ]
        early = call.trace.early(call, carries=True)
        call.origin = Origin(call.trace.token, early=early)
        _book_places(call, out, torch.cat(held, dim), early)
    return out


def where(call: Call) -> Tensor:
    """A choice by a constant mask between values."""
    order = (
        ("input", "condition", "other") if call.function is Tensor.where else ("condition", "input", "other")
    )
    given = dict(zip(order, call.args, strict=False)) | call.kwargs
    condition, a, b = given["condition"].bool(), given["input"], given["other"]
    out: Tensor = call.native()
    if not (call.trace.depends(a) and call.trace.depends(b)):
        refuse_gates(call, (a, b))
        chosen = condition if call.trace.depends(b) else ~condition
        book(call, out, torch.where(chosen, out.detach(), 0))
    return out


def masked_fill(call: Call) -> Tensor:
    """Values replaced by a constant where a mask is set."""
    x, mask, value = (*call.args, *(call.kwargs[key] for key in ("mask", "value") if key in call.kwargs))
    if not call.trace.depends(x) or call.trace.depends(value):
        raise call.refuse("it fills in values of the model. Use torch.where, which tells both apart.")
    refuse_gates(call, [value])
    out: Tensor = call.native()
    book(call, out, torch.where(mask, out.detach(), 0))
    return out


def _sum(call: Call, sign: int) -> Tensor:
    call.carries = "elementwise"
    out: Tensor = call.native()
    first, second = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    held = [value for value in (first, second) if not call.trace.depends(value)]
    if held:
        refuse_gates(call, held)
        value = held[0].detach() if isinstance(held[0], Tensor) else held[0]
        factor = sign * call.kwargs.get("alpha", 1) if held[0] is second else 1
        book(call, out, value * factor)
    else:
        call.carries, call.keeps_sign = "no", sign * call.kwargs.get("alpha", 1) > 0
    return out


def _subtract_from_number(number: float, x: Tensor, alpha: float = 1) -> Tensor:
    return number - alpha * x


def book(call: Call, out: Tensor, held: Tensor | float) -> None:
    """Book Σ c·held of each sample once c arrives at the output; R passes sums with constants unchanged."""
    if isinstance(held, int | float) and held == 0:
        return
    ledger, samples_first = call.trace.ledger, call.samples_first
    call.need_samples(first=False)

    def enter(c: Tensor | None) -> None:
        if c is None:  # R itself is carried here, and passes unchanged
            return
        share = torch.where(c == 0, 0, c * held)
        ledger.book("tokens", ledger.rows(samples_first(share)))

    out.register_hook(enter)


def _book_places(call: Call, out: Tensor, held: Tensor, early: Early | None) -> None:
    """Book what the places of constants, 1 in ``held``, are given: c times the constant, or R where that is carried."""
    ledger, values = call.trace.ledger, out.detach()
    call.need_samples(first=True)

    def enter(carried: Tensor) -> None:
        given = early is not None and early.carried == "relevance"
        ledger.book("tokens", ledger.rows(carried * held if given else carried * held * values))

    out.register_hook(enter)


def refuse_gates(call: Call, values: Any) -> None:
    """Refuse values held constant as gates where only true constants have a share."""
    for value in values:
        origin = call.trace.origin(value)
        if origin is not None and origin.gate is not None:
            raise call.refuse(
                f"{origin.gate} has no rule as an activation: its value at 0 is not 0, so it is held constant as a "
                "gate, which may only multiply. Use ReLU, GELU, SiLU or tanh there."
            )


HANDLERS: dict[str, Handler] = {
    "add": add,
    "__add__": add,
    "__radd__": add,
    "sub": subtract,
    "subtract": subtract,
    "__sub__": subtract,
    "rsub": reversed_subtract,
    "__rsub__": reversed_subtract,
    "cat": concatenate,
    "concat": concatenate,
    "concatenate": concatenate,
    "stack": concatenate,
    "hstack": concatenate,
    "vstack": concatenate,
    "where": where,
    "masked_fill": masked_fill,
}
