"""Along which dimension of a tensor the samples are: first as a rule, second where a model has places first.

The books are kept per sample, so what books has to know. Nothing is asked of most operations: where samples are
first, they stay so. Operations that move dimensions are run on tensors without values, of which the dimension of the
samples has a size of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spray.engine.functions import map_tensors, names, tensors_in

MOVING = names(
    "permute transpose t T mT adjoint swapaxes swapdims movedim moveaxis unsqueeze stack einsum atleast_3d"
)
RESHAPING = names("view view_as reshape reshape_as flatten unflatten ravel")
_MARK = 1_000_003
"""The size by which the samples are known again."""


def common(axes: list[tuple[int | None, int]]) -> int | None:
    """The dimension of the samples in the largest of tensors, each given by its own and its number of dimensions.

    None where that of one is not known, or they do not lie on each other.
    """
    if all(axis == 0 for axis, _ in axes):
        return 0
    known = {axis - ndim for axis, ndim in axes if axis is not None}
    if len(known) != 1 or any(axis is None for axis, _ in axes):
        return None
    return known.pop() + max(ndim for _, ndim in axes)


def after(
    name: str,
    function: Callable[..., Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    tracked: list[Tensor],
    axis: int | None,
    out: Tensor,
) -> int | None:
    """The dimension of the samples in what an operation on tracked tensors returned, None where it cannot be told."""
    x = tracked[0]
    if axis is None or (axis == 0 and name not in MOVING):
        return axis
    if name in RESHAPING:
        return _reshaped(x.shape, out.shape, axis)
    if name not in MOVING and out.ndim == x.ndim and out.shape[axis] == x.shape[axis]:
        return axis
    if name == "einsum":
        return _multiplied(*arguments[0], x=x, axis=axis)
    held = {id(tensor) for tensor in tracked}

    def marked(tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        if id(tensor) in held or name == "stack":
            shape[axis] = _MARK
        return torch.empty(shape, dtype=tensor.dtype, device="meta")

    args, kwargs = map_tensors(marked, arguments)
    try:
        shape = next(tensors_in(function(*args, **kwargs))).shape
    except (RuntimeError, IndexError, NotImplementedError):
        return None
    found = [i for i, size in enumerate(shape) if size == _MARK]
    return found[0] if len(found) == 1 else None


def _multiplied(equation: str, *operands: Any, x: Tensor, axis: int) -> int | None:
    """The dimension of the samples in an ``einsum``: that of its letter."""
    given, _, made = equation.partition("->")
    index = next((i for i, operand in enumerate(tensors_in(operands)) if operand is x), None)
    if index is None or not made:
        return None
    letters, into = (re.findall(r"\.\.\.|\w", text) for text in (given.split(",")[index], made))
    if axis >= len(letters) or "..." in letters[:axis] or letters[axis] not in into:
        return None
    found = into.index(letters[axis])
    return None if "..." in into[:found] else found


def _reshaped(old: torch.Size, new: torch.Size, axis: int) -> int | None:
    outer = math.prod(old[:axis])
    found = [i for i in range(len(new)) if math.prod(new[:i]) == outer and new[i] == old[axis]]
    return found[-1] if found else None
