"""Findings in words: short, hedged sentences made from the numbers, never from what anybody hopes to read."""

from __future__ import annotations

from collections.abc import Mapping

from spray.findings.regions import describe_place
from spray.findings.verification.evidence import MOVING
from stores import Finding
from stores.provenance import Json

SIGNIFICANT = 0.05
ENOUGH = 0.5
"""Content pasted beside its place still works if it keeps this much of its effect."""


def summary(finding: Finding, class_size: int, class_name: str) -> str:
    """The finding in plain words."""
    evidence = finding.evidence
    of_class = f"'{class_name}' samples" if finding.group >= 0 else "samples of all classes"
    sentences = [f"{len(finding.rows):,} of {class_size:,} {of_class}.", _shared(finding)]
    if "removal" not in evidence:
        sentences.append("Not tested by intervention: a suspicion only.")
    else:
        words = _Words(evidence, class_name)
        sentences += [words.removal(), words.transplant(), words.beside(), words.verdict(finding.flagged)]
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
        f"q = {_number(best['q_value']):.2g})."
    )


def _shared(finding: Finding) -> str:
    channels, concentration = finding.evidence.get("channels"), finding.parts.get("concentration")
    if isinstance(channels, list):
        return f"They share {len(channels)} channels: {', '.join(map(str, channels[:8]))}{', …' * (len(channels) > 8)}."
    region = finding.region
    if region is None or not region.any() or concentration is None:
        return ""
    if finding.evidence.get("where") == MOVING:
        return "What they share has no fixed place: each is tested by its own most relevant region."
    return (
        f"Their shared relevance lies at the {describe_place(region)}: {_percent(concentration)} of it in "
        f"{_percent(float(region.mean()), 1)} of the area."
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

    def removal(self) -> str:
        """What removing did, and removing as much of others; in log-odds, too, where others are compared only so."""
        kind = "channels" if self.channels else "regions"
        matched = _matched(self.removed.get("controls"), f"matched {kind} of other samples")
        moves = _moves(self.removed, self.scale, "lowers", "raises")
        doing = "Suppressing them" if self.channels else "Removing it"
        sentence = f"{doing} {moves}{matched}, net of the strongest control {{}}{_net(self.removed)}"
        log_odds, elsewhere = self.removed.get("log_odds"), self.removed.get("elsewhere")
        if not self.in_probability or not isinstance(log_odds, Mapping) or not elsewhere:
            return sentence.format("") + "."
        matched = _matched(log_odds["controls"], f"matched {kind}")
        moves = _moves(log_odds, "the log-odds", "lowers", "raises")
        return f"{sentence.format('on the same samples ')}; it {moves}{matched}."

    def transplant(self) -> str:
        """What pasting did, and what pasting as much of others did."""
        rates, matched = self.evidence.get("flip_rates"), ""
        if isinstance(rates, Mapping) and "matched" in rates:
            kind = "channels" if self.channels else "patches"
            matched = f" (matched {kind}: {_percent(_number(rates['matched']))})"
        hosts = _number(self.evidence.get("pasted_on", self.pasted["images"]))
        doing = "Injecting them into" if self.channels else "Pasting it on"
        return (
            f"{doing} {hosts:,.0f} samples of other classes {_moves(self.pasted, self.scale, 'raises', 'lowers')}, "
            f"net {_net(self.pasted)}, and turns {_percent(_number(self.evidence['flip_rate']))} of them into "
            f"'{self.class_name}'{matched}."
        )

    def beside(self) -> str:
        """Whether the content works beside its place."""
        moved = self.evidence.get("jittered")
        mean = _number(self.pasted["mean"])
        if not isinstance(moved, Mapping) or mean <= 0:
            return ""
        kept = _number(moved["mean"]) / mean
        works = "still works" if kept >= ENOUGH else "works less"
        return f"A few pixels beside its place it {works} ({_percent(kept)})."

    def verdict(self, confirmed: bool) -> str:
        """What follows, and no more."""
        what = "these channels" if self.channels else "this region"
        q, unmet = self.evidence.get("q_value"), self.evidence.get("unmet")
        if confirmed:
            level = "" if q is None else f" (q = {_number(q):.2g})"
            return f"Confirmed{level}: the model uses {what} by itself; whether it may is for you to judge."
        missing = {"necessity", "sufficiency", "size of the effect"}
        if not isinstance(unmet, list) or missing & set(map(str, unmet)):
            return "Not shown to be both necessary and sufficient."
        return f"Not confirmed: {', '.join(map(str, unmet)) or 'too many candidates for its significance'}."


def _matched(controls: Json, what: str) -> str:
    """The relevance-matched control's mean in brackets, where there is one."""
    if not isinstance(controls, Mapping) or "matched" not in controls:
        return ""
    return f" ({what}: {_signed(_number(controls['matched']))})"


def _moves(effect: Mapping[str, Json], scale: str, up: str, down: str) -> str:
    mean = _number(effect["mean"])
    return f"{up if round(mean, 2) >= 0 else down} {scale} by {abs(mean):.2f}"


def _net(effect: Mapping[str, Json]) -> str:
    bounds = effect["net_interval"]
    assert isinstance(bounds, list)
    low, high = (_signed(_number(bound)) for bound in bounds)
    return f"{_signed(_number(effect['net']))} [{low}, {high}]"


def _number(value: Json) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def _signed(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")
