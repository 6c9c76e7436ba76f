"""Findings in words: short, hedged sentences made from the numbers, never from what anybody hopes to read."""

from __future__ import annotations

from collections.abc import Mapping

from spray.findings.regions import describe_place
from spray.findings.verification.evidence import (
    MOVING,
    NECESSITY,
    SIGNIFICANCE,
    SPREAD,
    SUFFICIENCY,
    TESTED,
    USUAL,
)
from stores import Finding
from stores.provenance import Json

SIGNIFICANT = 0.05
ENOUGH = 0.5
"""Content pasted beside its place still works if it keeps this much of its effect."""
FEW = 20
"""Of fewer comparisons an interval is told with their number."""
DENSER = 1.5
"""Relevance lies in a region if it is at least so many times as dense there as over the whole picture."""
SCREENED = (
    "Too little showed on one half of the samples to test it on the other; its figures are upper bounds."
)


def summary(finding: Finding, class_size: int, group_name: str, target_name: str = "") -> str:
    """The finding in plain words: samples of the group ``group_name``, tested for the class ``target_name``.

    Both are the same unless relevance explains another class than the one by which samples are grouped.
    """
    evidence = finding.evidence
    of_class = f"'{group_name}' samples" if finding.group >= 0 else "samples of all classes"
    sentences = [f"{len(finding.rows):,} of {class_size:,} {of_class}.", _shared(finding)]
    if "removal" not in evidence:
        sentences += ["Not tested by intervention: a suspicion only.", *finding.notes]
    else:
        words = _Words(evidence, target_name or group_name)
        sentences += [
            words.measured(),
            words.removal(),
            words.transplant(),
            words.beside(),
            words.verdict(finding.flagged),
        ]
    sentences.insert(2, _association(evidence))
    return " ".join(sentence for sentence in sentences if sentence)


def _association(evidence: Mapping[str, Json]) -> str:
    """The strongest association with a metadata column, where one is significant."""
    found = evidence.get("associations")
    known = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    significant = [one for one in known if _number(one.get("q_value", 1.0)) <= SIGNIFICANT]
    if not significant:
        return ""
    best = max(significant, key=lambda one: _number(one["effect"]))
    return (
        f"Membership goes with '{best['column']}' ({best['test']}, effect {_number(best['effect']):.2f}, "
        f"{_q(_number(best['q_value']))})."
    )


def _shared(finding: Finding) -> str:
    channels, concentration = finding.evidence.get("channels"), finding.parts.get("concentration")
    if isinstance(channels, list):
        shown = f"{', '.join(map(str, channels[:8]))}{', …' * (len(channels) > 8)}"
        return f"They share {len(channels)} channel{'s' * (len(channels) != 1)}: {shown}."
    if finding.evidence.get("where") == MOVING:
        return "What they share has no fixed place: each is tested by its own most relevant region."
    region = finding.region
    if region is None or not region.any() or concentration is None:
        return ""
    area = float(region.mean())
    if finding.evidence.get("where") == SPREAD:
        return (
            "What they share has no small region: it lies all over the picture, and they are tested where their images "
            f"differ from the rest of the class, in {_percent(area, 1)} of the area."
        )
    if concentration < DENSER * area:
        return (
            f"Their relevance has no place in common: the region that tells them best, {_percent(area, 1)} of the "
            f"area, holds {_percent(concentration)} of it."
        )
    return (
        f"Their shared relevance lies {describe_place(region)}: {_percent(concentration)} of it in "
        f"{_percent(area, 1)} of the area."
    )


