"""Relevance summed over channels and cells: maps of one shape and size, whatever the input's, that conserve ΣR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


@lru_cache(maxsize=64)
def pooling_matrix(size: int, cells: int) -> Float[Tensor, "cells size"]:
    """Share of each of ``size`` pixels that falls into each of ``cells`` equal intervals; columns sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * (size / cells)
    pixels = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0).float()


@dataclass(frozen=True)
class MapLayout:
    """Where the channels of a batch of relevance stand; every other axis after the first is place."""

    channel_axis: int = 1

    def by_place(self, relevance: Float[Tensor, "n ..."], grid: int) -> Float[Tensor, "n ..."]:
        """Relevance summed over channels, then over the cells of a grid of at most ``grid`` a side.

        A vector per sample, which has no place, comes back as it is.
        """
        if relevance.ndim == 2:
            return relevance
        maps = relevance.sum(self.channel_axis)
        for axis in range(1, maps.ndim):
            size = maps.shape[axis]
            if size > grid:
                matrix = pooling_matrix(size, grid).to(maps)
                maps = torch.movedim(torch.movedim(maps, axis, -1) @ matrix.T, -1, axis)
        return maps

    def by_channel(self, relevance: Float[Tensor, "n ..."]) -> Float[Tensor, "n c"]:
        """Relevance summed over place."""
        return (
            torch.movedim(relevance, self.channel_axis, 1).flatten(2).sum(2)
            if relevance.ndim > 2
            else relevance
        )
