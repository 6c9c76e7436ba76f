"""The neighbourhood graph of SpRAy: who is near whom among the feature vectors.

k-nearest-neighbour connectivity C (Euclidean), affinity A = (C + Cᵀ) / 2 (von Luxburg 2007, section 2.2;
Lapuschkin et al. 2019). No vertex is its own neighbour, even among duplicates. Distances are exact: a float32
matrix product proposes candidates, and their differences in float64 decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stores.provenance import TUNING

Graph: TypeAlias = "scipy.sparse.csr_array[np.float64, tuple[int, int]]"
"""A sparse symmetric affinity matrix."""
Weights = Literal["binary", "gaussian", "self_tuning"]
Method = Literal["auto", "exact", "cells", "nn_descent"]

EXACT_LIMIT = 30_000
"""Rows up to which exact neighbours are cheap enough."""
FOLD = 16
"""Columns that are compared as one before they are looked at one by one."""
PROPOSED = 2
"""Approximate neighbours proposed for each that is kept."""
_SPARE = 6
"""Candidates beyond k that the float32 product proposes, against rounding among near-duplicates."""
Reduce = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Makes feature vectors shorter."""


@dataclass(frozen=True)
class NearestNeighbours:
    """The k-nearest-neighbour graph.

    ``k``: neighbours per sample, or "log" for ⌈log n⌉; fewer where there are fewer samples. ``weights``:
    "binary" (½ for one-sided and 1 for mutual neighbours), "gaussian" exp(−d²/2σ²) with σ the median
    distance to the k-th neighbour, or "self_tuning" exp(−d²/σᵢσⱼ) with each sample's own (Zelnik-Manor and
    Perona 2004). ``method``: "exact" in blocks; "cells" (`spray.analysis.cells`) or "nn_descent" (pynndescent) for
    very large groups; "auto": exact up to ``EXACT_LIMIT`` samples, then cells, which compile nothing at run
    time.
    """

    k: int | Literal["log"] = 10
    weights: Weights = "binary"
    method: Method = "auto"
    block_bytes: int = field(default=64 << 20, metadata=TUNING)
    name: ClassVar[str] = "nearest_neighbours"

    def __post_init__(self) -> None:
        if self.k != "log" and self.k < 1:
            raise ValueError(
                f"a neighbourhood graph needs at least one neighbour per sample; got k={self.k}."
            )

    def count(self, n: int) -> int:
        """The number of neighbours among ``n`` samples: k, at most n − 1."""
        k = math.ceil(math.log(max(n, 2))) if self.k == "log" else self.k
        return min(k, n - 1)

    def is_exact(self, n: int) -> bool:
        """Whether the neighbours among ``n`` samples are found exactly."""
        if self.method not in ("auto", "exact", "cells", "nn_descent"):
            raise ValueError(
                f"unknown method {self.method!r}: choose 'auto', 'exact', 'cells' or 'nn_descent'."
            )
        return self.method == "exact" or (self.method == "auto" and n <= EXACT_LIMIT)

    def neighbours(
        self, features: Float[np.ndarray, "n d"], seed: int = 0, reduce: Reduce | None = None
    ) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """Indices of each row's nearest other rows, nearest first, and their distances.

        Approximate neighbours are proposed among the reduced features, where ``reduce`` is given, and chosen
        from twice as many proposals by their distances in full.

        Raises:
            ValueError: fewer than two rows, or a row that is not finite.
        """
        _require_usable(features)
        n, k = len(features), self.count(len(features))
        if self.is_exact(n):
            return exact_neighbours(features, k, block_bytes=self.block_bytes)
        from spray.analysis.approximate import cells, nn_descent

        propose = nn_descent if self.method == "nn_descent" else cells
        proposed = propose(reduce(features) if reduce else features, min(PROPOSED * k, n - 1), seed)
        return nearest(features, np.arange(n), proposed, k)

    def affinity(self, features: Float[np.ndarray, "n d"], seed: int = 0) -> Graph:
        """The symmetric affinity matrix A [n, n], without self-loops."""
        return affinity(*self.neighbours(features, seed), self.weights)


def affinity(
    indices: Int[np.ndarray, "n k"], distances: Float[np.ndarray, "n k"], weights: Weights = "binary"
) -> Graph:
    """A = (C + Cᵀ) / 2 of weighted connectivity C."""
    n, k = indices.shape
    if weights == "binary":
        values = np.ones(n * k)
    elif weights == "gaussian":
        values = np.exp(-(distances**2) / (2 * _positive(np.median(distances[:, -1])) ** 2)).ravel()
    elif weights == "self_tuning":
        scale = _positive(distances[:, -1])
        values = np.exp(-(distances**2) / (scale[:, None] * scale[indices])).ravel()
    else:
        raise ValueError(f"unknown weights {weights!r}: choose 'binary', 'gaussian' or 'self_tuning'.")
    starts = np.arange(0, n * k + 1, k)
    one_way = scipy.sparse.csr_array((values, indices.ravel(), starts), shape=(n, n))
    both: Graph = ((one_way + one_way.T) / 2).tocsr()
    return both


