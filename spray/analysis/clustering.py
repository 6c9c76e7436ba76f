"""Prediction strategies as clusters of the spectral embedding (Lapuschkin et al. 2019; Ng et al. 2001).

Each clustering takes the leading eigenvectors it needs and labels the samples 0, 1, … by falling size of
their cluster, −1 for noise. To add one, write a frozen dataclass with a ``name`` and ``cluster``, and list
it at the foot.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import NDArray

from spray.analysis.cells import nearest_of
from spray.analysis.graph import Graph
from spray.analysis.spectral import connected, degrees, row_normalised
from stores.analysis import Clustering
from stores.provenance import Json

FITTED = 20_000
"""Samples that k-means and HDBSCAN are fitted on; further ones join the nearest centre or fitted sample."""
_STARTS, _SAME = 3, 1e-9
"""Starts of k-means that do where all come to one inertia, but for this part of it."""


class Clusterer(Protocol):
    """Labels samples by the spectral embedding of their graph."""

    name: ClassVar[str]

    def eigenvectors(self, strategies: int) -> int:
        """How many leading eigenvectors it looks at."""

    def smallest(self, m: int) -> int:
        """Samples of the smallest cluster that it makes of ``m``."""

    def lighter(self) -> Clusterer:
        """The same with less effort, for resamples, whose labels are compared and not kept."""

    def cluster(
        self,
        vectors: Float[np.ndarray, "m k"],
        affinity: Graph,
        strategies: int,
        seed: int,
    ) -> Clustering:
        """Cluster ``m`` ≥ 2 samples.

        Args:
            vectors: eigenvectors of L_sym by rising eigenvalue, not row-normalised.
            affinity: the graph they come from.
            strategies: the number of strategies that the eigengap suggests.
            seed: of whatever the method draws at random.
        """


@dataclass(frozen=True)
class Partition(ABC):
    """Clusterings into a given number of groups, on as many eigenvectors: ``clusters``, or the eigengap's number."""

    clusters: int | None = None
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.clusters is not None and self.clusters < 1:
            raise ValueError(f"a clustering has at least one cluster; got clusters={self.clusters}.")

    def eigenvectors(self, strategies: int) -> int:
        """One per cluster."""
        return self.clusters or max(strategies, 1)

    def smallest(self, m: int) -> int:
        """One: how large they are is not asked."""
        return 1

    def lighter(self) -> Clusterer:
        """Itself."""
        return self

    def cluster(
        self,
        vectors: Float[np.ndarray, "m k"],
        affinity: Graph,
        strategies: int,
        seed: int,
    ) -> Clustering:
        """Clusters numbered by falling size; one cluster is all samples."""
        k = min(self.eigenvectors(strategies), vectors.shape[1])
        if k == 1:
            return _whole(len(vectors))
        labels, facts = self._split(vectors[:, :k], affinity, seed)
        return Clustering(by_size(labels), None, {"clusters": k, "dimensions": k, **facts})

    @abstractmethod
    def _split(
        self, vectors: Float[np.ndarray, "m k"], affinity: Graph, seed: int
    ) -> tuple[Int[np.ndarray, " m"], dict[str, Json]]:
        """Labels of k ≥ 2 clusters (or fewer, and then how many), and further facts."""


@dataclass(frozen=True)
class KMeans(Partition):
    """k-means on the first k eigenvectors, k suggested by the eigengap unless ``clusters`` is given.

    The best of ``n_init`` seeded starts; of three, where these come to one and the same.
    """

    n_init: int = 10
    name: ClassVar[str] = "kmeans"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self, "n_init", 1)

    def lighter(self) -> Clusterer:
        """One start, from the groups of `ClusterQR`."""
        return _FromAxes(self.clusters)

    def _split(
        self, vectors: Float[np.ndarray, "m k"], affinity: Graph, seed: int
    ) -> tuple[Int[np.ndarray, " m"], dict[str, Json]]:
        chosen = _some(len(vectors), seed)
        pieces, component = connected(affinity)
        if pieces == vectors.shape[1]:
            # Rows of as many points as there are clusters, which are found without looking.
            return component, {"clusters": pieces, "fitted_rows": len(chosen)}
        points = row_normalised(vectors)
        found = self._fitted(points[chosen], seed)
        labels = found.labels_ if len(chosen) == len(points) else found.predict(points)
        return labels.astype(np.int64), {"clusters": found.n_clusters, "fitted_rows": len(chosen)}

    def _fitted(self, points: Float[np.ndarray, "s k"], seed: int) -> Any:
        from sklearn.cluster import KMeans as Lloyd

        k = points.shape[1]
        if len(np.unique(points[:, -1])) < k:
            # Duplicates may leave fewer distinct points than clusters, of which scikit-learn would warn.
            k = min(k, len(np.unique(points, axis=0)))
        draws = np.random.RandomState(seed)
        first = min(self.n_init, _STARTS)
        found = [Lloyd(k, n_init=1, random_state=draws).fit(points) for _ in range(first)]
        reached = [each.inertia_ for each in found]
        if self.n_init > first and max(reached) > min(reached) * (1 + _SAME):
            found.append(Lloyd(k, n_init=self.n_init - first, random_state=draws).fit(points))
        return min(found, key=lambda each: float(each.inertia_))


