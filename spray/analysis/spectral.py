"""The spectrum of the neighbourhood graph: L_sym = I − D^−½ A D^−½ (Ng et al. 2001; von Luxburg 2007).

The smallest eigenvalues of L_sym are two minus the largest of M = I + D^−½ A D^−½, which Lanczos finds
without factorising anything (``which="LA"``). Zero eigenvalues are not solved for at all: their number is
the number of connected components, counted on the graph, and their vectors are known; the rest is solved
component by component with those vectors deflated. Several disconnected pieces thus give exactly that many
zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from jaxtyping import Float, Int
from numpy.typing import NDArray

from spray.analysis import lobpcg
from spray.analysis.graph import Graph
from spray.analysis.parallel import one_thread
from stores.provenance import Json

_DENSE = 256
"""Components up to this size are solved densely: faster there, and sure of every multiple eigenvalue."""
_TOLD = 32
"""Components whose sizes are told."""
_ABOVE_ZERO = float(np.finfo(float).tiny)
"""Least eigenvalue that is solved for: zero itself counts components."""
_ENTRIES = 2**24
"""Entries of all vectors together beyond which components are no reason for more of them (128 MB)."""
_FEWEST, _LARGE = 6, 0.1
"""Vectors above zero that components leave room for; where they do not, the small ones get none if there are others
with more than this part of the vertices."""
GROUP, SHARE = 20, 0.002
"""Samples of the smallest group that is looked for, also as a share of all."""
_MANY = 32
"""Components beyond which those that are too small for two such groups get no vectors: they would be most of them."""


@dataclass(frozen=True)
class Spectrum:
    """The smallest eigenvalues of L_sym, ascending, with their vectors, and the connected components."""

    values: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "n k"]
    components: int
    component: Int[np.ndarray, " n"]
    """The component of each vertex, numbered by falling size."""
    without: int = 0
    """Components, the smallest ones, of which there are neither values nor vectors."""

    @property
    def all_zero(self) -> bool:
        """Whether there are at least as many components as eigenvalues, which say nothing else then."""
        return self.components - self.without >= len(self.values)

    @property
    def groups(self) -> int:
        """Components that are groups, one at least, and all that have no vectors.

        A group has 20 samples; where there are few, a fifth of them, at least 5.
        """
        least = min(GROUP, max(5, len(self.component) // 5))
        sizes = np.bincount(self.component)[: self.components - self.without]
        return self.without + max(int((sizes >= least).sum()), 1)

    @property
    def all_values(self) -> Float[np.ndarray, " a"]:
        """The eigenvalues, with a zero for each component without vectors."""
        return np.concatenate([np.zeros(self.without), self.values])

    @property
    def inside(self) -> Int[np.ndarray, " i"]:
        """The vertices of the components that have vectors."""
        return np.flatnonzero(self.component < self.components - self.without)

    def facts(self) -> dict[str, Json]:
        """The sizes of the largest components, and what has no vectors, where there is such."""
        sizes = np.bincount(self.component)
        told: dict[str, Json] = {"component_sizes": [int(size) for size in sizes[:_TOLD]]}
        if self.without:
            told["components_without_vectors"] = self.without
            told["samples_without_vectors"] = int(sizes[-self.without :].sum())
        return told


class Gap(NamedTuple):
    """A candidate number of strategies k, and the gap λ_{k+1} − λ_k, also relative to λ_{k+1}."""

    k: int
    gap: float
    relative: float


def spectrum(
    affinity: Graph,
    k: int,
    *,
    above_zero: int = 0,
    seed: int = 0,
    tolerance: float = 0.0,
    device: str = "cpu",
    checked: bool = False,
) -> Spectrum:
    """The ``k`` smallest eigenvalues and vectors of L_sym (fewer where the graph has fewer vertices).

    Args:
        affinity: symmetric, non-negative, without self-loops [n, n]. A vertex without edges is a component.
        k: number of eigenvalues.
        above_zero: as many more as it takes for so many above zero, which are beyond those of the components, as long
            as all vectors together have less than 2^24 entries. Where that leaves hardly any above zero, a component
            with more than a tenth of the vertices gets them before small ones get theirs of zero. Of more than 32
            components only those get any that could be two groups, of 20 samples or 0.2 % of all, if there are such.
        seed: of the start vector of Lanczos. Each vector's largest entry is made positive.
        tolerance: relative accuracy of the eigenvalues; 0 is machine precision.
        device: a CUDA device is asked for large components (`spray.analysis.lobpcg`); where its residuals are too
            large, and everywhere else, Lanczos answers.
        checked: the graph is known to be as told, as `spray.analysis.graph.affinity` makes them.

    Raises:
        ValueError: the matrix is not square, not symmetric, or has negative or non-finite weights; k < 1.
    """
    graph = affinity if checked else _checked(affinity, k)
    n = graph.shape[0]
    components, label = connected(graph)
    solved = components
    if above_zero:
        solved, k = _with_vectors(np.bincount(label), k, above_zero)
    k = min(k, n)
    degree = degrees(graph)
    zeros = _indicators(label, components, degree, min(solved, k))
    if solved >= k:
        return Spectrum(np.zeros(k), _signed(zeros), components, label)

    wanted = k - solved
    order = np.argsort(label, kind="stable")
    borders = np.searchsorted(label[order], np.arange(components + 1))
    values: list[NDArray[np.float64]] = []
    places: list[tuple[NDArray[np.intp], NDArray[np.float64]]] = []
    for piece in range(solved):
        members = order[borders[piece] : borders[piece + 1]]
        if len(members) < 2:
            continue
        block = graph if components == 1 else graph[members][:, members]
        own, vectors = _solve(block, min(wanted, len(members) - 1), seed, tolerance, device)
        values.extend(own[:, None])
        places.extend((members, vectors[:, column]) for column in range(len(own)))
    above, others = _smallest(np.concatenate(values), places, n, wanted)
    all_vectors = _signed(np.concatenate([zeros, others], axis=1))
    return Spectrum(
        np.concatenate([np.zeros(solved), above]), all_vectors, components, label, components - solved
    )


def _with_vectors(size: Int[np.ndarray, " c"], k: int, above_zero: int) -> tuple[int, int]:
    """Of components of these sizes, falling, how many get vectors, and how many eigenvalues that makes."""
    n, solved = int(size.sum()), len(size)
    if solved > _MANY:
        solved = int((size >= 2 * max(GROUP, SHARE * n)).sum())
        if not solved:
            return len(size), k
    k = max(k, min(solved + above_zero, _ENTRIES // n))
    large = int((size > _LARGE * n).sum())
    if large and solved + min(above_zero, _FEWEST) > k:
        solved = min(solved, max(k - above_zero, large))
        k = solved + above_zero
    return solved, k


def _smallest(
    values: NDArray[np.float64],
    places: Sequence[tuple[NDArray[np.intp], NDArray[np.float64]]],
    n: int,
    k: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The k smallest of the eigenvalues of all components, and their vectors over all vertices."""
    smallest = np.argsort(values, kind="stable")[:k]
    vectors = np.zeros((n, len(smallest)))
    for column, chosen in enumerate(smallest):
        members, vector = places[chosen]
        vectors[members, column] = vector
    return values[smallest], vectors