def exact_neighbours(
    features: Float[np.ndarray, "n d"],
    k: int,
    *,
    queries: Int[np.ndarray, " q"] | None = None,
    block_bytes: int = 64 << 20,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Exact neighbours of all rows, or of those numbered in ``queries``, in blocks of bounded memory.

    Ties are broken by row number, so equal inputs give equal graphs.
    """
    rows = np.arange(len(features)) if queries is None else np.asarray(queries)
    indices = np.empty((len(rows), k), dtype=np.int64)
    distances = np.empty((len(rows), k))
    candidates = min(k + _SPARE, len(features) - 1)
    left, right = factors(features)
    for block in _blocks(len(rows), right.shape[1], block_bytes):
        chosen = rows[block]
        near = left[chosen] @ right
        near[np.arange(len(chosen)), chosen] = np.inf
        indices[block], distances[block] = nearest(features, chosen, smallest(near, candidates), k)
    return indices, distances


def factors(features: Float[np.ndarray, "n d"]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """L and R with (L R)ᵢⱼ = |xⱼ|² − 2 xᵢ·xⱼ, the squared distance but for a number of row i's own.

    Centred, the float32 product loses less, and one scale for all keeps it far from under- and overflow. R
    has one or more columns at infinity behind the n, to a multiple of ``FOLD``.
    """
    centred = features - features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    points = (centred / _positive(float(np.abs(centred).max(initial=0.0)))).astype(np.float32)
    ones = np.ones((len(points), 1), dtype=np.float32)
    right = np.zeros((points.shape[1] + 1, (len(points) // FOLD + 1) * FOLD), dtype=np.float32)
    right[:-1, : len(points)] = points.T
    right[-1] = np.inf
    right[-1, : len(points)] = np.einsum("nd,nd->n", points, points)
    return np.concatenate([-2 * points, ones], axis=1), right


def smallest(values: Float[np.ndarray, "b n"], count: int) -> Int[np.ndarray, "b c"]:
    """Columns of each row's ``count`` smallest values, ascending.

    Columns are folded into groups by their number modulo n / ``FOLD``. The smallest values lie in the
    groups with the smallest minima, so only those are looked at one by one: one pass over the block in
    place of a partition.
    """
    rows, width = values.shape
    groups = width // FOLD
    if groups <= 4 * count:
        columns = np.argpartition(values, count - 1, axis=1)[:, :count]
    else:
        least = values.reshape(rows, FOLD, groups).min(axis=1)
        best = np.argpartition(least, count - 1, axis=1)[:, :count]
        within = (best[:, None] + groups * np.arange(FOLD)[:, None]).reshape(rows, count * FOLD)
        chosen = np.argpartition(np.take_along_axis(values, within, axis=1), count - 1, axis=1)[:, :count]
        columns = np.take_along_axis(within, chosen, axis=1)
    columns.sort(axis=1)
    return columns


def nearest(
    features: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " b"], proposed: Int[np.ndarray, "b c"], k: int
) -> tuple[Int[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    """The k nearest of the proposed rows by their differences; of equals, the one proposed first."""
    step = max(1, (4 << 20) // (8 * proposed.shape[1] * max(features.shape[1], 1)))
    exact = np.empty(proposed.shape)
    for at in range(0, len(rows), step):
        here = slice(at, at + step)
        apart = features[proposed[here]] - features[rows[here], None]
        exact[here] = np.sqrt(np.einsum("bcd,bcd->bc", apart, apart))
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(proposed, order, axis=1), np.take_along_axis(exact, order, axis=1)


def _blocks(rows: int, columns: int, block_bytes: int) -> Iterator[slice]:
    """Slices over the rows whose products fit ``block_bytes``."""
    step = max(16, block_bytes // (4 * columns))
    return (slice(at, min(at + step, rows)) for at in range(0, rows, step))


def _positive(scale: NDArray[np.float64] | np.float64 | float) -> NDArray[np.float64]:
    """The scale, with 1 in place of 0: among exact duplicates every distance is 0, at any scale."""
    return np.where(scale > 0, scale, 1.0)


def _require_usable(features: Float[np.ndarray, "n d"]) -> None:
    if features.ndim != 2:
        raise ValueError(
            f"neighbours are found among feature vectors [n, d]; got shape {list(features.shape)}. "
            "A representation, such as spray.analysis.features.Pooled(), makes them of maps."
        )
    if len(features) < 2:
        raise ValueError(f"neighbours need at least two samples; got {len(features)}.")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(features)} feature vectors are not finite (the first is row {bad[0]}). "
            "Set them aside first: spray.analysis.features.usable(features) says which."
        )