@dataclass(frozen=True)
class ClusterQR(Partition):
    """Clusters from a pivoted QR factorisation of the eigenvectors: no start, no seed (Damle et al. 2019).

    Each sample goes to the axis, of those the pivots span, on which its row is longest.
    """

    name: ClassVar[str] = "cluster_qr"

    def _split(
        self, vectors: Float[np.ndarray, "m k"], affinity: Graph, seed: int
    ) -> tuple[Int[np.ndarray, " m"], dict[str, Json]]:
        labels = _nearest_axis(vectors)
        return labels, {"clusters": int(labels.max()) + 1}


@dataclass(frozen=True)
class _FromAxes(Partition):
    """k-means from one start that takes no luck, the groups of `ClusterQR`."""

    name: ClassVar[str] = KMeans.name

    def _split(
        self, vectors: Float[np.ndarray, "m k"], affinity: Graph, seed: int
    ) -> tuple[Int[np.ndarray, " m"], dict[str, Json]]:
        from sklearn.cluster import KMeans as Lloyd

        points, labels = row_normalised(vectors), _nearest_axis(vectors)
        start = np.stack([points[labels == label].mean(axis=0) for label in np.unique(labels)])
        return Lloyd(len(start), init=start, n_init=1).fit_predict(points).astype(np.int64), {}


def _nearest_axis(vectors: Float[np.ndarray, "m k"]) -> Int[np.ndarray, " m"]:
    pivots = scipy.linalg.qr(vectors.T, mode="r", pivoting=True)[-1]
    left, _, right = np.linalg.svd(vectors[pivots[: vectors.shape[1]]].T)
    labels: NDArray[np.int64] = np.abs(vectors @ (left @ right)).argmax(axis=1)
    return labels


@dataclass(frozen=True)
class Agglomerative(Partition):
    """Ward's agglomeration of the first k eigenvectors, in which only neighbours in the graph merge.

    The graph keeps it sparse, and clusters connected. No start, no seed.
    """

    name: ClassVar[str] = "agglomerative"

    def _split(
        self, vectors: Float[np.ndarray, "m k"], affinity: Graph, seed: int
    ) -> tuple[Int[np.ndarray, " m"], dict[str, Json]]:
        from sklearn.cluster import AgglomerativeClustering

        with warnings.catch_warnings():
            # Where the graph has several components, scikit-learn joins them last, as it should, and warns.
            warnings.filterwarnings("ignore", "the number of connected components", UserWarning)
            model = AgglomerativeClustering(vectors.shape[1], linkage="ward", connectivity=affinity)
            return model.fit_predict(row_normalised(vectors)).astype(np.int64), {}


