"""Independence of the host image: does the transplant work on any image, or only on those that are half there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

from spray.findings.verification.significance import sign_flip
from stores.provenance import Json

HOSTS_OF_A_CLASS = 3
"""Fewer hosts say nothing about their class."""
CLASSES = 3
"""Fewer classes of hosts say nothing about the others."""
SOME = 0.25
"""Of the mean rise: hosts that rise by less are as good as not moved, and the mean is owed to the others."""


@dataclass(frozen=True)
class HostIndependence:
    """The transplant's rise in log-odds, beyond a control's if given, on different kinds of hosts.

    In log-odds, since the same evidence moves the probability of an unlikely class by less.
    """

    low: float
    """Mean over the half of the hosts that the model takes least for the class."""
    high: float
    """Mean over the other half."""
    p_value: float
    """The larger of both halves' sign-flip p-values."""
    classes: float | None
    """Share of the hosts' classes where the mean is above 0; None where fewer than ``CLASSES`` are known."""
    hosts: float
    """Share of the hosts that rise by at least ``SOME`` of the mean rise."""

    def holds(self, alpha: float, share: float) -> bool:
        """Whether it works on most hosts, and on most of their classes; where those are not known, on both halves."""
        anywhere = self.p_value <= alpha if self.classes is None else self.classes >= share
        return self.hosts > share and anywhere

    def to_json(self) -> dict[str, Json]:
        """For the store."""
        return asdict(self)


def host_independence(
    before: Float[np.ndarray, " h"],
    labels: Int[np.ndarray, " h"],
    rise: Float[np.ndarray, " h"],
    controls: Mapping[str, Float[np.ndarray, " h"]],
    seed: int,
    permutations: int,
) -> HostIndependence:
    """From the hosts' log-odds before, labels (−1: unknown), rises, and each control's rises (NaN: not measured)."""
    if len(rise) < 2:
        return HostIndependence(0.0, 0.0, 1.0, None, 0.0)
    order = np.argsort(before, kind="stable")
    nets, p_values = [], []
    for half in np.array_split(order, 2):
        differences = [rise[half]] + [rise[half] - control[half] for control in controls.values()]
        usable = [known[~np.isnan(known)] for known in differences]
        nets.append(min(float(known.mean()) for known in usable if len(known)))
        p_values.append(max(sign_flip(known, seed, permutations) for known in usable if len(known)))
    beyond = np.nanmin([rise, *(rise - _mean_filled(control) for control in controls.values())], axis=0)
    known = [label for label in np.unique(labels) if label >= 0]
    means = [
        float(beyond[labels == label].mean())
        for label in known
        if (labels == label).sum() >= HOSTS_OF_A_CLASS
    ]
    share = float(np.mean(np.array(means) > 0)) if len(means) >= CLASSES else None
    moved = float((beyond >= SOME * beyond.mean()).mean()) if beyond.mean() > 0 else 0.0
    return HostIndependence(nets[0], nets[1], max(p_values), share, moved)


def _mean_filled(values: Float[np.ndarray, " h"]) -> Float[np.ndarray, " h"]:
    """Its mean where it was not measured."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), known.mean() if len(known) else -np.inf, values)