def degrees(affinity: Graph) -> Float[np.ndarray, " n"]:
    """The edge weight of each vertex."""
    return np.asarray(affinity.sum(axis=1), dtype=np.float64).ravel()


def row_normalised(vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Rows on the unit sphere (Ng et al. 2001), so that a sample's degree no longer matters."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


def eigengap(eigenvalues: Float[np.ndarray, " k"], runners_up: int = 3) -> list[Gap]:
    """The suggested number of strategies, a k ≥ 2 behind which the gap λ_{k+1} − λ_k is large, then runners-up.

    von Luxburg (2007), section 8.3. Among the gaps of at least a quarter of the largest, the one that is
    largest relative to λ_{k+1} wins: where hardly any edge joins the groups, the gap is all of λ_{k+1},
    however small that is beside the spacing of larger eigenvalues. k = 1 competes against a null instead
    (`spray.analysis.null`), for the first gap is large in any connected graph. The runners-up follow by falling gap.
    Fewer than three eigenvalues have no such gap: k is 1 and the gap 0.
    """
    size = np.diff(eigenvalues)[1:]
    if not len(size):
        return [Gap(1, 0.0, 0.0)]
    relative = size / np.maximum(eigenvalues[2:], _ABOVE_ZERO)
    best = int(np.where(size >= size.max() / 4, relative, -1).argmax())
    others = [at for at in np.argsort(-size, kind="stable").tolist() if at != best][:runners_up]
    return [Gap(at + 2, float(size[at]), float(relative[at])) for at in (best, *others)]


def _checked(affinity: Graph, k: int) -> Graph:
    graph: Graph = affinity.tocsr().astype(np.float64)
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1] or not graph.shape[0]:
        raise ValueError(f"an affinity matrix is square with at least one vertex; got shape {graph.shape}.")
    if k < 1:
        raise ValueError(f"at least one eigenvalue must be asked for; got k={k}.")
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        raise ValueError("affinities must be finite and not negative; found others (are they distances?).")
    if abs(graph - graph.T).max() > 1e-12 * max(abs(graph).max(), 1e-300):
        raise ValueError("the affinity matrix is not symmetric; use (A + A.T) / 2.")
    if graph.diagonal().any():
        raise ValueError("the affinity matrix has self-loops; set its diagonal to zero.")
    graph.eliminate_zeros()  # a weight of 0 that is stored joins nothing
    return graph


