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
            return eigengap(solved.values)[0].relative

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
        mean, spread, axes = gaussian(features)
        for _ in range(self.draws):
            rows = rng.standard_normal(features.shape, dtype=np.float32) * spread
            # Distances and the L2 norm are the same in the axes of the covariance: only L1 needs those of the data.
            yield normalised(mean + rows @ axes.T if norm == "l1" else mean @ axes + rows, norm)


def _apart(null: list[float], observed: float) -> tuple[float, float]:
    """How far the observed gap is above the null's mean, on the scale −log(1 − gap), and their standard deviation."""
    logs = -np.log(np.maximum(1 - np.array([*null, observed]), _FULL_GAP))
    spread = float(logs[:-1].std(ddof=1)) if len(null) > 1 else 0.0
    return float(logs[-1] - logs[:-1].mean()), max(spread, _FULL_GAP)


def gaussian(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Mean of feature vectors, and the axes of their shrunk covariance with the standard deviation along each."""
    rows = features.astype(np.float64)
    mean = rows.mean(axis=0)
    values, axes = np.linalg.eigh(_shrunk_covariance(rows - mean))
    spread = np.sqrt(np.maximum(values, 0))
    return mean.astype(np.float32), spread.astype(np.float32), axes.astype(np.float32)


def _shrunk_covariance(centred: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """(1 − δ) S + δ μ I of centred rows, by Ledoit and Wolf (2004), lemmas 3.2 to 3.4.

    From one product of the rows, where scikit-learn takes three: Σ over all pairs of columns of x_i² x_j² is |x|⁴.
    """
    n, d = centred.shape
    covariance: NDArray[np.float64] = centred.T @ centred / n
    scale = np.trace(covariance) / d
    dispersion = (covariance**2).sum() - d * scale**2
    error = ((np.einsum("nd,nd->n", centred, centred) ** 2).sum() / n - (covariance**2).sum()) / n
    shrinkage = min(error, dispersion) / dispersion if dispersion > 0 and error > 0 else 0.0
    covariance *= 1 - shrinkage
    covariance.flat[:: d + 1] += shrinkage * scale
    return covariance
