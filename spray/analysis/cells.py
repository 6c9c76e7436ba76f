"""Approximate neighbours by cells: each sample is compared with those of the nearest cells of a coarse partition.

The inverted file of Sivic and Zisserman (2003) and Jégou et al. (2011), by matrix products alone: nothing
is compiled at run time, and nothing is random but the seeds of the cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from spray.analysis.exact import FOLD, Scale, smallest

CELLS = 4
"""Cells for each of √n: fewer are larger, and cost more to search than they save to choose from."""
HELD = 64
"""Rows of a cell, on average, at least."""
PROBES = 48
"""Cells searched for each sample."""
ROUNDS = 4
"""Lloyd iterations for the cells' centres, on ``PER_CELL`` samples for each."""
PER_CELL = 32
_BLOCK = 1 << 24
"""Distances computed at once."""


def cells(features: Float[np.ndarray, "n d"], k: int, seed: int) -> Int[np.ndarray, "n k"]:
    """k near other rows of each row, in no order, from the ``PROBES`` nearest of about ``CELLS``·√n cells.

    Rows are searched cell by cell, so that a block of rows shares its candidates and one product serves all.
    """
    n = len(features)
    cell, centres = partition(features, _number(n), seed)
    scale = Scale.of(features)
    left, right = scale.left(features), scale.right(features)
    found = np.empty((n, k), dtype=np.int64)
    for own, pool in _pools(cell, centres, k + 1):
        # Column n is at infinity: it fills the pool up to a whole number of folds.
        padded = np.append(pool, np.full(-len(pool) % FOLD, n))
        there = right[:, padded]
        step = max(1, _BLOCK // len(padded))
        for start in range(0, own, step):  # the cell's own rows come first in its pool
            block = pool[start : min(start + step, own)]
            near = left[block] @ there
            near[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
            found[block] = padded[smallest(near, k)]
    return found


def nearest_of(
    points: Float[np.ndarray, "n d"], known: Float[np.ndarray, "m d"], seed: int
) -> Int[np.ndarray, " n"]:
    """For each point the nearest known one, or one hardly farther: that of the nearest cells."""
    cell, centres = partition(known, _number(len(known)), seed)
    scale = Scale.of(known)
    left, right = scale.left(points), scale.right(known)
    asking = _assign(points, centres)
    order = np.argsort(asking, kind="stable")
    borders = np.searchsorted(asking[order], np.arange(len(centres) + 1))
    found = np.empty(len(points), dtype=np.int64)
    for at, (_, pool) in enumerate(_pools(cell, centres, 1)):
        there = right[:, pool]
        step = max(1, _BLOCK // len(pool))
        for start in range(borders[at], borders[at + 1], step):
            block = order[start : min(start + step, borders[at + 1])]
            found[block] = pool[(left[block] @ there).argmin(axis=1)]
    return found


def _number(n: int) -> int:
    """Of cells: as many as pay, each of ``HELD`` rows or more on average."""
    return max(1, min(round(CELLS * float(np.sqrt(n))), n // HELD))


def _pools(
    cell: Int[np.ndarray, " n"], centres: Float[np.ndarray, "c d"], least: int
) -> Iterator[tuple[int, Int[np.ndarray, " p"]]]:
    """For each cell how many rows it has, and the rows of its nearest cells, its own first.

    As many cells as usual, and more where they hold fewer than ``least`` rows.
    """
    order = np.argsort(cell, kind="stable")
    borders = np.searchsorted(cell[order], np.arange(len(centres) + 1))
    sizes = np.diff(borders)
    apart = _squares(centres, centres)
    for at, distances in enumerate(apart):
        distances[at] = -np.inf  # its own first, also among equal centres
        nearby = np.argsort(distances, kind="stable")
        held = np.cumsum(sizes[nearby])
        probed = nearby[: max(PROBES, int(np.searchsorted(held, least)) + 1)]
        yield int(sizes[at]), np.concatenate([order[borders[near] : borders[near + 1]] for near in probed])


def partition(
    features: Float[np.ndarray, "n d"], cells: int, seed: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "c d"]]:
    """The cell of each row and the cells' centres: k-means on a sample, then each row to its nearest centre."""
    rng = np.random.default_rng(seed)
    some = features[np.sort(rng.choice(len(features), min(len(features), cells * PER_CELL), replace=False))]
    centres = some[np.sort(rng.choice(len(some), min(cells, len(some)), replace=False))].copy()
    for _ in range(ROUNDS):
        label = _assign(some, centres)
        count = np.bincount(label, minlength=len(centres))
        total = np.zeros_like(centres, dtype=np.float64)
        np.add.at(total, label, some)
        filled = count > 0
        centres[filled] = (total[filled] / count[filled, None]).astype(centres.dtype)
    return _assign(features, centres), centres


def _assign(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    step = max(1, _BLOCK // len(centres))
    blocks = [_squares(points[at : at + step], centres).argmin(axis=1) for at in range(0, len(points), step)]
    return np.concatenate(blocks)


def _squares(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances but for a number of each point's own."""
    apart: NDArray[np.float32] = points @ (-2 * centres.T)
    apart += np.einsum("cd,cd->c", centres, centres)
    return apart
