"""Which strategy of one audit is which of another: one-to-one, by common members or by where their relevance lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from spray.findings.regions import overlap

Shift = tuple[int, int]


@dataclass(frozen=True)
class Traits:
    """What a strategy is told by: members among the common samples, region, and mean map less that of its class.

    A strategy that is nearly its whole class has no contrast, since the difference is noise: ``whole`` is its mean map.
    """

    members: Int[np.ndarray, " k"]
    region: Bool[np.ndarray, "y x"] | None
    contrast: Float[np.ndarray, "y x"] | None
    whole: Float[np.ndarray, "y x"] | None = None


@dataclass(frozen=True)
class Matching:
    """When two strategies are the same, and when they lie at the same place.

    Args:
        jaccard: least share of common members.
        likeness: least mean of the regions' overlap and the maps' cosine, where members cannot be compared.
        place: regions that overlap by this lie at the same place.
        moved: least cosine at the best shift for a strategy to have moved, where members cannot be compared. Two
            strategies that are their whole classes lie at the same place by such a cosine, too.
    """

    jaccard: float = 0.3
    likeness: float = 0.4
    place: float = 0.2
    moved: float = 0.7

    def by_members(self, left: Sequence[Traits], right: Sequence[Traits]) -> list[tuple[int, int]]:
        """Pairs (left, right) that maximise the sum of the Jaccard indices."""
        return self._assigned(
            np.array([[jaccard(one.members, other.members) for other in right] for one in left]), self.jaccard
        )

    def by_maps(self, left: Sequence[Traits], right: Sequence[Traits]) -> list[tuple[int, int, Shift]]:
        """Pairs at the same place first, then, of what is left, those that a shift makes alike; with the shift."""
        alike = np.array([[alikeness(one, other) for other in right] for one in left])
        pairs = [(i, j, (0, 0)) for i, j in self._assigned(alike, self.likeness)]
        taken = {i for i, _, _ in pairs}, {j for _, j, _ in pairs}
        rest = (
            [i for i in range(len(left)) if i not in taken[0]],
            [j for j in range(len(right)) if j not in taken[1]],
        )
        found = {(i, j): best_shift(*comparable(left[i], right[j])) for i in rest[0] for j in rest[1]}
        peaks = np.array([[found[i, j][0] for j in rest[1]] for i in rest[0]])
        for a, b in self._assigned(peaks, self.moved):
            pairs.append((rest[0][a], rest[1][b], found[rest[0][a], rest[1][b]][1]))
        return pairs

    def same_place(self, left: Traits, right: Traits) -> bool:
        """Whether two regions lie at the same place; so where one side has none, since nothing speaks against it."""
        if left.region is None or right.region is None or left.region.shape != right.region.shape:
            return True
        if overlap(left.region, right.region) >= self.place:
            return True
        # The region of a whole class is where its relevance is, of nearly a whole one where the few others have less.
        both = left.whole is not None and right.whole is not None
        return both and (likeness(left, right) or 0.0) >= self.moved

    def _assigned(self, scores: Float[np.ndarray, "a b"], least: float) -> list[tuple[int, int]]:
        if scores.size == 0:
            return []
        pairs = zip(*linear_sum_assignment(-np.where(scores >= least, scores, 0.0)), strict=True)
        return [(int(i), int(j)) for i, j in pairs if scores[i, j] >= least]


def jaccard(left: Int[np.ndarray, " k"], right: Int[np.ndarray, " l"]) -> float:
    """Common members over all members; 0 for two empty sets."""
    common = len(np.intersect1d(left, right))
    return common / max(len(left) + len(right) - common, 1)


def cosine(left: Float[np.ndarray, "y x"], right: Float[np.ndarray, "y x"]) -> float:
    """Cosine of two maps; 0 where one is zero."""
    length = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float((left * right).sum() / length) if length > 0 else 0.0


def comparable(
    left: Traits, right: Traits
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]] | tuple[None, None]:
    """What two strategies are compared by: their contrasts, or their mean maps where both are whole classes."""
    for one, other in ((left.contrast, right.contrast), (left.whole, right.whole)):
        if one is not None and other is not None and one.shape == other.shape:
            return one, other
    return None, None


def likeness(left: Traits, right: Traits) -> float | None:
    """Cosine of the maps that two strategies can be compared by; None without."""
    one, other = comparable(left, right)
    return None if one is None or other is None else cosine(one, other)


def alikeness(left: Traits, right: Traits) -> float:
    """Mean of the regions' overlap and the maps' cosine, of those that both sides have; 0 without any."""
    parts = []
    if left.region is not None and right.region is not None:
        parts.append(overlap(left.region, right.region))
    alike = likeness(left, right)
    return float(np.mean(parts if alike is None else [*parts, alike])) if parts or alike is not None else 0.0


def best_shift(
    left: Float[np.ndarray, "y x"] | None, right: Float[np.ndarray, "y x"] | None
) -> tuple[float, Shift]:
    """The largest cosine of two maps over all shifts within the frame, and the shift (down, right) of the second.

    Positive relevance only: what is taken from elsewhere need not move along.
    """
    if left is None or right is None:
        return 0.0, (0, 0)
    from scipy.signal import correlate2d

    one, other = np.maximum(left, 0), np.maximum(right, 0)
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    if length == 0:
        return 0.0, (0, 0)
    products = correlate2d(other, one, mode="full") / length
    y, x = np.unravel_index(int(products.argmax()), products.shape)
    return float(products.max()), (int(y) - left.shape[0] + 1, int(x) - left.shape[1] + 1)
