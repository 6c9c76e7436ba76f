"""Scores of a cluster, each a number with a meaning of its own, and the rank that is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

DIMENSIONS = 20
"""Dimensions of the PCA space in which separation is measured: more than the strategies of a class ever span."""
COVARIANCE_UP_TO = 2000
"""Dimensions up to which PCA solves the covariance exactly, which is then the faster way."""
HALF_AT_LEAST = 3


class Separability:
    """How well clusters of one class stand apart from the rest of it, on samples that the measure was not fitted on.

    The class is halved once; both halves are seen in the PCA space of the first.

    Source: Anders et al. 2022 (Fisher discriminant as a ranking of clusters), held out and shrunken here.
    """

    def __init__(self, maps: Float[np.ndarray, "n d"], seed: int) -> None:
        from sklearn.decomposition import PCA

        order = np.random.default_rng(seed).permutation(len(maps))
        self._fitted, self._held = order[::2], order[1::2]
        dimensions = min(DIMENSIONS, maps.shape[1], len(self._fitted) - 1)
        self._space: Float[np.ndarray, "n k"] = np.zeros((len(maps), 0))
        if dimensions >= 1:
            solver = "covariance_eigh" if maps.shape[1] <= COVARIANCE_UP_TO else "randomized"
            space = PCA(dimensions, svd_solver=solver, random_state=seed).fit(maps[self._fitted])
            self._space = space.transform(maps)

    def of(self, inside: Bool[np.ndarray, " n"]) -> float | None:
        """Fisher separability J / (1 + J) in [0, 1), J = (μ₁ − μ₀)² / (σ₁² + σ₀²) on the second half.

        The direction has a Ledoit–Wolf shrunken within-scatter. None where a half has too few samples on a side.
        """
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        halves = (self._fitted, self._held)
        counts = [int(side.sum()) for half in halves for side in (inside[half], ~inside[half])]
        if min(counts) < HALF_AT_LEAST or not self._space.shape[1]:
            return None
        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        discriminant.fit(self._space[self._fitted], inside[self._fitted])
        line = discriminant.decision_function(self._space[self._held])
        one, other = line[inside[self._held]], line[~inside[self._held]]
        spread = float(one.var() + other.var())
        ratio = float((one.mean() - other.mean()) ** 2) / spread if spread > 0 else 0.0
        return ratio / (1 + ratio)


def agreement(units: Float[np.ndarray, "m y x"]) -> float:
    """Agreement in place, in [0, 1]: squared norm of the mean unit map, the mean cosine between members."""
    return float(np.square(units.mean(0)).sum()) if len(units) else 0.0


def concentration(mean_map: Float[np.ndarray, "y x"], region: Bool[np.ndarray, "y x"]) -> float:
    """Share of the mean map's positive relevance that lies inside the region."""
    positive = np.clip(mean_map, 0, None)
    total = float(positive.sum())
    return float(positive[region].sum()) / total if total > 0 else 0.0


@dataclass(frozen=True)
class Ranking:
    """The combined suspicion: what the interventions proved, plus a little for what only looks suspicious.

    score = causal + prior_weight · √(separation · agreement), causal = √(net removal · net transplant).

    Without a model at hand the causal part is 0: a suspicion that nobody tested never outranks a proven
    use. A finding is flagged by the causal part alone, where both of its intervals lie above 0.

    Args:
        flag_from: least causal score of a flagged finding. Measured: planted shortcuts 0.18 and above, the
        strongest
            honest strategy 0.09.
        flags_per_class: at most so many findings of a class are flagged.
    """

    prior_weight: float = 0.05
    flag_from: float = 0.12
    flags_per_class: int = 3

    def prior(self, parts: Mapping[str, float | None]) -> float:
        """What can be said without the model, in [0, 1]."""
        return float(np.sqrt((parts.get("separation") or 0.0) * (parts.get("agreement") or 0.0)))

    def score(self, parts: Mapping[str, float | None]) -> float:
        """Suspicion of a finding with these parts."""
        return float(parts.get("causal") or 0.0) + self.prior_weight * self.prior(parts)

    def flags(self, parts: Mapping[str, float | None], certain: bool) -> bool:
        """Whether the finding may be flagged (the number per class is limited apart)."""
        return certain and float(parts.get("causal") or 0.0) >= self.flag_from
