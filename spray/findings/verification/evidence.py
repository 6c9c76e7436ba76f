"""What interventions showed of a candidate, and what is asked of it before it counts as proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spray.findings.verification.effects import Effect
from spray.findings.verification.hosts import HostIndependence
from spray.findings.verification.judge import LOGIT
from stores.provenance import Json

FIXED, SPREAD, MOVING, CHANNELS = "fixed", "spread", "moving", "channels"
"""Where a region is: at one place, all over the picture, in each sample at its most relevant place, or among channels.
"""

TESTED, SIGNIFICANCE = "tested on the other half", "significance"
NECESSITY, SUFFICIENCY = "necessity", "sufficiency"
APART = "members that stand apart"
COMPARED = "a comparison with the rest of the class"
COMPARED_AT_LEAST = 5
"""Others of the class with which members are compared: fewer show no difference that chance would not."""
USUAL = 0.95
"""A member's relevance lies in a region if it has more there than this share of the rest of the class."""


@dataclass(frozen=True)
class Evidence:
    """Effects of one candidate's interventions.

    Attributes:
        region: the shared places or channels; for a moving one the mean of where it was.
        where: ``FIXED``, ``SPREAD``, ``MOVING`` or ``CHANNELS``.
        candidate: whether half A made it a candidate, so that it was tested on half B. The effects of others are those
            on half A, with fewer controls: an upper bound that did not suffice.
        flip_rates: share of hosts that become the class, by "shared" and by control.
        pasted_on: how many hosts there were.
        hosts, moved: independence of the host, and the effect of pasting beside the place; None where not measured.
        pictures: a few inputs before and after.
        rows: the members that were tested, of both halves: those whose relevance lies in the region.
        members: how many there were with the others, as they were clustered.
        mode: the share of them that are a mode of their own by their relevance in the region or, if that is more, by
            what their images show there, held out; None where that was not looked at, 0 where there is no rest of the
            class to stand apart from.
        by_content: whether the region is where the members' content differs, not where they have relevance.
    """

    region: Bool[np.ndarray, ...]
    where: str
    candidate: bool
    removal: Effect
    transplant: Effect
    flip_rates: Mapping[str, float]
    pasted_on: int
    hosts: HostIndependence | None = None
    moved: Effect | None = None
    pictures: Mapping[str, Float[Tensor, "n c h w"]] = field(default_factory=dict)
    rows: Int[np.ndarray, " m"] = field(default_factory=lambda: np.zeros(0, np.int64))
    members: int = 0
    mode: float | None = None
    by_content: bool = False

    @property
    def compared(self) -> int:
        """With how many others of the class, at least, both effects are compared."""
        return min(effect.compared("matched") for effect in (self.removal, self.transplant))

    @property
    def promising(self) -> float:
        """√(removal · transplant) before controls, but no more than what goes beyond them in log-odds can make."""
        least = [
            min(effect.possible(way) for way in effect.ways) for effect in (self.removal, self.transplant)
        ]
        return float(np.sqrt(max(least[0], 0) * max(least[1], 0)))

    @property
    def score(self) -> float:
        """√(net removal · net transplant), each on a scale that ends at 1; 0 where either is not positive."""
        return float(np.sqrt(max(self.removal.size, 0) * max(self.transplant.size, 0)))

    @property
    def p_value(self) -> float:
        """Of the null that the region is not necessary or not sufficient: the larger of both."""
        return max(self.removal.p_value, self.transplant.p_value)

    def to_json(self, requirements: Requirements) -> dict[str, Json]:
        """For the store."""
        content: dict[str, Json] = {
            "score": self.score,
            "where": self.where,
            "region_by": "content" if self.by_content else "relevance",
            "candidate": self.candidate,
            "carriers": len(self.rows),
            "clustered": self.members,
            "p_value": self.p_value if self.candidate else None,
            "unmet": list(requirements.unmet(self)),
            "removal": self.removal.to_json(self.candidate),
            "transplant": self.transplant.to_json(self.candidate),
            "flip_rate": self.flip_rates["shared"],
            "flip_rates": dict(self.flip_rates),
            "pasted_on": self.pasted_on,
            "mode": self.mode,
        }
        if self.hosts is not None:
            content["hosts"] = self.hosts.to_json()
        if self.moved is not None:
            content["jittered"] = {"mean": self.moved.mean, "images": len(self.moved.ways["jittered"])}
        return content


@dataclass(frozen=True)
class Requirements:
    """What a finding must show to be confirmed: fixed beforehand, all of it.

    Args:
        necessity: least net effect of removal.
        sufficiency: least net effect of transplant.
        log_odds: where log-odds decide, least net effect of transplant, and least effect of removal beyond what the
            same does elsewhere.
        score: least √(necessity · sufficiency). Measured in audits of Fashion-MNIST: plants at 5 % and more 0.09 to
            0.31, weak ones at 1 % 0.07 and 0.10; on 14 clean models one of a fixed region 0.098, the next 0.059.
        moving: the same where the region moves: every sample's own best region carries some of its class, and clusters
            gather the samples in which it carries more. And where it is all over the picture: large regions carry more.
        alpha: level of the tests; of q-values where many candidates are tested.
        fills: so many ways of removing have to agree (all that were tried do).
        mode: least share of the members that are a mode of their own (``Evidence.mode``). What was added to some images
            is there or not; honest features come by degrees (sleeves are of any length), and clusters cut them where
            they like: a cut has no valley before it. Their strongest in use are both necessary and sufficient, too.
            Measured: tags and borders 0.7 to 1.0, texts and a real watermark 0.43 to 0.85; of five honest findings
            that met all else four at most 0.03, one 0.58.
        hosts: the transplant works on more than this share of the hosts, and on this share of their classes where three
                are known.
    """

    necessity: float = 0.03
    sufficiency: float = 0.03
    log_odds: float = 1.0
    score: float = 0.08
    moving: float = 0.15
    alpha: float = 0.05
    fills: int = 2
    mode: float = 0.4
    hosts: float = 0.5

    def unmet(self, evidence: Evidence) -> tuple[str, ...]:
        """What is missing, in words; nothing: proven, as far as a single test can tell."""
        hosts, removal, pasted = evidence.hosts, evidence.removal, evidence.transplant
        checks = {
            TESTED: evidence.candidate,
            NECESSITY: self._reaches(removal, self.necessity, removal.beyond),
            SUFFICIENCY: self._reaches(pasted, self.sufficiency, pasted.net),
            "size of the effect": evidence.score
            >= (self.moving if evidence.where in {SPREAD, MOVING} else self.score),
            SIGNIFICANCE: evidence.candidate and evidence.p_value <= self.alpha,
            "agreement of fills": len(evidence.removal.ways) >= self.fills,
            COMPARED: evidence.compared >= COMPARED_AT_LEAST,
            APART: evidence.mode is None or evidence.mode >= self.mode,
            "independence of the host": hosts is not None and hosts.holds(self.hosts),
        }
        return tuple(name for name, met in checks.items() if not met)

    def _reaches(self, effect: Effect, least: float, log_odds: float) -> bool:
        if effect.measure == LOGIT:
            return effect.net > 0 and log_odds >= self.log_odds
        return effect.size >= least
