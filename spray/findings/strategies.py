"""From clusters to candidate strategies: pieces of one strategy, which look at the same place or channels, are merged.

Spectral clusters of one strategy come in pieces, by what else is in the picture. What pieces have in common is where
their relevance exceeds that of the rest of the class: their contrast. Who has it is then asked of the whole class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from spray.findings.refinement import Refinement
from spray.findings.regions import TopRegion

NOISE = -1


@dataclass(frozen=True)
class Strategy:
    """Clusters merged into one candidate: its members among the analysed samples, and what they share.

    Attributes:
        mode: how much of a mode of their own the members were found to be; 0 as they were clustered.
        by_content: whether it was by what their images show.
    """

    clusters: tuple[int, ...]
    members: Bool[np.ndarray, " m"]
    region: Bool[np.ndarray, "y x"] | None
    mode: float = 0.0
    by_content: bool = False


def merge(
    labels: Int[np.ndarray, " m"],
    units: Float[np.ndarray, "m ..."],
    region: TopRegion,
    least_likeness: float,
) -> list[Strategy]:
    """Clusters with like contrasts become one strategy; largest first.

    The two most alike are merged, the contrast of their union is taken, and so on until no two are alike by
    ``least_likeness`` (cosine of the positive parts of their contrasts, smoothed over places): a chain of small
    likenesses merges nothing. ``units`` are unit maps, or unit vectors over channels, which have no region; noise (−1)
    belongs to none. Of relevance of other forms each cluster stays by itself.
    """
    names = [int(name) for name in np.unique(labels) if name != NOISE]
    if units.ndim not in (2, 3):
        return [Strategy((name,), labels == name, None) for name in names]
    total = units.sum(axis=0, dtype=np.float64)
    pieces = [
        _Piece((name,), units[labels == name].sum(axis=0, dtype=np.float64), int((labels == name).sum()))
        for name in names
    ]
    directions = [piece.direction(total, len(units), region) for piece in pieces]
    while len(pieces) > 1:
        likeness = np.array(directions) @ np.array(directions).T
        likeness[np.tril_indices(len(pieces))] = -1
        first, second = np.unravel_index(likeness.argmax(), likeness.shape)
        if likeness[first, second] < least_likeness:
            break
        pieces[first] = pieces[first].joined(pieces.pop(second))
        directions.pop(second)
        directions[first] = pieces[first].direction(total, len(units), region)
    merged = []
    for piece in pieces:
        members = np.isin(labels, piece.clusters)
        shared = region.shared(units[members], units[~members]) if units.ndim == 3 else None
        merged.append(Strategy(piece.clusters, members, shared))
    return sorted(merged, key=lambda strategy: (-int(strategy.members.sum()), strategy.clusters))


def refined(
    strategies: Sequence[Strategy],
    units: Float[np.ndarray, "m y x"],
    region: TopRegion,
    refinement: Refinement,
    seed: int,
) -> list[Strategy]:
    """The strategies with the members that their regions show, and with what those share; largest first.

    Members that two refined strategies have in common stay with both: the interventions say whose they are.
    """
    found = []
    for strategy in strategies:
        if strategy.region is not None and strategy.region.any() and not strategy.members.all():
            members, mode = refinement.members(units, strategy.members, strategy.region, seed)
            if mode:
                shared = region.shared(units[members], units[~members])
                strategy = replace(strategy, members=members, region=shared, mode=mode)
        found.append(strategy)
    return sorted(found, key=lambda strategy: (-int(strategy.members.sum()), strategy.clusters))


def distinct(strategies: Sequence[Strategy], likeness: float) -> list[Strategy]:
    """Strategies whose members are alike by this Jaccard index are one: the members of the clearest mode among them.

    Largest first, as they come from their clusters.
    """
    found: list[Strategy] = []
    for strategy in sorted(strategies, key=lambda one: -one.mode):
        twin = next((at for at, one in enumerate(found) if _jaccard(one, strategy) >= likeness), None)
        if twin is None:
            found.append(strategy)
        else:
            clusters = tuple(sorted({*found[twin].clusters, *strategy.clusters}))
            found[twin] = replace(found[twin], clusters=clusters)
    return sorted(found, key=lambda strategy: (-int(strategy.members.sum()), strategy.clusters))


def _jaccard(first: Strategy, second: Strategy) -> float:
    return float((first.members & second.members).sum() / max((first.members | second.members).sum(), 1))


@dataclass(frozen=True)
class _Piece:
    """Clusters merged so far, the sum of their members' maps, and their number."""

    clusters: tuple[int, ...]
    sum: Float[np.ndarray, "*cells"]
    count: int

    def joined(self, other: _Piece) -> _Piece:
        clusters = tuple(sorted(self.clusters + other.clusters))
        return _Piece(clusters, self.sum + other.sum, self.count + other.count)

    def direction(
        self, total: Float[np.ndarray, "*cells"], samples: int, region: TopRegion
    ) -> Float[np.ndarray, " c"]:
        """Where its members have more relevance than the rest, as a vector of length 1 (or 0, if nowhere)."""
        contrast = self.sum / self.count
        if samples > self.count:
            contrast = contrast - (total - self.sum) / (samples - self.count)
        if contrast.ndim == 2:
            contrast = region.smoothed(contrast)
        positive: Float[np.ndarray, " c"] = np.maximum(contrast, 0).ravel()
        return positive / max(float(np.linalg.norm(positive)), np.finfo(float).tiny)
