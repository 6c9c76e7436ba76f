"""The rank of findings: how their scores are combined into one suspicion, or which other rank the user wishes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from stores.provenance import TUNING

Parts = Mapping[str, float | None]


class Rank(Protocol):
    """Gives each finding its suspicion, from its parts; a frozen dataclass, whose fields are its provenance."""

    @property
    def flags_per_class(self) -> int:
        """At most so many confirmed findings of a class are flagged, the most suspicious."""
        ...

    def score(self, parts: Parts) -> float:
        """Suspicion of a finding with these parts."""
        ...


@dataclass(frozen=True)
class Ranking:
    """The combined suspicion: what the interventions proved, plus a little for what only looks suspicious.

    score = causal · apart + prior_weight · √(separation · agreement), causal = √(net removal · net transplant),
    apart = the larger of two shares: Fisher's ratio of the members against the rest of the class by that of
    ``separation``, at most 1, and the share of the tested members that are a mode of their own (``Evidence.mode``).
    What is used by degrees is less of a suspicion than what is there or not, which relevance or content may show.

    Without a model at hand the causal part is 0: a suspicion that nobody tested never outranks a proven
    use. Findings are flagged that are confirmed (``Requirements``), the most suspicious of each class.

    Args:
        separation: separability from which on the causal part counts in full.
        flags_per_class: at most so many findings of a class are flagged.
    """

    prior_weight: float = 0.05
    separation: float = 0.9
    flags_per_class: int = 3

    def apart(self, parts: Parts) -> float:
        """How much of the causal part counts, in [0, 1]; none of it without a rest of the class to stand apart from."""
        known = parts.get("separation")
        if known is None:
            return 0.0
        return max(min(1.0, _fisher_ratio(known) / _fisher_ratio(self.separation)), parts.get("mode") or 0.0)

    def prior(self, parts: Parts) -> float:
        """What can be said without the model, in [0, 1]."""
        return float(np.sqrt((parts.get("separation") or 0.0) * (parts.get("agreement") or 0.0)))

    def score(self, parts: Parts) -> float:
        """Suspicion of a finding with these parts."""
        return float(parts.get("causal") or 0.0) * self.apart(parts) + self.prior_weight * self.prior(parts)


@dataclass(frozen=True)
class Weighted:
    """A weighted sum of parts, by name; a part that a finding lacks counts as 0."""

    weights: tuple[tuple[str, float], ...]
    flags_per_class: int = 3

    def score(self, parts: Parts) -> float:
        """Suspicion of a finding with these parts."""
        return float(sum(weight * (parts.get(name) or 0.0) for name, weight in self.weights))


@dataclass(frozen=True)
class OwnRank:
    """A function of the parts. Its name stands in the provenance, with a digest of the scores that it gave.

    The code of a function does not tell what it depends on (defaults, closures, globals), so findings are ranked anew
    in each call; the interventions are not done anew.
    """

    function: Callable[[Parts], float] = field(metadata=TUNING)
    flags_per_class: int = 3
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        object.__setattr__(self, "identity", f"{named.__module__}:{named.__qualname__}")

    def score(self, parts: Parts) -> float:
        """Suspicion of a finding with these parts.

        Raises:
            ValueError: the function gives no finite number.
        """
        given: object = self.function(parts)
        if not isinstance(given, int | float | np.number) or not np.isfinite(given):
            raise ValueError(
                f"The rank {self.identity} gives {given!r} for a finding with the parts {dict(parts)}, expected a "
                "finite number. A part that a finding lacks is None."
            )
        return float(given)


def _fisher_ratio(separability: float) -> float:
    """Distance of the means, squared, over the sum of the variances: from r / (1 + r)."""
    return separability / max(1 - separability, 1e-12)


COMBINED = "combined"


def rank_of(text: str, known: Mapping[str, object]) -> Rank:
    """The rank that a text names: "combined", one score, or weights such as "causal=1,separation=0.2".

    Raises:
        ValueError: a score is none of the known or comes twice, or a weight is no number.
    """
    if text == COMBINED:
        return Ranking()
    weights: list[tuple[str, float]] = []
    for entry in text.split(","):
        name, _, weight = (part.strip() for part in entry.partition("="))
        if name not in known:
            raise ValueError(
                f"rank: there is no score '{name}'. Give '{COMBINED}', one score, or weights such as "
                f"'causal=1,separation=0.2'; scores are {', '.join(known)}."
            )
        try:
            value = float(weight) if weight else 1.0
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"rank: the weight of '{name}' is '{weight}', expected a number.")
        if name in dict(weights):
            raise ValueError(f"rank: the score '{name}' has two weights; give it one.")
        weights.append((name, value))
    return Weighted(tuple(weights))
