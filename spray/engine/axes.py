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
PLACING = {
    **dict.fromkeys(("cat", "concat", "concatenate", "unbind", "select", "index_select", "narrow"), 1),
    **dict.fromkeys(("chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split"), 2),
    **dict.fromkeys(("__getitem__", "repeat", "tile", "vstack"), None),
}
"""Operations that put places beside each other or take some of them, by which argument says along which dimension."""
SPLITTING = names("unbind chunk split tensor_split unsafe_chunk unsafe_split")
REDUCING = {
    **dict.fromkeys(names("sum mean amax amin max min cumsum softmax _softmax flip"), 1),
    **dict.fromkeys(("normalize", "roll"), 2),
}
"""Operations in which the values of a dimension meet, or change places, by which argument says along which."""
BROADCASTING = names(
    "__add__ __radd__ add __sub__ __rsub__ sub subtract rsub __mul__ __rmul__ mul multiply __truediv__ __rtruediv__ "
    "__rdiv__ div divide true_divide __pow__ pow where masked_fill maximum minimum expand expand_as broadcast_to"
)
"""Operations that lay tensors of fewer dimensions along the last ones of the larger."""
ASIDE = names("sum mean amax amin max min")
"""Those of them that a model may take of all samples without using it for its output: a regulariser kept aside."""
_MARK = 1_000_003
"""The size by which the samples are known again."""


def common(name: str, axes: list[tuple[int | None, int]]) -> int | None:
    """The dimension of the samples in the largest of tensors, each given by its own and its number of dimensions.

    None where that of one is not known, or the operation does not lay them on each other.
    """
    if all(axis == 0 for axis, _ in axes) and (
        name not in BROADCASTING or len({ndim for _, ndim in axes}) < 2
    ):
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
    if axis is not None and name in BROADCASTING:  # a constant may have had more dimensions
        return axis + out.ndim - max(tensor.ndim for tensor in tracked)
    if axis is None or (axis == 0 and name not in MOVING and not _places(name, *arguments)):
        return axis
    if name in SPLITTING and _along(name, *arguments) == axis:  # into as many pieces as the size below
        return None
    if name in RESHAPING:
        return _reshaped(x.shape, out.shape, axis)
    if name not in MOVING and out.ndim == x.ndim and out.shape[axis] == x.shape[axis]:
        return axis
    if name == "einsum":
        return _multiplied(*arguments[0], x=x, axis=axis)
    held = {id(tensor) for tensor in tracked}

    def marked(tensor: Tensor) -> Tensor:
        return _marked(tensor, axis if id(tensor) in held or name == "stack" else None)

    args, kwargs = map_tensors(marked, arguments)
    return _found(function, *args, **kwargs)


Bilinear = Callable[[Tensor, Tensor], Tensor]
"""f(x, W), linear in both."""


def of_product(function: Bilinear, x: Tensor, axis: int, weight: Tensor) -> tuple[int, int | None] | None:
    """The dimension of the samples in f(x, W), and that in W where W has one; None where samples meet."""
    own = [dim for dim, size in enumerate(weight.shape) if size == x.shape[axis]]
    for dim in (None, *own):
        found = _found(function, _marked(x, axis), _marked(weight, dim))
        if found is not None:
            return found, dim
    return None


def channels(function: Bilinear, x: Tensor, weight: Tensor) -> tuple[int, int | None, int | None]:
    """The dimensions of the channels in f(x, W), in W, and in x; the last two None where there is no one such.

    Channels of the output are its second dimension, as a BatchNorm has it, where a dimension of W makes that one, or
    else the last. Channels of the input are what is summed over with W.
    """
    last = empty(function, x, weight).ndim - 1
    made = {_found(function, _marked(x, None), _marked(weight, dim)): dim for dim in range(weight.ndim)}
    summed = [
        of_x
        for of_x, size in enumerate(x.shape)
        for of_weight in range(weight.ndim)
        if weight.shape[of_weight] == size
        and _marks(function, _marked(x, of_x), _marked(weight, of_weight)) == []
    ]
    entering = summed[0] if len(summed) == 1 else None
    return (1, made[1], entering) if 1 in made and last > 1 else (-1, made.get(last), entering)


def empty(function: Bilinear, x: Tensor, weight: Tensor) -> Tensor:
    """f(x, W) without values."""
    return function(_marked(x, None), _marked(weight, None))


def _marked(tensor: Tensor, dim: int | None) -> Tensor:
    """A tensor without values, one of whose dimensions has a size of its own."""
    shape = list(tensor.shape)
    if dim is not None:
        shape[dim] = _MARK
    return torch.empty(shape, dtype=tensor.dtype, device="meta")


def _found(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int | None:
    """Where the size is in what comes out, None where nothing or more than one is of it."""
    found = _marks(function, *args, **kwargs)
    return found[0] if found is not None and len(found) == 1 else None


def _marks(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[int] | None:
    """Every dimension of that size in what comes out, None where the sizes given do not fit each other."""
    try:
        shape = next(tensors_in(function(*args, **kwargs))).shape
    except (RuntimeError, IndexError, NotImplementedError):
        return None
    return [dim for dim, size in enumerate(shape) if size == _MARK]


def _places(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation of ``PLACING`` may work along the first dimension."""
    if name not in PLACING:
        return False
    if name == "__getitem__":
        first = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
        return not (first is Ellipsis or (isinstance(first, slice) and first == slice(None)))
    return PLACING[name] is None or _along(name, args, kwargs) == 0


def _along(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The dimension that an operation of ``PLACING`` was given."""
    place = PLACING[name]
    given = args[place] if place is not None and len(args) > place else 0
    dim: int = kwargs.get("dim", kwargs.get("axis", given))
    return dim % next(tensors_in(args)).ndim


def meet(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int | None) -> bool:
    """Whether an operation takes values of several samples together."""
    if name in ("layer_norm", "rms_norm"):
        shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        return axis is not None and axis >= len(args[0].shape) - len(shape)
    if name == "linear":
        return axis is not None and axis == len(args[0].shape) - 1
    if axis is None:
        return False
    places = re.search(r"pool(\d)d", name)
    if places is not None and axis >= args[0].ndim - int(places[1]):
        return True
    if name == "scaled_dot_product_attention" and any(axis >= x.ndim - 2 for x in args[:3]):
        return True
    if name == "multi_head_attention_forward" and axis != 1:
        return True
    if name not in REDUCING:
        return False
    x, place = args[0], REDUCING[name]
    default = 1 if name == "normalize" else None
    dims = kwargs.get(
        "dim", kwargs.get("axis", kwargs.get("dims", args[place] if len(args) > place else default))
    )
    if isinstance(dims, Tensor) or "other" in kwargs:  # the larger of two
        return False
    if name == "flip" and isinstance(dims, int):
        dims = args[place:]
    if dims is None or dims == ():
        return "softmax" not in name
    return axis in [dim % x.ndim for dim in (dims if isinstance(dims, tuple | list) else (dims,))]


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
