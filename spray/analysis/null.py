"""Is there more than one strategy? The eigengap against a null without any clusters.

The null is one Gaussian with the data's mean and shrunk covariance (Ledoit and Wolf 2004), normalised and
turned into a graph in the same way: it has the data's correlations, but no groups. Permuting positions
would be the wrong null: it destroys the correlations and shows larger gaps than well separated groups do.

What is compared is the eigengap relative to its upper end, (λ_{k+1} − λ_k) / λ_{k+1}: real relevance lies
near a surface of few dimensions, all of its small eigenvalues lie below the null's, and so do the plain
gaps, even beside a group that hardly any edge joins to the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from spray.analysis.features import Norm, normalised
from spray.analysis.graph import Graph, Neighbourhood
from spray.analysis.spectral import eigengap, spectrum

_FULL_GAP = 1e-6
"""1 − gap below which a gap is as good as full: the groups have no edge between them."""
_AT_LEAST = 3
"""Draws before a stop for clarity by their own spread."""
_WIDEST, _FAR, _ROWS = 0.12, {1: 12.0, 2: 8.0}, 500
"""Largest standard deviation of a null's gaps in groups of so many rows or more (on the scale −log(1 − gap); 0.04 to
0.12 in twenty classes of real relevance), and how many of them end the test after so many draws. As unlikely after
one draw as 8 after two are 8 · √(2 / 1.5) = 9.2; 12 leave some room."""
_SQUARE = 2048
"""Dimensions up to which a covariance is made as it is, [d, d]."""
_ROUNDING = 1e-12
"""Variance, in the largest, below which a direction is none that the samples span."""
_TOLERANCE = 1e-2
"""Of the solver's residuals under test: the largest gap lies among the first eigenvalues, exact long before."""


@dataclass(frozen=True)
class NullTest:
    """The eigengap of data against those of a null without clusters. Gaps are relative to λ_{k+1}."""

    significant: bool
    """Whether there is more than one strategy; so believed without draws."""
    p_value: float | None
    """Of the Monte Carlo test, at least 1 / (draws + 1); None without draws."""
    deviations: float | None
    """Standard deviations of the null's gaps, on the scale −log(1 − gap), between their mean and the data's."""
    draws: int
    quantile: float
    gap: float | None
    """The null's gap at that quantile."""
    tested_gap: float | None
    """The data's own, on the rows that were tested."""
    rows: int


@dataclass(frozen=True)
class GaussianNull:
    """Monte Carlo test of the eigengap against Gaussian data of equal mean and covariance.

    ``draws``: at most so many null data sets; 0 leaves the gap untested and believes it. A gap is significant
    that exceeds all of the null's, and their mean by ``deviations`` standard deviations (of −log(1 − gap), as
    these gaps end at 1). The second condition makes up for a null that is fitted to the data it tests.
    Drawing stops at the first null gap that is no smaller (Besag and Clifford 1991): soon, where there is no
    structure; from the third draw on where fewer say as much as all would, by Student's distribution; and after
    one or two where the gap is farther from theirs than any spread of a null explains. ``rows``: larger groups are
    tested on a subsample of this size, data and null alike.
    """

    draws: int = 9
    deviations: float = 4.0
    rows: int = 1000
    name: ClassVar[str] = "gaussian_null"

    def __post_init__(self) -> None:
        if self.draws < 0 or 0 < self.draws < 5:
            raise ValueError(f"a null needs at least 5 draws, or 0 to leave it out; got draws={self.draws}.")

    def limit(self, draws: int) -> float:
        """Deviations that are as unlikely after so many draws as ``deviations`` are after all of them.

        A further value of a normal sample of m, in its standard deviations s: Student's t with m − 1 degrees of
        freedom, times √(1 + 1/m).
        """
        tail = stdtr(self.draws - 1, -self.deviations / np.sqrt(1 + 1 / self.draws))
        return float(-stdtrit(draws - 1, tail) * np.sqrt(1 + 1 / draws))

    def test(self, near: Neighbourhood, eigenvectors: int, *, norm: Norm = "l2", seed: int = 0) -> NullTest:
        """Test the eigengap among the first ``eigenvectors`` eigenvalues, relative to λ_{k+1}.

        ``norm`` is that of the features' representation.
        """
        if not self.draws:
            return NullTest(True, None, None, 0, 1.0, None, None, 0)
        rng = np.random.default_rng(seed)

        def relative_gap(graph: Graph) -> float:
            solved = spectrum(
                graph,
                eigenvectors,
                above_zero=eigenvectors - 1,
                seed=seed,
                tolerance=_TOLERANCE,
                checked=True,
            )
            # More components than are asked for eigenvalues: nothing joins them, and the gap is full.
            return 1.0 if solved.all_zero else eigengap(solved.all_values)[0].relative

        features, graph = near.features, near.affinity
        if len(features) > self.rows:
            chosen = np.sort(rng.choice(len(features), self.rows, replace=False))
            features, graph = features[chosen], partial(near.among, chosen)
        observed = relative_gap(graph())
        null: list[float] = []
        deviations = 0.0
        for rows in self._draw(features, norm, rng):
            null.append(relative_gap(near.step.draft(rows, seed)))
            if null[-1] >= observed:
                return NullTest(
                    False, 1 / len(null), None, len(null), 1.0, max(null), observed, len(features)
                )
            distance, spread = _apart(null, observed)
            deviations = distance / spread
            drawn = len(null)
            if len(features) >= _ROWS and distance >= _FAR.get(drawn, np.inf) * _WIDEST:
                p_value, deviations = 1 / (drawn + 1), distance / _WIDEST
                return NullTest(True, p_value, deviations, drawn, 1.0, max(null), observed, len(features))
            if len(null) >= _AT_LEAST and deviations >= self.limit(len(null)):
                break
        real = deviations >= self.limit(len(null))
        p_value = 1 / (len(null) + 1)
        return NullTest(real, p_value, deviations, len(null), 1.0, max(null), observed, len(features))

    def _draw(
        self, features: Float[np.ndarray, "n d"], norm: Norm, rng: np.random.Generator
    ) -> Iterator[Float[np.ndarray, "n d"]]:
        null = gaussian(features)
        for _ in range(self.draws):
            rows = rng.standard_normal(features.shape, dtype=np.float32)
            # Distances and the L2 norm are the same in the axes of the covariance: only L1 needs those of the data.
            yield normalised(null.in_place(rows) if norm == "l1" else null.in_axes(rows), norm)


