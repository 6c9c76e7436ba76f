"""The neighbourhood graph of SpRAy: who is near whom among the feature vectors.

k-nearest-neighbour connectivity C (Euclidean), affinity A = (C + Cᵀ) / 2 (von Luxburg 2007, section 2.2;
Lapuschkin et al. 2019). No vertex is its own neighbour, even among duplicates. Distances are exact: a matrix
product proposes candidates, and their differences decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from spray.analysis.approximate import nn_descent, probed_recall
from spray.analysis.cells import cells
from spray.analysis.exact import exact_neighbours, likely_neighbours, nearest, positive
from spray.analysis.features import alike
from stores.provenance import TUNING, Json

Graph: TypeAlias = "scipy.sparse.csr_array[np.float64, tuple[int, int]]"
"""A sparse symmetric affinity matrix."""
Weights = Literal["binary", "gaussian", "self_tuning"]
Method = Literal["auto", "exact", "cells", "nn_descent"]

EXACT_LIMIT = 30_000
"""Rows up to which exact neighbours are cheap enough."""
PROPOSED = 2
"""Approximate neighbours proposed for each that is kept."""
SPARE = 2
"""Neighbours kept for each of the graph's, in groups of up to ``SPARE_UP_TO`` samples: parts of those share them."""
SPARE_UP_TO = 8192
SAME = 1e-6
"""Samples no farther apart than this part of their length differ by rounding only."""
_MARGIN = 2
"""Neighbours that a list has to hold on average beyond k within a part, to be worth looking at."""
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
    time. ``device``: where exact ones are looked for.
    """

    k: int | Literal["log"] = 10
    weights: Weights = "binary"
    method: Method = "auto"
    block_bytes: int = field(default=64 << 20, metadata=TUNING)
    device: str = field(default="cpu", metadata=TUNING)
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
            return exact_neighbours(features, k, block_bytes=self.block_bytes, device=self.device)
        propose = nn_descent if self.method == "nn_descent" else cells
        proposed = propose(reduce(features) if reduce else features, min(PROPOSED * k, n - 1), seed)
        return nearest(features, np.arange(n), proposed, k)

    def affinity(self, features: Float[np.ndarray, "n d"], seed: int = 0) -> Graph:
        """The symmetric affinity matrix A [n, n], without self-loops."""
        return affinity(*self.neighbours(features, seed), self.weights)

    def draft(self, features: Float[np.ndarray, "n d"], seed: int = 0) -> Graph:
        """`affinity` of rows that are told apart easily, such as random ones: sooner where weights are binary."""
        if self.weights != "binary" or not self.is_exact(len(features)):
            return self.affinity(features, seed)
        indices = likely_neighbours(features, self.count(len(features)))
        return affinity(indices, np.zeros(indices.shape))

    def neighbourhood(
        self, features: Float[np.ndarray, "n d"], seed: int = 0, reduce: Reduce | None = None
    ) -> Neighbourhood:
        """The neighbours of a group, and spare ones where parts of it are to be looked at by themselves."""
        n = len(features)
        if self.is_exact(n) and n <= SPARE_UP_TO:
            _require_usable(features)
            wide = min(SPARE * self.count(n), n - 1)
            found = exact_neighbours(features, wide, block_bytes=self.block_bytes, device=self.device)
        else:
            found = self.neighbours(features, seed, reduce)
        return Neighbourhood(self, features, *found, seed)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The neighbours of all samples of a group, from which those within any large part of it follow."""

    step: NearestNeighbours
    features: Float[np.ndarray, "n d"]
    indices: Int[np.ndarray, "n c"]
    """Nearest first; c ≥ k."""
    distances: Float[np.ndarray, "n c"]
    seed: int = 0

    @property
    def k(self) -> int:
        """Neighbours in the graph."""
        return self.step.count(len(self.features))

    def affinity(self) -> Graph:
        """The graph of all samples."""
        return affinity(self.indices[:, : self.k], self.distances[:, : self.k], self.step.weights)

    def twins(self, equal: Int[np.ndarray, " n"] | None = None) -> Int[np.ndarray, " n"] | None:
        """Which samples are one and the same, but for rounding: one number for each that is there; None without such.

        Equal ones are known wherever they are (`spray.analysis.features.alike`, or ``equal`` where that is known);
        nearly equal ones as neighbours, or by others between them.
        """
        size = np.sqrt(np.einsum("nd,nd->n", self.features, self.features, dtype=np.float64))
        sample, place = np.nonzero(self.distances <= SAME * size[:, None])
        if not len(sample) and self.step.is_exact(len(self.features)):
            return None  # whoever has a twin has one for its nearest
        equal = alike(self.features) if equal is None else equal
        first = np.unique(equal, return_index=True)[1][equal]
        n = len(self.features)
        rows = np.concatenate([sample, np.arange(n)])
        columns = np.concatenate([self.indices[sample, place], first])
        links = scipy.sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))
        number: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
        return number

    def facts(self) -> dict[str, Json]:
        """How the neighbours were found, how many of the exact ones they are (probed), and what they take in memory."""
        exact = self.step.is_exact(len(self.features))
        return {
            "neighbours": self.k,
            "exact_neighbours": exact,
            "method": "exact" if exact else "cells" if self.step.method == "auto" else self.step.method,
            "recall": 1.0 if exact else probed_recall(self.features, self.indices, seed=self.seed),
            "neighbour_bytes": self.indices.nbytes + self.distances.nbytes,
        }

    def closed(self, chosen: Int[np.ndarray, " r"]) -> Neighbourhood:
        """The part of some samples whose neighbours are among them, as those of whole components are."""
        place = np.full(len(self.features), -1)
        place[chosen] = np.arange(len(chosen))
        indices, apart = place[self.indices[chosen, : self.k]], self.distances[chosen, : self.k]
        return Neighbourhood(self.step, self.features[chosen], indices, apart, self.seed)

    def among(self, chosen: Int[np.ndarray, " r"]) -> Graph:
        """The graph of some samples by themselves, given by ascending number: that of their features alone.

        Their neighbours are those of their lists that are chosen, too. Rows of which too few are get theirs anew;
        where that would be most of them, all do.
        """
        k, wide = self.step.count(len(chosen)), self.indices.shape[1]
        if wide * len(chosen) < (k + _MARGIN) * len(self.features):
            return self.step.affinity(self.features[chosen], self.seed)
        place = np.full(len(self.features), -1)
        place[chosen] = np.arange(len(chosen))
        near = place[self.indices[chosen]]
        # Those that are chosen to the front, in their order of distance; then the first k of them.
        order = np.argsort(near < 0, axis=1, kind="stable")[:, :k]
        indices = np.take_along_axis(near, order, axis=1)
        distances = np.take_along_axis(self.distances[chosen], order, axis=1)
        short = np.flatnonzero(indices[:, -1] < 0)
        if len(short):
            indices[short], distances[short] = exact_neighbours(self.features[chosen], k, queries=short)
        return affinity(indices, distances, self.step.weights)


def affinity(
    indices: Int[np.ndarray, "n k"], distances: Float[np.ndarray, "n k"], weights: Weights = "binary"
) -> Graph:
    """A = (C + Cᵀ) / 2 of weighted connectivity C."""
    n, k = indices.shape
    if weights == "binary":
        values = np.full(n * k, 0.5)
    elif weights == "gaussian":
        values = np.exp(-(distances**2) / (2 * positive(np.median(distances[:, -1])) ** 2)).ravel() / 2
    elif weights == "self_tuning":
        scale = positive(distances[:, -1])
        values = np.exp(-(distances**2) / (scale[:, None] * scale[indices])).ravel() / 2
    else:
        raise ValueError(f"unknown weights {weights!r}: choose 'binary', 'gaussian' or 'self_tuning'.")
    # Short indices where they do: every product with the graph reads them.
    short = np.int32 if n * k < 2**30 else np.int64
    starts = np.arange(0, n * k + 1, k, dtype=short)
    one_way = scipy.sparse.csr_array((values, indices.ravel().astype(short), starts), shape=(n, n))
    both: Graph = one_way + one_way.T.tocsr()
    return both


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
