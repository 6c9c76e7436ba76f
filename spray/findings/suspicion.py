"""The rank of findings: how their scores are combined into one suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """The combined suspicion: what the interventions proved, plus a little for what only looks suspicious.

    score = causal + prior_weight · √(separation · agreement), causal = √(net removal · net transplant).

    Without a model at hand the causal part is 0: a suspicion that nobody tested never outranks a proven
    use. Findings are flagged that are confirmed (``Requirements``), the most suspicious of each class.

    Args:
        flags_per_class: at most so many findings of a class are flagged.
    """

    prior_weight: float = 0.05
    flags_per_class: int = 3

    def prior(self, parts: Mapping[str, float | None]) -> float:
        """What can be said without the model, in [0, 1]."""
        return float(np.sqrt((parts.get("separation") or 0.0) * (parts.get("agreement") or 0.0)))

    def score(self, parts: Mapping[str, float | None]) -> float:
        """Suspicion of a finding with these parts."""
        return float(parts.get("causal") or 0.0) + self.prior_weight * self.prior(parts)