def _apart(null: list[float], observed: float) -> tuple[float, float]:
    """How far the observed gap is above the null's mean, on the scale −log(1 − gap), and their standard deviation."""
    logs = -np.log(np.maximum(1 - np.array([*null, observed]), _FULL_GAP))
    spread = float(logs[:-1].std(ddof=1)) if len(null) > 1 else 0.0
    return float(logs[-1] - logs[:-1].mean()), max(spread, _FULL_GAP)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian by the axes of its covariance, as many as there are samples; along all others it is as wide."""

    mean: Float[np.ndarray, " d"]
    spread: Float[np.ndarray, " r"]
    """Standard deviation along each of the axes."""
    axes: Float[np.ndarray, "d r"]
    others: float
    """Standard deviation along every direction beside the axes."""

    def in_axes(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Samples of it from such of the standard normal, in coordinates that begin with the axes."""
        r = len(self.spread)
        mean: NDArray[np.float32] = self.mean @ self.axes
        if r == len(self.mean):
            return np.asarray(mean + rows * self.spread)
        # What of the mean lies beside the axes is one direction more: turned about them, the Gaussian is the same.
        rows[:, :r] *= self.spread
        rows[:, r:] *= np.float32(self.others)
        rows[:, :r] += mean
        rows[:, r] += np.linalg.norm(self.mean - self.axes @ mean)
        return rows

    def in_place(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Samples of it from such of the standard normal, in the coordinates of the data."""
        if len(self.spread) == len(self.mean):
            return np.asarray(self.mean + (rows * self.spread) @ self.axes.T)
        others = np.float32(self.others)
        turned = rows @ self.axes * (self.spread - others)
        return np.asarray(self.mean + rows * others + turned @ self.axes.T)


def gaussian(features: Float[np.ndarray, "n d"]) -> Gaussian:
    """That of the mean of feature vectors and of their shrunk covariance."""
    rows = features.astype(np.float64)
    mean = rows.mean(axis=0)
    rows -= mean
    variances, axes, others = shrunk_covariance(rows, dual=rows.shape[1] > max(len(rows), _SQUARE))
    return Gaussian(
        mean.astype(np.float32),
        np.sqrt(np.maximum(variances, 0)).astype(np.float32),
        axes.astype(np.float32),
        float(np.sqrt(others)),
    )


def shrunk_covariance(
    centred: Float[np.ndarray, "n d"], *, dual: bool
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "d r"], float]:
    """Variances, axes, and the variance beside the axes of (1 − δ) S + δ μ I (Ledoit and Wolf 2004, lemmas 3.2 to 3.4).

    ‖S‖² is that of the products between rows, and Σ over all pairs of columns of x_i² x_j² is |x|⁴, so that one
    product of the rows does, where scikit-learn takes three. It is S itself [d, d], or, ``dual``, that between rows
    [n, n], which has the same variances and, by the rows, the axes.
    """
    n, d = centred.shape
    moments: NDArray[np.float64] = (centred @ centred.T if dual else centred.T @ centred) / n
    scale = np.trace(moments) / d
    dispersion = (moments**2).sum() - d * scale**2
    error = ((np.einsum("nd,nd->n", centred, centred) ** 2).sum() / n - (moments**2).sum()) / n
    shrinkage = min(error, dispersion) / dispersion if dispersion > 0 and error > 0 else 0.0
    if not dual:
        moments *= 1 - shrinkage
        moments.flat[:: d + 1] += shrinkage * scale
        return *np.linalg.eigh(moments), float(shrinkage * scale)
    values, turned = np.linalg.eigh(moments)
    spanned = values > values[-1] * _ROUNDING
    axes = turned[:, spanned].T @ centred
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return values[spanned] * (1 - shrinkage) + shrinkage * scale, axes.T, float(shrinkage * scale)
