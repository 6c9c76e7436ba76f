"""Approximate neighbours by cells: each sample is compared with those of the nearest cells of a coarse partition.

The inverted file of Sivic and Zisserman (2003) and Jégou et al. (2011), by matrix products alone: nothing
is compiled at run time, and nothing is random but the seeds of the cells.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from spray.analysis.exact import FOLD, factors, smallest

PROBES = 24
"""Cells searched for each sample."""
ROUNDS = 4
"""Lloyd iterations for the cells' centres, on ``PER_CELL`` samples for each."""
PER_CELL = 32
_BLOCK = 1 << 24
"""Distances computed at once."""


def cells(features: Float[np.ndarray, "n d"], k: int, seed: int) -> Int[np.ndarray, "n k"]:
    """k near other rows of each row, in no order, from the ``PROBES`` nearest of about √n cells.

    Rows are searched cell by cell, so that a block of rows shares its candidates and one product serves all.
    """
    n = len(features)
    cell, centres = partition(features, max(1, round(np.sqrt(n))), seed)
    order = np.argsort(cell, kind="stable")
    borders = np.searchsorted(cell[order], np.arange(len(centres) + 1))
    by_distance = np.argsort(_squares(centres, centres), axis=1, kind="stable")
    left, right = factors(features)
    found = np.empty((n, k), dtype=np.int64)
    for at, nearest_cells in enumerate(by_distance):
        # As many cells as usual, and more where they hold too few samples.
        held = np.cumsum(borders[nearest_cells + 1] - borders[nearest_cells])
        probed = nearest_cells[: max(PROBES, int(np.searchsorted(held, k + 1)) + 1)]
        pool = np.concatenate([order[borders[near] : borders[near + 1]] for near in probed])
        # Column n is at infinity: it fills the pool up to a whole number of folds.
        padded = np.append(pool, np.full(-len(pool) % FOLD, n))
        there = right[:, padded]
        own = borders[at + 1] - borders[at]  # the cell's own rows come first in its pool
        step = max(1, _BLOCK // len(padded))
        for start in range(0, own, step):
            block = pool[start : min(start + step, own)]
            near = left[block] @ there
            near[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
            found[block] = padded[smallest(near, k)]
    return found


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
