"""Equal maps count once: the graph is made of distinct ones, and the others share what is found of theirs.

More copies of a map than it has neighbours are a knot in the graph, or a component of their own, each with a small
eigenvalue: a few dozen pictures that occur a dozen times would hide what the other thousands do.

Two exceptions. Of fewer than ``FEW`` times as many distinct maps as neighbours no graph can show groups, for each is
near most: all samples stay, and a component of copies is a strategy. And a map that is as many as the smallest group
and lies apart from all others (``APART``) is no accident of collecting but a group, such as a placeholder in place of
photographs: all of its copies stay, which are each other's neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from spray.analysis.clustering import by_size
from spray.analysis.features import alike
from spray.analysis.graph import NearestNeighbours, Neighbourhood, Reduce
from spray.analysis.spectral import GROUP, SHARE
from stores.analysis import Clustering
from stores.provenance import Json

FEW = 4
"""Distinct maps, in neighbours of each, from which on a graph of them alone is made."""
APART = 1.5
"""Distance of a map to its neighbours, in those of its neighbours to theirs, from which on it lies apart: one in a
hundred maps of real relevance does, and hardly any of a Gaussian cloud."""


@dataclass(frozen=True, eq=False)
class Counted:
    """The samples of which the graph is made, and which of them each sample is one with."""

    near: Neighbourhood
    twins: Int[np.ndarray, " g"] | None
    """Which samples in the graph are one and the same; None where all differ."""
    place: Int[np.ndarray, " m"] | None
    """For each sample the one in the graph that it equals; None where all samples are in the graph."""
    distinct: int
    """Distinct maps among all samples."""

    @property
    def first(self) -> Int[np.ndarray, " g"]:
        """The first sample of each in the graph."""
        if self.place is None:
            return np.arange(len(self.near.features))
        return _first(self.place)

    def spread(self, clustering: Clustering) -> Clustering:
        """The clustering of all samples, from that of those in the graph."""
        if self.place is None:
            return clustering
        outlier, facts = clustering.outlier, dict(clustering.parameters)
        labels = by_size(clustering.labels[self.place])
        if "noise" in facts:
            facts["noise"] = int((labels < 0).sum())
        return replace(
            clustering,
            labels=labels,
            outlier=None if outlier is None else outlier[self.place],
            parameters=facts,
        )

    def all_of(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Rows of all samples, from those in the graph."""
        return rows if self.place is None else rows[self.place]

    def facts(self) -> dict[str, Json]:
        """How many samples equal an earlier one, and how many of them were left out of the graph; nothing without."""
        everything = len(self.near.features) if self.place is None else len(self.place)
        if self.distinct == everything:
            return {}
        return {
            "copies": everything - self.distinct,
            "counted_once": everything - len(self.near.features),
        }


def counted_once(
    step: NearestNeighbours, features: Float[np.ndarray, "m d"], seed: int = 0, reduce: Reduce | None = None
) -> Counted:
    """The neighbours of the distinct maps of a group; of all, where all differ or hardly any do.

    Maps that differ by rounding only are one, too. Such as lie in a row may need a further look, once those between
    them are gone.
    """
    m = len(features)
    few = FEW * step.count(m)
    place = np.arange(m)
    if not step.is_exact(m):
        # Approximate lists of copies would hold nothing else: these are told beforehand.
        place = _by_first(alike(features))
    first = _first(place)
    near: Neighbourhood | None = None
    while len(first) >= few or near is None:
        near = step.neighbourhood(features if len(first) == m else features[first], seed, reduce)
        twins = near.twins(np.arange(len(first)) if len(first) < m else None)
        if twins is None or int(twins.max()) + 1 == len(first):
            break
        place = _by_first(twins)[place]
        first = _first(place)
    if len(first) == m:
        return Counted(near, None, None, m)
    if len(first) < few:
        whole = near if len(near.features) == m else step.neighbourhood(features, seed, reduce)
        return Counted(whole, whole.twins(), None, len(first))
    masses = _masses(near, np.bincount(place), m)
    if not len(masses):
        return Counted(near, None, place, len(first))
    stays = np.isin(place, masses)
    stays[first] = True
    kept = np.flatnonzero(stays)
    number = np.full(m, -1)
    number[kept] = np.arange(len(kept))
    near = step.neighbourhood(features[kept], seed, reduce)
    return Counted(near, near.twins(), np.where(stays, number, number[first[place]]), len(first))


def _masses(near: Neighbourhood, copies: Int[np.ndarray, " g"], m: int) -> Int[np.ndarray, " c"]:
    """Maps that are many and lie apart: a local outlier factor (Breunig et al. 2000) of mean distances."""
    many = np.flatnonzero(copies >= max(GROUP, 2 * near.k, SHARE * m))
    k = near.k
    own = near.distances[many, :k].mean(axis=1)
    others = near.distances[near.indices[many, :k], :k].mean(axis=(1, 2))
    masses: NDArray[np.intp] = many[own >= APART * others]
    return masses


def _by_first(number: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Numbers 0, 1, … for the same samples, in the order of their first one."""
    found, first, place = np.unique(number, return_index=True, return_inverse=True)
    rank = np.empty(len(found), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(found))
    renumbered: NDArray[np.int64] = rank[place]
    return renumbered


def _first(place: Int[np.ndarray, " m"]) -> Int[np.ndarray, " g"]:
    """The first sample of each number, which ascend with them."""
    return np.unique(place, return_index=True)[1]
