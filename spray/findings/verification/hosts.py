"""Independence of the host image: does the transplant work on any image, or only on those that are half there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

from stores.provenance import Json

HOSTS_OF_A_CLASS = 3
"""Fewer hosts say nothing about their class."""
CLASSES = 3
"""Fewer classes of hosts say nothing about the others."""
SOME = 0.25
"""Of the mean rise: hosts that rise by less are as good as not moved, and the mean is owed to the others."""


@dataclass(frozen=True)
class HostIndependence:
    """On how many hosts, and kinds of hosts, the transplant works."""

    classes: float | None
    """Share of the hosts' classes where the mean rise is above 0; None where fewer than ``CLASSES`` are known."""
    hosts: float
    """Share of the hosts that rise by at least ``SOME`` of the mean rise."""

    def holds(self, share: float) -> bool:
        """Whether it works on more than this share of the hosts, and on this share of their classes where known."""
        return self.hosts > share and (self.classes is None or self.classes >= share)

    def to_json(self) -> dict[str, Json]:
        """For the store."""
        return asdict(self)


def host_independence(
    labels: Int[np.ndarray, " h"],
    rise: Float[np.ndarray, " h"],
    controls: Mapping[str, Float[np.ndarray, " h"]],
) -> HostIndependence:
    """From the hosts' labels (−1: unknown), their rises in log-odds, and each control's.

    In log-odds, since the same evidence moves the probability of an unlikely class by less.
    """
    if len(rise) < 2:
        return HostIndependence(None, 0.0)
    beyond = np.min([rise, *(rise - control for control in controls.values())], axis=0)
    known = [label for label in np.unique(labels) if label >= 0]
    means = [
        float(beyond[labels == label].mean())
        for label in known
        if (labels == label).sum() >= HOSTS_OF_A_CLASS
    ]
    share = float(np.mean(np.array(means) > 0)) if len(means) >= CLASSES else None
    moved = float((beyond >= SOME * beyond.mean()).mean()) if beyond.mean() > 0 else 0.0
    return HostIndependence(share, moved)