class _Words:
    """Sentences about the interventions of one finding."""

    def __init__(self, evidence: Mapping[str, Json], class_name: str) -> None:
        self.evidence, self.class_name = evidence, class_name
        removal, transplant = evidence["removal"], evidence["transplant"]
        assert isinstance(removal, Mapping) and isinstance(transplant, Mapping)
        self.removed, self.pasted = removal, transplant
        self.channels = "channels" in evidence
        self.in_probability = removal.get("measure") != "logit"
        self.scale = f"P({class_name})" if self.in_probability else f"the log-odds of '{class_name}'"

    def measured(self) -> str:
        """Of how many, where not of any members: those whose relevance does not lie there cannot lose it there."""
        carriers, members = (_number(self.evidence.get(name, 0)) for name in ("carriers", "clustered"))
        if not 0 < carriers < members:
            return ""
        tested = _number(self.removed["images"])
        some = f"{tested:.0f} of the {carriers:.0f}" if tested < carriers else f"the {carriers:.0f}"
        where = "in them" if self.channels else "there"
        return (
            f"What follows is measured on {some} of its {members:.0f} clustered samples that have more relevance "
            f"{where} than {_percent(USUAL)} of the rest."
        )

    def removal(self) -> str:
        """What removing did, and removing as much of others; in log-odds, too, where others are compared only so."""
        kind = "channels" if self.channels else "regions"
        matched = _matched(self.removed.get("controls"), f"matched {kind} of other samples")
        doing = "Suppressing them" if self.channels else "Removing it"
        did = _did(self.removed, self.scale, "lowers", "raises", matched, self._compared(self.removed))
        log_odds, elsewhere = self.removed.get("log_odds"), self.removed.get("elsewhere")
        if not self.in_probability or not isinstance(log_odds, Mapping) or not elsewhere:
            return f"{doing} {did}."
        matched = _matched(log_odds["controls"], f"matched {kind}")
        return f"{doing} {did}; it {_moves(log_odds, 'the log-odds', 'lowers', 'raises')}{matched}."

    def _compared(self, effect: Mapping[str, Json]) -> str:
        """What the effect is net of on its own scale, in words; empty where it is compared with no control."""
        controls, elsewhere = effect.get("controls"), effect.get("elsewhere")
        named = set(controls) if isinstance(controls, Mapping) else set()
        others = set(map(str, elsewhere)) if isinstance(elsewhere, list) and self.in_probability else set()
        if not named - others:
            return ""
        return f"net of the strongest control{' on the same samples' if others else ''}"

    def transplant(self) -> str:
        """What pasting did, and what pasting as much of others did."""
        rates, matched = self.evidence.get("flip_rates"), ""
        if isinstance(rates, Mapping) and "matched" in rates:
            kind = "channels" if self.channels else "patches"
            matched = f" (matched {kind}: {_percent(_number(rates['matched']))})"
        hosts = _number(self.evidence.get("pasted_on", self.pasted["images"]))
        doing = "Injecting them into" if self.channels else "Pasting it on"
        net = "net" if self._compared(self.pasted) else ""
        did = _did(self.pasted, self.scale, "raises", "lowers", "", net)
        return (
            f"{doing} {hosts:,.0f} samples of other classes {did}, and turns "
            f"{_percent(_number(self.evidence['flip_rate']))} of them into '{self.class_name}'{matched}."
        )

    def beside(self) -> str:
        """Whether the content works beside its place."""
        moved = self.evidence.get("jittered")
        mean = _number(self.pasted["mean"])
        if not isinstance(moved, Mapping) or mean <= 0 or self.evidence.get("where") == MOVING:
            return ""  # what has no place of its own has nothing beside it
        kept = _number(moved["mean"]) / mean
        if kept < 0:
            return "A little beside its place it does not work."
        works = "still works" if kept >= ENOUGH else "works less"
        return f"A little beside its place it {works} ({_percent(kept)})."

    def verdict(self, flagged: bool) -> str:
        """What follows, and no more."""
        what = "these channels" if self.channels else "this region"
        q, unmet = self.evidence.get("q_value"), self.evidence.get("unmet")
        if self.evidence.get("confirmed") is True:
            level = "" if q is None else f" ({_q(_number(q))})"
            rank = "" if flagged else " Not among the most suspicious of its class, which are flagged."
            return f"Confirmed{level}: the model uses {what} by itself; whether it may is for you to judge.{rank}"
        missing = [str(name) for name in unmet] if isinstance(unmet, list) else ["necessity"]
        half = ""
        if TESTED in missing:
            half = f" {SCREENED}"
            missing = [name for name in missing if name not in {TESTED, SIGNIFICANCE}]
        if {NECESSITY, SUFFICIENCY} & set(missing):
            return f"Not shown to be both necessary and sufficient.{half}"
        if missing or half:
            lacks = f"; it lacks {', '.join(missing)}" if missing else ""
            return f"Not confirmed{lacks}.{half}"
        return "Not confirmed: too many candidates for its significance."


def _matched(controls: Json, what: str) -> str:
    """The relevance-matched control's mean in brackets, where there is one."""
    if not isinstance(controls, Mapping) or "matched" not in controls:
        return ""
    return f" ({what}: {_signed(_number(controls['matched']))})"


def _moves(effect: Mapping[str, Json], scale: str, up: str, down: str) -> str:
    mean = _number(effect["mean"])
    return f"{up if round(mean, 2) >= 0 else down} {scale} by {abs(mean):.2f}"


def _did(effect: Mapping[str, Json], scale: str, up: str, down: str, matched: str, net: str) -> str:
    """What was done, and the ``net`` effect with its interval; without a control that is the effect itself."""
    moves = _moves(effect, scale, up, down)
    if net:
        return f"{moves}{matched}, {net} {_net(effect)}"
    return f"{moves} {_interval(effect, 1 if round(_number(effect['mean']), 2) >= 0 else -1)}{matched}"


def _net(effect: Mapping[str, Json]) -> str:
    count = _number(effect.get("net_images", FEW))
    comparisons = f"{count:.0f} independent comparison{'s' * (count != 1)} only"
    too_few = ", too few to be confirmed" if 0.5**count > SIGNIFICANT else ""
    few = f" (of {comparisons}{too_few})" if count < FEW else ""
    interval = f" {_interval(effect)}" if count > 1 else ""  # one value has none
    return f"{_signed(_number(effect['net']))}{interval}{few}"


def _interval(effect: Mapping[str, Json], sign: int = 1) -> str:
    """Of the net effect, told in the direction of ``sign``."""
    bounds = effect["net_interval"]
    assert isinstance(bounds, list)
    low, high = sorted(sign * _number(bound) for bound in bounds)
    return f"[{_signed(low)}, {_signed(high)}]"


def _number(value: Json) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _q(value: float) -> str:
    """A q-value; one that no double can hold is not 0."""
    return f"q = {value:.2g}" if value > 0 else "q < 1e-300"


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def _signed(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")
