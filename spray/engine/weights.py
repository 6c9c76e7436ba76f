"""Derived weights (W⁺, |W|, weights with a folded normalisation), computed once and kept outside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class _Entry:
    sources: tuple[Tensor, ...]  # held, so that no other tensor can take over their ids
    state: tuple[tuple[int, int], ...]
    value: Tensor


class DerivedWeights:
    """A cache of tensors derived from a model's parameters and buffers, emptied where these change.

    A change is seen by torch's version counter and by the address of the data: optimiser steps,
    ``load_state_dict``, ``.to`` and assignment to ``.data`` count; writing through ``.data`` in place goes
    around torch's own book-keeping and does not. Tensors that are no parameters or buffers of the model are
    never kept.
    """

    def __init__(self) -> None:
        self._known: dict[int, Tensor] = {}
        self._entries: dict[tuple[str, tuple[int, ...]], _Entry] = {}

    def know(self, tensors: Iterable[Tensor]) -> None:
        """The parameters and buffers the model has now; what was derived from others is dropped."""
        self._known = {id(tensor): tensor for tensor in tensors}
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if all(id(t) in self._known for t in entry.sources)
        }

    def get(self, kind: str, sources: tuple[Tensor, ...], build: Callable[[], Tensor]) -> Tensor:
        """The tensor ``build`` makes from the sources, taken from the cache if none of them has changed."""
        if any(id(source) not in self._known for source in sources):
            return build()
        key = (kind, tuple(id(source) for source in sources))
        state = tuple((source._version, source.data_ptr()) for source in sources)
        entry = self._entries.get(key)
        if entry is None or entry.state != state:
            entry = self._entries[key] = _Entry(sources, state, build())
        return entry.value