def connected(graph: Graph) -> tuple[int, Int[np.ndarray, " n"]]:
    """How many connected components there are, and that of each vertex: by falling size, then by first vertex."""
    # Edges go both ways, so that strong components are the components, and no transpose is taken.
    count, label = scipy.sparse.csgraph.connected_components(graph, connection="strong")
    if count == 1:
        return 1, np.zeros(len(label), dtype=np.int64)
    size = np.bincount(label, minlength=count)
    first = np.full(count, len(label))
    np.minimum.at(first, label, np.arange(len(label)))
    number = np.empty(count, dtype=np.int64)
    number[np.lexsort((first, -size))] = np.arange(count)
    return int(count), number[label]


def _indicators(
    label: NDArray[np.int64], components: int, degree: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """The eigenvectors of eigenvalue 0: √degree on one of the k largest components, zero elsewhere."""
    root = np.sqrt(np.where(degree > 0, degree, 1.0))
    mass = np.sqrt(np.bincount(label, weights=root**2, minlength=components))
    vectors = np.zeros((len(label), k))
    inside = np.flatnonzero(label < k)
    vectors[inside, label[inside]] = root[inside] / mass[label[inside]]
    return vectors


def _solve(
    graph: Graph, k: int, seed: int, tolerance: float, device: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The k smallest eigenvalues above zero, and their vectors, of one connected component."""
    n = graph.shape[0]
    root = np.sqrt(degrees(graph))
    adjacency = graph.copy()
    adjacency.data /= np.repeat(root, np.diff(graph.indptr)) * root[graph.indices]
    root /= np.linalg.norm(root)
    if n <= max(_DENSE, 2 * k + 2):
        dense = np.eye(n) - adjacency.toarray() + 3 * np.outer(root, root)
        with one_thread():
            values, vectors = scipy.linalg.eigh(dense, subset_by_index=(0, k - 1))
        return np.clip(values, _ABOVE_ZERO, 2), vectors

    if device.startswith("cuda") and n >= lobpcg.WORTHWHILE:
        found = lobpcg.leading(adjacency, root, k, seed=seed, tolerance=tolerance, device=device)
        if found is not None:
            return np.clip(1 - found[0], _ABOVE_ZERO, 2), found[1]

    start = np.random.default_rng(seed).uniform(-1, 1, n)
    start -= (root @ start) * root
    with one_thread():
        values, vectors = scipy.sparse.linalg.eigsh(
            _Deflated(adjacency, root), k, which="LA", v0=start, tol=tolerance, ncv=min(n - 1, max(3 * k, 32))
        )
    order = np.argsort(-values, kind="stable")
    return np.clip(2 - values[order], _ABOVE_ZERO, 2), vectors[:, order]


class _Deflated(scipy.sparse.linalg.LinearOperator):
    """I + D^−½ A D^−½ with its eigenvector of eigenvalue 2 moved to 0."""

    def __init__(self, adjacency: Graph, root: NDArray[np.float64]) -> None:
        super().__init__(np.float64, adjacency.shape)  # type: ignore[call-arg]  # the stubs know __new__ alone
        self.adjacency, self.root, self.twice = adjacency, root, 2 * root

    def matvec(self, x: Any) -> Any:
        """Of a vector as Lanczos gives it: without the checks, which take as long as the product of a small graph."""
        image: NDArray[np.float64] = np.asarray(self.adjacency @ x)
        image += x
        image -= (self.twice @ x) * self.root
        return image

    def _matvec(self, x: Any) -> Any:
        return self.matvec(x.ravel())


def _signed(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each vector with its largest entry positive; entries within rounding of it count by position."""
    size = np.abs(vectors)
    first = (size >= size.max(axis=0) * (1 - 1e-6)).argmax(axis=0)
    return vectors * np.where(vectors[first, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
