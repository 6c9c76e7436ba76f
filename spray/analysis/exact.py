"""Exact neighbours in blocks of bounded memory: a float32 product proposes, differences in float64 decide."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

FOLD = 16
"""Columns that are compared as one before they are looked at one by one."""
_SPARE = 6
"""Candidates beyond k that the float32 product proposes, against rounding among near-duplicates."""
Own = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where rows meet themselves in a block, by row and column."""
Ask = Callable[[NDArray[np.float32], Own, int], NDArray[np.int64]]
"""The columns of the smallest products of some rows, ascending, but for their own."""
_SHORT, _MANY = 8192, 4
"""Columns up to which the smallest are found by a bar, and how many times as many as are asked for may be below it."""
_FEW = 1 << 13
"""Pairs of rows up to which all are compared by their differences."""
_PIECE = 1 << 17
"""Rows that are asked at once."""
_BLOCK = 64 << 20
"""Bytes of a block of products."""
_CACHED = 256 << 10
"""Bytes of differences that are taken at once."""


def exact_neighbours(
    features: Float[np.ndarray, "n d"],
    k: int,
    *,
    queries: Int[np.ndarray, " q"] | None = None,
    block_bytes: int = _BLOCK,
    device: str = "cpu",
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Exact neighbours of all rows, or of those numbered in ``queries``, in blocks of bounded memory.

    Equal inputs give equal neighbours, also among equal distances. On another ``device`` than the CPU torch multiplies;
    the differences that decide are taken here.
    """
    rows = np.arange(len(features)) if queries is None else np.asarray(queries)
    if len(rows) * len(features) <= _FEW:
        # All others, without the product and what it takes to prepare it.
        others = np.arange(len(features) - 1)
        return nearest(features, rows, others + (others >= rows[:, None]), k)
    candidates = min(k + _SPARE, len(features) - 1)
    return nearest(features, rows, _proposed(features, rows, candidates, block_bytes, device), k)


def likely_neighbours(features: Float[np.ndarray, "n d"], k: int) -> Int[np.ndarray, "n k"]:
    """Neighbours by the float32 product alone, in no order: exact but for those at equal distance within rounding."""
    if len(features) > _PIECE:
        return exact_neighbours(features, k)[0]
    return _proposed(features, np.arange(len(features)), k, _BLOCK, "cpu")


def _proposed(
    features: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " q"],
    candidates: int,
    block_bytes: int,
    device: str,
) -> Int[np.ndarray, "q c"]:
    """So many near rows for each of the rows asked, from every piece of the features."""
    scale = Scale.of(features)
    borders = np.linspace(0, len(features), -(-len(features) // _PIECE) + 1).astype(int)
    proposed = np.empty((len(rows), candidates * (len(borders) - 1)), dtype=np.int64)
    for piece, (start, end) in enumerate(itertools.pairwise(borders)):
        right = scale.right(features[start:end])
        ask = asked_here(right) if device == "cpu" else asked_there(right, device)
        into = slice(piece * candidates, (piece + 1) * candidates)
        for block in _blocks(len(rows), right.shape[1], block_bytes):
            own = np.flatnonzero((rows[block] >= start) & (rows[block] < end))
            left = scale.left(features[rows[block]])
            proposed[block, into] = start + ask(left, (own, rows[block][own] - start), candidates)
    return proposed


@dataclass(frozen=True)
class Scale:
    """Centre and scale of feature vectors, so that float32 products of them lose little.

    ``left(x) @ right(y)`` is |y|² − 2 x·y, the squared distance but for a number of x's own.
    """

    mean: Float[np.ndarray, " d"]
    size: float

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Scale:
        """One centre and one scale for all, far from under- and overflow."""
        mean = features.mean(axis=0, dtype=np.float64).astype(features.dtype)
        sizes = [
            np.abs(block - mean).max(initial=0.0)
            for block in np.array_split(features, -(-len(features) // _PIECE))
        ]
        return cls(mean, float(positive(float(max(sizes)))))

    def points(self, features: Float[np.ndarray, "n d"]) -> NDArray[np.float32]:
        """Centred and scaled."""
        points: NDArray[np.float32] = ((features - self.mean) / self.size).astype(np.float32)
        return points

    def left(self, features: Float[np.ndarray, "n d"]) -> NDArray[np.float32]:
        """Rows that ask."""
        points = self.points(features)
        return np.concatenate([-2 * points, np.ones((len(points), 1), dtype=np.float32)], axis=1)

    def right(self, features: Float[np.ndarray, "n d"]) -> NDArray[np.float32]:
        """Columns that are asked, with one or more at infinity behind the n, to a multiple of ``FOLD``."""
        points = self.points(features)
        columns = np.zeros((points.shape[1] + 1, (len(points) // FOLD + 1) * FOLD), dtype=np.float32)
        columns[:-1, : len(points)] = points.T
        columns[-1] = np.inf
        columns[-1, : len(points)] = np.einsum("nd,nd->n", points, points)
        return columns


def asked_here(right: NDArray[np.float32]) -> Ask:
    """By NumPy."""

    def ask(left: NDArray[np.float32], own: Own, count: int) -> NDArray[np.int64]:
        near = left @ right
        near[own] = np.inf
        return smallest(near, count)

    return ask


def asked_there(right: NDArray[np.float32], device: str) -> Ask:
    """By torch, on a device, where the columns stay."""
    import torch

    columns = torch.from_numpy(right).to(device)

    def ask(left: NDArray[np.float32], own: Own, count: int) -> NDArray[np.int64]:
        near = torch.from_numpy(left).to(device) @ columns
        near[tuple(torch.from_numpy(each).to(device) for each in own)] = torch.inf
        chosen: NDArray[np.int64] = (
            near.topk(count, largest=False, sorted=False).indices.sort().values.cpu().numpy()
        )
        return chosen

    return ask


def smallest(values: Float[np.ndarray, "b n"], count: int) -> Int[np.ndarray, "b c"]:
    """Columns of each row's ``count`` smallest values, ascending.

    Columns are folded into groups by their number modulo n / ``FOLD``. The smallest values lie in the
    groups with the smallest minima, and are no larger than the largest of these minima. In short rows those that
    are not are few and soon found; in long ones only those groups are looked at: one pass over the block in
    place of a partition.
    """
    rows, width = values.shape
    groups = width // FOLD
    columns: NDArray[np.int64] | None = None
    if groups > count:
        least = values.reshape(rows, FOLD, groups).min(axis=1)
        if width <= _SHORT:
            columns = _no_larger(values, np.partition(least, count - 1, axis=1)[:, count - 1], count)
        elif groups > 4 * count:
            best = np.argpartition(least, count - 1, axis=1)[:, :count]
            within = (best[:, None] + groups * np.arange(FOLD)[:, None]).reshape(rows, count * FOLD)
            chosen = np.argpartition(np.take_along_axis(values, within, axis=1), count - 1, axis=1)
            columns = np.take_along_axis(within, chosen[:, :count], axis=1)
    if columns is None:
        columns = np.argpartition(values, count - 1, axis=1)[:, :count]
    columns.sort(axis=1)
    return columns


def _no_larger(
    values: Float[np.ndarray, "b n"], bar: Float[np.ndarray, " b"], count: int
) -> Int[np.ndarray, "b c"] | None:
    """Columns of each row's ``count`` smallest of the values up to its bar; None where equal ones make them many."""
    flat = np.flatnonzero(values <= bar[:, None])
    if len(flat) > _MANY * count * len(values):
        return None
    row, column = np.divmod(flat, values.shape[1])
    start = np.searchsorted(row, np.arange(len(values)))
    place = np.arange(len(flat)) - start[row]
    found = np.full((len(values), int(place.max(initial=0)) + 1), np.inf, dtype=values.dtype)
    found[row, place] = values.ravel()[flat]
    order = np.argsort(found, axis=1, kind="stable")[:, :count]
    chosen: NDArray[np.int64] = column[start[:, None] + order]
    return chosen


def nearest(
    features: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " b"], proposed: Int[np.ndarray, "b c"], k: int
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    """The k nearest of the proposed rows by their differences; of equals, the one proposed first."""
    # Differences of few rows at a time, which stay in the cache between the three passes over them.
    step = max(1, _CACHED // (4 * proposed.shape[1] * max(features.shape[1], 1)))
    exact = np.empty(proposed.shape)
    for at in range(0, len(rows), step):
        here = slice(at, at + step)
        apart = features.take(proposed[here], axis=0)
        apart -= features[rows[here], None]
        exact[here] = np.sqrt(np.einsum("bcd,bcd->bc", apart, apart))
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(proposed, order, axis=1), np.take_along_axis(exact, order, axis=1)


def _blocks(rows: int, columns: int, block_bytes: int) -> Iterator[slice]:
    """Slices over the rows whose products fit ``block_bytes``."""
    step = max(16, block_bytes // (4 * columns))
    return (slice(at, min(at + step, rows)) for at in range(0, rows, step))


def positive(scale: NDArray[np.float64] | np.float64 | float) -> NDArray[np.float64]:
    """The scale, with 1 in place of 0: among exact duplicates every distance is 0, at any scale."""
    return np.where(scale > 0, scale, 1.0)
