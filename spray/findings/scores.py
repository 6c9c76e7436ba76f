"""Scores of a finding: each one number with a meaning of its own, listed by name at the foot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from spray.findings.verification import Evidence
from stores import GroupAnalysis

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


@dataclass(frozen=True)
class Suspect:
    """One finding among the ``m`` analysed samples of its class: all that a score may look at."""

    members: Bool[np.ndarray, " m"]
    units: Float[np.ndarray, "m ..."]
    """Relevance of all samples, each of L2 norm 1 where it has place."""
    region: Bool[np.ndarray, "y x"] | None
    """The shared region; None for relevance without place."""
    evidence: Evidence | None
    """What interventions showed; None if there were none."""
    result: GroupAnalysis
    separability: Separability
    probability: Float[np.ndarray, " m"] | None
    """P(class) of each sample; None in a joint analysis."""


def causal(suspect: Suspect) -> float | None:
    """√(net removal · net transplant), in probability."""
    return None if suspect.evidence is None else suspect.evidence.score


def necessity(suspect: Suspect) -> float | None:
    """How much removing the region lowers P(class), less the strongest control."""
    return None if suspect.evidence is None else suspect.evidence.removal.net


def sufficiency(suspect: Suspect) -> float | None:
    """How much pasting the region raises P(class) elsewhere, less the strongest control."""
    return None if suspect.evidence is None else suspect.evidence.transplant.net


def separation(suspect: Suspect) -> float | None:
    """Held-out Fisher separability of the members from the rest of the class, in [0, 1)."""
    return suspect.separability.of(suspect.members)


def agreement(suspect: Suspect) -> float | None:
    """Agreement in place, in [0, 1]: the mean cosine between two members' maps."""
    if suspect.region is None or not suspect.members.any():
        return None
    return float(np.square(suspect.units[suspect.members].mean(0)).sum())


def concentration(suspect: Suspect) -> float | None:
    """Share of the members' mean positive relevance that lies inside the region."""
    if suspect.region is None or not suspect.members.any():
        return None
    positive = np.clip(suspect.units[suspect.members].mean(0), 0, None)
    total = float(positive.sum())
    return float(positive[suspect.region].sum()) / total if total > 0 else 0.0


def gap_over_null(suspect: Suspect) -> float | None:
    """The class's relative eigengap less the null's: how much clearer its groups are than those of noise."""
    null = suspect.result.eigengap.get("null")
    if not isinstance(null, Mapping):
        return None
    tested, expected = null.get("tested_gap"), null.get("gap")
    if not isinstance(tested, int | float) or not isinstance(expected, int | float):
        return None
    return float(tested) - float(expected)


def confidence(suspect: Suspect) -> float | None:
    """Mean P(class) of the members."""
    return _mean(suspect.probability, suspect.members)


def confidence_of_rest(suspect: Suspect) -> float | None:
    """Mean P(class) of the rest of the class."""
    return _mean(suspect.probability, ~suspect.members)


def share(suspect: Suspect) -> float | None:
    """Members among the analysed samples of the class."""
    return float(suspect.members.mean())


def _mean(values: Float[np.ndarray, " m"] | None, chosen: Bool[np.ndarray, " m"]) -> float | None:
    return float(values[chosen].mean()) if values is not None and chosen.any() else None


SCORES: dict[str, Callable[[Suspect], float | None]] = {
    score.__name__: score
    for score in (
        causal,
        necessity,
        sufficiency,
        separation,
        agreement,
        concentration,
        gap_over_null,
        confidence,
        confidence_of_rest,
        share,
    )
}
"""Scores by name: every finding has all of them as parts, None where one does not apply."""
