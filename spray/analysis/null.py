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
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from spray.analysis.features import Norm, normalised
from spray.analysis.graph import NearestNeighbours
from spray.analysis.spectral import eigengap, spectrum

_FULL_GAP = 1e-6
"""1 − gap below which a gap is as good as full: the groups have no edge between them."""
_TOLERANCE = 1e-4
"""Of the eigenvalues under test: gaps that matter differ in the second digit."""


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
    structure. ``rows``: larger groups are tested on a subsample of this size, data and null alike.
    """

    draws: int = 9
    deviations: float = 4.0
    rows: int = 1000
    name: ClassVar[str] = "gaussian_null"

    def __post_init__(self) -> None:
        if self.draws < 0 or 0 < self.draws < 5:
            raise ValueError(f"a null needs at least 5 draws, or 0 to leave it out; got draws={self.draws}.")

    def test(
        self,
        features: Float[np.ndarray, "n d"],
        neighbours: NearestNeighbours,
        eigenvectors: int,
        *,
        norm: Norm = "l2",
        seed: int = 0,
    ) -> NullTest:
        """Test the eigengap among the first ``eigenvectors`` eigenvalues, relative to λ_{k+1}.

        ``norm`` is that of the features' representation.
        """
        if not self.draws:
            return NullTest(True, None, None, 0, 1.0, None, None, 0)
        rng = np.random.default_rng(seed)
        if len(features) > self.rows:
            features = features[np.sort(rng.choice(len(features), self.rows, replace=False))]

        def relative_gap(rows: NDArray[np.float32]) -> float:
            graph = neighbours.affinity(rows, seed)
            return eigengap(spectrum(graph, eigenvectors, seed=seed, tolerance=_TOLERANCE).values)[0].relative

        observed = relative_gap(features)
        null: list[float] = []
        for rows in self._draw(features, norm, rng):
            null.append(relative_gap(rows))
            if null[-1] >= observed:
                return NullTest(
                    False, 1 / len(null), None, len(null), 1.0, max(null), observed, len(features)
                )
        logs = -np.log(np.maximum(1 - np.array([*null, observed]), _FULL_GAP))
        spread = max(float(logs[:-1].std(ddof=1)), _FULL_GAP)
        deviations = float((logs[-1] - logs[:-1].mean()) / spread)
        p_value = 1 / (len(null) + 1)
        real = deviations >= self.deviations
        return NullTest(real, p_value, deviations, len(null), 1.0, max(null), observed, len(features))

    def _draw(
        self, features: Float[np.ndarray, "n d"], norm: Norm, rng: np.random.Generator
    ) -> Iterator[Float[np.ndarray, "n d"]]:
        mean, root = gaussian(features)
        for _ in range(self.draws):
            noise = rng.standard_normal(features.shape, dtype=np.float32)
            yield normalised(mean + noise @ root.T, norm)


def gaussian(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Mean, and a root S of the shrunk covariance S Sᵀ, of feature vectors."""
    from sklearn.covariance import ledoit_wolf

    rows = features.astype(np.float64)
    mean = rows.mean(axis=0)
    values, axes = np.linalg.eigh(ledoit_wolf(rows - mean, assume_centered=True)[0])
    return mean.astype(np.float32), (axes * np.sqrt(np.maximum(values, 0))).astype(np.float32)
