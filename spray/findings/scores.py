"""Scores of a finding: each one number with a meaning of its own, listed by name at the foot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from spray.findings.halves import crossed_halves
from spray.findings.verification import Evidence
from stores import GroupAnalysis

DIMENSIONS = 20
"""Dimensions of the PCA space in which separation is measured: more than the strategies of a class ever span."""
COVARIANCE_UP_TO = 2000
"""Dimensions up to which PCA solves the covariance exactly, which is then the faster way."""
HALF_AT_LEAST = 3
ROUNDING = 1e-6
"""Maps that differ by no more than this part of their largest entry are one and the same."""
RIM = 0.1
"""Width of the border, as a share of the picture's side."""
COMPARED = 500
"""At most so many members are looked through for twins."""
ALIKE = 0.995
"""Correlation of two pictures from which on they are one, saved twice."""


class Separability:
    """How well clusters of one class stand apart from the rest of it, on samples that the measure was not fitted on.

    The class is halved once; both halves are seen in the PCA space of the first.

    Source: Anders et al. 2022 (Fisher discriminant as a ranking of clusters), held out and shrunken here.
    """

    def __init__(self, maps: Float[np.ndarray, "n d"], seed: int) -> None:
        from sklearn.decomposition import PCA

        (self._fitted, self._held), _ = crossed_halves(len(maps), seed)
        dimensions = min(DIMENSIONS, maps.shape[1], len(self._fitted) - 1)
        self._space: Float[np.ndarray, "n k"] = np.zeros((len(maps), 0))
        spread = np.ptp(maps[self._fitted], axis=0) if dimensions >= 1 else np.zeros(1)
        if spread.max() > ROUNDING * np.abs(maps).max():
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
    correct: Bool[np.ndarray, " m"] | None = None
    """Whether each sample is classified right; None where labels are unknown."""
    stability: float | None = None
    """Mean stability of the members' clusters over resamples; None where it was not measured."""
    objects: Float[np.ndarray, "m y x"] | None = None
    """Which share of each cell is the object; None where neither masks nor boxes are given."""
    digests: Int[np.ndarray, " m"] | None = None
    thumbnails: Callable[[Int[np.ndarray, " k"]], UInt8[np.ndarray, "k y x c"] | None] = lambda rows: None
    """Small pictures of some samples, by their place among the analysed ones."""


def causal(suspect: Suspect) -> float | None:
    """√(necessity · sufficiency); 0 where either is not positive."""
    return None if suspect.evidence is None else suspect.evidence.score


def necessity(suspect: Suspect) -> float | None:
    """How much removing the region lowers P(class) net of controls, as it counts (``Effect.size``)."""
    return None if suspect.evidence is None else suspect.evidence.removal.size


def sufficiency(suspect: Suspect) -> float | None:
    """How much pasting the region raises P(class) elsewhere net of controls, as it counts (``Effect.size``)."""
    return None if suspect.evidence is None else suspect.evidence.transplant.size


def mode(suspect: Suspect) -> float | None:
    """Share of the tested members that are a mode of their own, by relevance or by content; None if not tested."""
    return None if suspect.evidence is None else suspect.evidence.mode


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


def stability(suspect: Suspect) -> float | None:
    """Would the members' clusters be found again? Mean Jaccard index over resamples, weighted by size."""
    return suspect.stability


def border(suspect: Suspect) -> float | None:
    """Share of the members' positive relevance in the outer tenth of the picture, on any side."""
    if suspect.units.ndim != 3 or not suspect.members.any():
        return None
    height, width = suspect.units.shape[1:]
    deep = (max(1, round(RIM * height)), max(1, round(RIM * width)))
    rim = np.ones((height, width), bool)
    rim[deep[0] : height - deep[0], deep[1] : width - deep[1]] = False
    return _share_inside(suspect.units[suspect.members], rim.astype(np.float64))


def outside_object(suspect: Suspect) -> float | None:
    """Share of the members' positive relevance outside the object; None where no masks or boxes are given."""
    if suspect.objects is None or suspect.units.ndim != 3:
        return None
    known = suspect.members & np.isfinite(suspect.objects).all((1, 2))
    return _share_inside(suspect.units[known], 1 - suspect.objects[known]) if known.any() else None


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


def accuracy(suspect: Suspect) -> float | None:
    """Share of the members that are classified right."""
    return _mean(suspect.correct, suspect.members)


def accuracy_of_rest(suspect: Suspect) -> float | None:
    """Share of the rest of the class that is classified right."""
    return _mean(suspect.correct, ~suspect.members)


def duplicates(suspect: Suspect) -> float | None:
    """Share of the members that have a near-identical twin among them: same input, or pictures that correlate.

    Of many members some are asked, each for its twins among all.
    """
    places = np.flatnonzero(suspect.members)
    if suspect.digests is None or not len(places):
        return None
    asked = np.arange(0, len(places), -(-len(places) // COMPARED))
    _, codes, counts = np.unique(suspect.digests[places], return_inverse=True, return_counts=True)
    twin = counts[codes][asked] > 1
    pictures = suspect.thumbnails(places[asked])
    if pictures is None:
        return float(twin.mean())
    patterns = _patterns(pictures)
    for start in range(0, len(places), COMPARED):
        block = np.arange(start, min(start + COMPARED, len(places)))
        others = suspect.thumbnails(places[block])
        assert others is not None
        alike = patterns @ _patterns(others).T
        alike[asked[:, None] == block] = 0
        twin |= alike.max(1) >= ALIKE
    return float(twin.mean())


def _patterns(pictures: UInt8[np.ndarray, "k y x c"]) -> Float[np.ndarray, "k d"]:
    """Each of mean 0 and length 1, so that products are correlations; of one brightness all over: 0."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def share(suspect: Suspect) -> float | None:
    """Members among the analysed samples of the class."""
    return float(suspect.members.mean())


def _share_inside(units: Float[np.ndarray, "k y x"], weights: Float[np.ndarray, "#k y x"]) -> float:
    """Share of the positive relevance of all maps together that falls on the weights."""
    positive = np.clip(units, 0, None)
    total = float(positive.sum())
    return float((positive * weights).sum()) / total if total > 0 else 0.0


def _mean(
    values: Float[np.ndarray, " m"] | Bool[np.ndarray, " m"] | None, chosen: Bool[np.ndarray, " m"]
) -> float | None:
    return float(values[chosen].mean()) if values is not None and chosen.any() else None


SCORES: dict[str, Callable[[Suspect], float | None]] = {
    score.__name__: score
    for score in (
        causal,
        necessity,
        sufficiency,
        mode,
        separation,
        agreement,
        concentration,
        stability,
        border,
        outside_object,
        gap_over_null,
        accuracy,
        accuracy_of_rest,
        confidence,
        confidence_of_rest,
        duplicates,
        share,
    )
}
"""Scores by name: every finding has all of them as parts, None where one does not apply, and beside them
``ASSOCIATION``, which needs the findings of all classes."""
ASSOCIATION = "association"
"""Strongest association of membership with a metadata column that is significant after correction; 0 if none is."""
