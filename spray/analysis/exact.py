"""Exact neighbours in blocks of bounded memory: a float32 product proposes, differences decide.

A product loses what is small beside the vectors themselves, so that it may miss neighbours within tight groups. The
differences tell where it may have: those rows are asked again in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

FOLD = 16
"""Columns that are compared as one before they are looked at one by one."""
_SPARE = 6
"""Candidates beyond k that a product proposes: how much farther they are tells whether any can have been missed."""
Own = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where rows meet themselves in a block, by row and column."""
Number = np.float32 | np.float64
Ask = Callable[[NDArray[Number], Own, int], NDArray[np.int64]]
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
_USUAL, _LARGEST = 40, 126
"""Powers of two, up and down, whose squares are far from the ends of float32; and its ends."""


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
    scale = Scale.of(features)
    proposed = _proposed(features, rows, candidates, scale, block_bytes, device)
    apart = distances(features, rows, proposed)
    if candidates < len(features) - 1:
        missed = np.flatnonzero(~_certain(features, rows, apart, scale, k, candidates))
        if len(missed):
            finer = replace(scale, dtype=np.float64)
            again = _proposed(features, rows[missed], candidates, finer, block_bytes, "cpu")
            proposed[missed], apart[missed] = again, distances(features, rows[missed], again)
    return _smallest_first(proposed, apart, k)


def likely_neighbours(features: Float[np.ndarray, "n d"], k: int) -> Int[np.ndarray, "n k"]:
    """Neighbours by the float32 product alone, in no order: exact but for those at equal distance within rounding."""
    if len(features) > _PIECE:
        return exact_neighbours(features, k)[0]
    return _proposed(features, np.arange(len(features)), k, Scale.of(features), _BLOCK, "cpu")


def _proposed(
    features: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " q"],
    candidates: int,
    scale: Scale,
    block_bytes: int,
    device: str,
) -> Int[np.ndarray, "q c"]:
    """So many near rows for each of the rows asked, from every piece of the features."""
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
    """Centre and scale of feature vectors, so that products of them lose little.

    ``left(x) @ right(y)`` is |y|² − 2 x·y, the squared distance but for a number of x's own.
    """

    mean: Float[np.ndarray, " d"]
    size: float
    dtype: type[Number] = np.float32

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Scale:
        """One centre and one scale for all, far from under- and overflow."""
        mean = features.mean(axis=0, dtype=np.float64).astype(features.dtype)
        sizes = [
            np.abs(block - mean).max(initial=0.0)
            for block in np.array_split(features, -(-len(features) // _PIECE))
        ]
        return cls(mean, float(positive(float(max(sizes)))))

    def points(self, features: Float[np.ndarray, "n d"]) -> NDArray[Number]:
        """Centred and scaled."""
        points: NDArray[Number] = (features.astype(self.dtype, copy=False) - self.mean) / self.size
        return points.astype(self.dtype, copy=False)

    def left(self, features: Float[np.ndarray, "n d"]) -> NDArray[Number]:
        """Rows that ask."""
        points = self.points(features)
        return np.concatenate([-2 * points, np.ones((len(points), 1), dtype=self.dtype)], axis=1)

    def right(self, features: Float[np.ndarray, "n d"]) -> NDArray[Number]:
        """Columns that are asked, with one or more at infinity behind the n, to a multiple of ``FOLD``."""
        points = self.points(features)
        columns = np.zeros((points.shape[1] + 1, (len(points) // FOLD + 1) * FOLD), dtype=self.dtype)
        columns[:-1, : len(points)] = points.T
        columns[-1] = np.inf
        columns[-1, : len(points)] = np.einsum("nd,nd->n", points, points)
        return columns


def asked_here(right: NDArray[Number]) -> Ask:
    """By NumPy."""

    def ask(left: NDArray[Number], own: Own, count: int) -> NDArray[np.int64]:
        near = left @ right
        near[own] = np.inf
        return smallest(near, count)

    return ask


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Products of float32 in float32, whatever a program chose for its training: their error is counted on."""
    import torch

    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)


def asked_there(right: NDArray[Number], device: str) -> Ask:
    """By torch, on a device, where the columns stay."""
    import torch

    columns = torch.from_numpy(right).to(device)

    def ask(left: NDArray[Number], own: Own, count: int) -> NDArray[np.int64]:
        with in_full_precision():
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
    return _smallest_first(proposed, distances(features, rows, proposed), k)


def distances(
    features: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " b"], proposed: Int[np.ndarray, "b c"]
) -> Float[np.ndarray, "b c"]:
    """Of rows from those proposed to them, by their differences: right to rounding however small they are."""
    # Differences of few rows at a time, which stay in the cache between the passes over them.
    step = max(1, _CACHED // (4 * proposed.shape[1] * max(features.shape[1], 1)))
    factor = _within_range(features)
    found = np.empty(proposed.shape)
    for at in range(0, len(rows), step):
        here = slice(at, at + step)
        apart = features.take(proposed[here], axis=0)
        apart -= features[rows[here], None]
        if factor != 1:
            apart *= factor
        found[here] = np.sqrt(np.einsum("bcd,bcd->bc", apart, apart))
    return found / float(factor)


def _within_range(features: Float[np.ndarray, "n d"]) -> np.float32:
    """A power of two, so that nothing is rounded, by which squares of differences are neither lost nor infinite."""
    largest = max(float(features.max(initial=0)), -float(features.min(initial=0)))
    exponent = min(max(int(np.frexp(largest)[1]), -_LARGEST), _LARGEST)
    return np.float32(1) if abs(exponent) <= _USUAL else np.float32(2.0**-exponent)


def _smallest_first(
    proposed: Int[np.ndarray, "b c"], apart: Float[np.ndarray, "b c"], k: int
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(proposed, order, axis=1), np.take_along_axis(apart, order, axis=1)


def _certain(
    features: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " q"],
    apart: Float[np.ndarray, "q c"],
    scale: Scale,
    k: int,
    candidates: int,
) -> NDArray[np.bool_]:
    """Rows whose k nearest of the proposed are so of all.

    What was not proposed had a product no smaller than the largest of the proposed of its piece. A product of d + 1
    terms is wrong by at most γ = (d + 4) 2⁻²⁴ of what is added up (Higham 2002, section 3.1): for |y| ≤ 3 |x| that
    is 15 γ |x|², and 4 γ of the squared distance for longer ones. Two products are compared.
    """
    lost = (features.shape[1] + 4) * 2.0**-24
    own = np.empty(len(rows))
    for block in _blocks(len(rows), features.shape[1], _CACHED):
        points = scale.points(features[rows[block]])
        own[block] = np.einsum("nd,nd->n", points, points)
    squares = (apart / scale.size) ** 2
    bar = squares.reshape(len(rows), -1, candidates).max(axis=2).min(axis=1)
    kth = np.partition(squares, k - 1, axis=1)[:, k - 1]
    certain: NDArray[np.bool_] = (kth == 0) | (kth <= (1 - 8 * lost) * bar - 30 * lost * own)
    return certain


def _blocks(rows: int, columns: int, block_bytes: int) -> Iterator[slice]:
    """Slices over the rows whose products fit ``block_bytes``."""
    step = max(16, block_bytes // (4 * columns))
    return (slice(at, min(at + step, rows)) for at in range(0, rows, step))


def positive(scale: NDArray[np.float64] | np.float64 | float) -> NDArray[np.float64]:
    """The scale, with 1 in place of 0: among exact duplicates every distance is 0, at any scale."""
    return np.where(scale > 0, scale, 1.0)
