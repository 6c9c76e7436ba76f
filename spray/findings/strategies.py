"""From clusters to candidate strategies: pieces of one strategy, which share a region, are merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from spray.findings.regions import TopRegion, coinciding

NOISE = -1


@dataclass(frozen=True)
class Strategy:
    """Clusters merged into one candidate: its members among the analysed samples, and what they share."""

    clusters: tuple[int, ...]
    members: Bool[np.ndarray, " m"]
    region: Bool[np.ndarray, "y x"] | None


def merge(
    labels: Int[np.ndarray, " m"], units: Float[np.ndarray, "m ..."], region: TopRegion, least_overlap: float
) -> list[Strategy]:
    """Clusters whose shared regions coincide (IoU) become one strategy; largest first.

    ``units`` are unit maps; noise (−1) belongs to none. Relevance without two place axes has no region: each of its
    clusters stays by itself.
    """
    names = [int(name) for name in np.unique(labels) if name != NOISE]
    if units.ndim != 3:
        pieces = [Strategy((name,), labels == name, None) for name in names]
    else:
        regions = [region.shared(units[labels == name], units[labels != name]) for name in names]
        pieces = []
        for group in coinciding(regions, least_overlap):
            members = np.isin(labels, [names[i] for i in group])
            shared = region.shared(units[members], units[~members])
            pieces.append(Strategy(tuple(names[i] for i in group), members, shared))
    return sorted(pieces, key=lambda piece: (-int(piece.members.sum()), piece.clusters))
