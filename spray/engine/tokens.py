"""Tokens of the input on their way to an embedding: which of the input's each is, wherever a model has moved it.

Beside a tensor of tokens goes one of the same shape that holds each token's place in the input, counted in C order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spray.engine.functions import map_tensors, names, tensors_in

MOVED = names(
    "to long int type clone contiguous detach cpu cuda view reshape flatten unflatten permute transpose t T mT "
    "swapaxes swapdims movedim moveaxis squeeze unsqueeze expand chunk split unbind narrow select __getitem__ "
    "index_select gather flip roll repeat repeat_interleave"
)
"""Operations that move, copy or choose tokens."""

CHANGED = names(
    "add __add__ __radd__ sub __sub__ rsub __rsub__ mul __mul__ __rmul__ remainder __mod__ fmod clamp clip clamp_min "
    "clamp_max abs where masked_fill"
)
"""Operations that change each token for itself: an offset, a bound, a replacement."""

Places = Int[Tensor, "..."]


def followed(
    name: str,
    function: Callable[..., Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    out: Any,
    places: Callable[[Tensor], Places | None],
) -> Iterator[tuple[Tensor, Places]]:
    """The tokens that an operation on tokens returned, with their places; none where these cannot be told."""
    known = [place for place in map(places, tensors_in(arguments)) if place is not None]
    integers = [tensor for tensor in tensors_in(out) if not tensor.is_floating_point()]
    if name in MOVED and integers:

        def placed(tensor: Tensor) -> Tensor:
            place = places(tensor)
            return tensor if place is None else place

        args, kwargs = map_tensors(placed, arguments)
        yield from zip(
            integers, (place.long() for place in tensors_in(function(*args, **kwargs))), strict=True
        )
    elif name in CHANGED and all(torch.equal(place, known[0]) for place in known):
        yield from ((tensor, known[0]) for tensor in integers if tensor.shape == known[0].shape)


def total(shape: torch.Size, parts: list[tuple[Places, Float[Tensor, "... d"]]]) -> Float[Tensor, "n ..."]:
    """R of the input's tokens from that of the vectors looked up for them, 0 for tokens that were not looked up."""
    relevance = parts[0][1].new_zeros(shape.numel())
    for places, vectors in parts:
        relevance.index_add_(0, places.flatten(), vectors.sum(-1).flatten())
    return relevance.view(shape)


def samples(places: Places, samples: int, shape: torch.Size) -> int | None:
    """The dimension along which the samples of tokens are, or rows of each together as the first; None without such."""
    sample, every = places // (shape.numel() // samples), torch.arange(samples, device=places.device)
    if len(places) % samples == 0 and bool((sample.reshape(samples, -1) == every[:, None]).all()):
        return 0
    for axis, size in enumerate(places.shape):
        if size == samples and bool((sample.movedim(axis, -1) == every).all()):
            return axis
    return None