@dataclass(frozen=True)
class HDBSCAN:
    """Density clusters of any number, with outlier scores (Campello et al. 2015).

    ``dimensions``: leading eigenvectors used, one more for each further component of the graph, or the eigengap's
    number of strategies where that is more.
    ``min_cluster_size``: smallest cluster, or a share ``min_share`` of the group where that is more; in
    groups of fewer than five times as many samples, a fifth of them but at least 5. ``min_samples``:
    neighbours that make a place dense. ``noise``: "majority" gives a noise sample to the cluster that holds
    more than half of its edge weight, "keep" leaves it noise. Where no split is dense enough, all samples
    are one cluster: one strategy. A component of the graph of ``min_cluster_size`` samples is no noise, and one that is
    too small by the share is a cluster.
    """

    min_cluster_size: int = 20
    min_share: float = 0.002
    min_samples: int = 10
    dimensions: int = 6
    selection: Literal["eom", "leaf"] = "eom"
    noise: Literal["majority", "keep"] = "majority"
    name: ClassVar[str] = "hdbscan"

    def __post_init__(self) -> None:
        _require(self, "min_cluster_size", 2)
        _require(self, "min_samples", 1)
        _require(self, "dimensions", 1)
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"hdbscan takes min_share from 0 to 1; got min_share={self.min_share}.")
        if self.selection not in ("eom", "leaf"):
            raise ValueError(f"hdbscan selects by 'eom' or 'leaf'; got selection={self.selection!r}.")
        if self.noise not in ("majority", "keep"):
            raise ValueError(f"hdbscan's noise goes by 'majority' or 'keep'; got noise={self.noise!r}.")

    def eigenvectors(self, strategies: int) -> int:
        """At least as many as there are strategies."""
        return max(self.dimensions, strategies)

    def smallest(self, m: int) -> int:
        """``min_cluster_size`` or the share, less in small groups."""
        return self._size(m, m)

    def _size(self, m: int, fitted: int) -> int:
        least = max(self.min_cluster_size, round(self.min_share * fitted))
        return max(2, min(least, max(5, m // 5)))

    def lighter(self) -> Clusterer:
        """The same without outlier scores."""
        return _LabelsAlone(**{field.name: getattr(self, field.name) for field in fields(self)})

    def cluster(
        self,
        vectors: Float[np.ndarray, "m k"],
        affinity: Graph,
        strategies: int,
        seed: int,
    ) -> Clustering:
        """Labels with −1 for noise, and GLOSH outlier scores in [0, 1], 1 for the strangest."""
        m = len(vectors)
        chosen = _some(m, seed)
        size = self._size(m, len(chosen))
        pieces, component = connected(affinity)
        dimensions = min(max(self.dimensions + pieces - 1, strategies), vectors.shape[1])
        if m < 2 * size:
            return _whole(m)
        points = row_normalised(vectors[:, :dimensions])
        labels, outlier = self._fitted(points[chosen], size)
        if len(chosen) < m:
            nearest = nearest_of(points, points[chosen], seed)
            labels, outlier = labels[nearest], None if outlier is None else outlier[nearest]
        if pieces > 1:
            labels = self._pieces(labels, component)
        if (labels < 0).all():
            labels[:] = 0
        noise = int((labels < 0).sum())
        if self.noise == "majority":
            labels = join_noise(labels, affinity)
        facts = {
            "clusters": int(labels.max()) + 1,
            "dimensions": dimensions,
            "min_cluster_size": size,
            "fitted_rows": len(chosen),
            "noise": int((labels < 0).sum()),
            "noise_joined": noise - int((labels < 0).sum()),
        }
        return Clustering(by_size(labels), outlier, facts)

    def _fitted(
        self, points: Float[np.ndarray, "s k"], size: int
    ) -> tuple[Int[np.ndarray, " s"], Float[np.ndarray, " s"] | None]:
        import hdbscan

        model = hdbscan.HDBSCAN(
            min_cluster_size=size,
            min_samples=min(self.min_samples, size),
            cluster_selection_method=self.selection,
            core_dist_n_jobs=1,
        )
        # Exact duplicates are infinitely dense; the ratio of two such densities means "as dense as can be".
        with np.errstate(divide="ignore", invalid="ignore"):
            return model.fit_predict(points).astype(np.int64), self._outlier(model)

    def _pieces(
        self, labels: Int[np.ndarray, " m"], component: Int[np.ndarray, " m"]
    ) -> Int[np.ndarray, " m"]:
        """The labels with a cluster for each component that is large enough by itself, and was not seen or is noise."""
        size = np.bincount(component)
        seen = np.bincount(component, labels >= 0) > 0
        least = self.smallest(len(labels))
        own = (size >= min(self.min_cluster_size, least)) & ((size < least) | ~seen)
        found = np.where(own[component], len(labels) + component, labels)
        real = found >= 0
        found[real] = np.unique(found[real], return_inverse=True)[1]
        return found

    def _outlier(self, model: Any) -> Float[np.ndarray, " s"] | None:
        """Scores of the samples that the model was fitted on."""
        return np.nan_to_num(np.asarray(model.outlier_scores_, dtype=np.float64), nan=0.0)


@dataclass(frozen=True)
class _LabelsAlone(HDBSCAN):
    """Without the outlier scores, which cost a third of the labels."""

    def _outlier(self, model: Any) -> Float[np.ndarray, " s"] | None:
        return None


def join_noise(labels: Int[np.ndarray, " m"], affinity: Graph, rounds: int = 10) -> Int[np.ndarray, " m"]:
    """Noise samples join the cluster that holds more than half of their edge weight, until none does."""
    labels = labels.copy()
    noise = np.flatnonzero(labels < 0)
    clusters = int(labels.max(initial=-1)) + 1
    if not clusters or not len(noise):
        return labels
    edges = affinity[noise]
    majority = degrees(edges) / 2
    sample = np.repeat(np.arange(len(noise)), np.diff(edges.indptr))
    for _ in range(rounds):
        asked = labels[edges.indices]
        votes = np.bincount(
            (sample * clusters + asked)[asked >= 0], edges.data[asked >= 0], minlength=len(noise) * clusters
        ).reshape(len(noise), clusters)
        joins = (votes.max(axis=1) > majority) & (labels[noise] < 0)
        if not joins.any():
            break
        labels[noise[joins]] = votes[joins].argmax(axis=1)
    return labels


def together(clustering: Clustering, twins: Int[np.ndarray, " m"]) -> Clustering:
    """The clustering with one label for samples of one number in ``twins``: that of most of them, noise for none.

    Among equal samples neighbours are arbitrary, and so is what the spectral embedding shows of them.
    """
    labels = clustering.labels
    if len(np.unique(twins)) == len(labels):
        return clustering
    voting = labels >= 0
    votes, count = np.unique(np.stack([twins[voting], labels[voting]]), axis=1, return_counts=True)
    rising = np.lexsort((-votes[1], count))  # of as many votes the lower label is last, and stays
    winner = np.full(int(twins.max()) + 1, -1)
    winner[votes[0, rising]] = votes[1, rising]
    labels = by_size(winner[twins])
    facts = {"clusters": int(labels.max()) + 1, "noise": int((labels < 0).sum())}
    changed = {name: facts.get(name, value) for name, value in clustering.parameters.items()}
    return replace(clustering, labels=labels, parameters=changed)


def with_components(
    clustering: Clustering,
    inside: Int[np.ndarray, " i"],
    component: Int[np.ndarray, " m"],
    smallest: int = 1,
) -> Clustering:
    """The clustering of the samples numbered in ``inside``, with every component of the others as a cluster.

    Components of fewer than ``smallest`` samples are noise.
    """
    labels = component + len(component)
    labels[np.bincount(component)[component] < smallest] = -1
    labels[inside] = clustering.labels
    outlier = None
    if clustering.outlier is not None:
        outlier = np.zeros(len(component))
        outlier[inside] = clustering.outlier
    labels = by_size(labels)
    facts = {**clustering.parameters, "clusters": int(labels.max()) + 1}
    if "noise" in facts:
        facts["noise"] = int((labels < 0).sum())
    return Clustering(labels, outlier, facts)


def by_size(labels: NDArray[np.integer]) -> Int[np.ndarray, " m"]:
    """The same clusters numbered 0, 1, … by falling size, then by their first sample; −1 stays noise."""
    found, first, size = np.unique(labels, return_index=True, return_counts=True)
    real = found >= 0
    order = np.lexsort((first[real], -size[real]))
    number = np.full(len(found), -1)
    number[np.flatnonzero(real)[order]] = np.arange(len(order))
    relabelled: NDArray[np.int64] = number[np.searchsorted(found, labels)]
    return relabelled


def _require(step: Clusterer, option: str, least: int) -> None:
    """Refuse a number that a method cannot work with, before any sample is looked at."""
    given = getattr(step, option)
    if given < least:
        raise ValueError(f"{step.name} takes {option} of at least {least}; got {option}={given}.")


def _some(m: int, seed: int) -> Int[np.ndarray, " s"]:
    """The samples that a clustering is fitted on: all, or ``FITTED`` of them drawn by seed."""
    if m <= FITTED:
        return np.arange(m)
    return np.sort(np.random.default_rng(seed).choice(m, FITTED, replace=False))


def _whole(m: int) -> Clustering:
    """One strategy: every sample in cluster 0."""
    return Clustering(np.zeros(m, dtype=np.int64), None, {"clusters": 1})


CLUSTERINGS: dict[str, type[KMeans | HDBSCAN | Agglomerative | ClusterQR]] = {
    step.name: step for step in (KMeans, HDBSCAN, Agglomerative, ClusterQR)
}
"""Clusterings by name."""
