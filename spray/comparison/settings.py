"""What keeps two audits from being compared like with like: other relevance, another analysis, untested findings."""

from __future__ import annotations

from collections.abc import Mapping

from spray.comparison.audited import Audited
from stores import Provenance
from stores.provenance import Json

APART = frozenset({"layers", "full", "thumbnails", "block"})
"""Settings of an attribution by which the relevance at hand does not become another."""


def unlike(one: Audited, other: Audited) -> tuple[str, ...]:
    """What else than the model and the data may make strategies, suspicion and flags differ, in sentences."""
    notes = []
    if one.tested != other.tested:
        which = "second" if one.tested else "first"
        notes.append(
            f"The {which} audit was not tested by intervention: nothing in it can be flagged, and its suspicion is of "
            "another kind. That flags differ says nothing about the model; run `spray verify` on it first."
        )
    told = [_relevance(side) for side in (one, other)]
    settings = _differing(_attribution(one), _attribution(other), APART)
    if told[0] != told[1]:
        notes.append(
            f"Explained by other relevance, {told[0]} and {told[1]}: strategies, suspicion and flags may differ for "
            "that alone."
        )
    elif settings:
        notes.append(
            f"Relevance was computed with other settings in the two audits ({', '.join(settings)}): strategies, "
            "suspicion and flags may differ for that alone."
        )
    grouped = [str(side.analysis.facts.get("group_by", "label")) for side in (one, other)]
    if grouped[0] != grouped[1]:
        notes.append(
            f"Grouped by {grouped[0]} in the first audit and by {grouped[1]} in the second: a class of one name is "
            "not of the same samples, and its strategies may differ for that alone."
        )
    follows = frozenset({"representation"} if told[0] != told[1] else ())  # of places, or of channels
    settings = _differing(_analysis(one), _analysis(other), follows)
    if settings:
        notes.append(
            f"Analysed with other settings in the two audits ({', '.join(settings)}): strategies may differ for that "
            "alone."
        )
    settings = _differing(_findings(one), _findings(other))
    if settings:
        notes.append(
            f"Findings were made with other settings in the two audits ({', '.join(settings)}): suspicion and flags "
            "may differ for that alone."
        )
    return tuple(notes)


def _relevance(side: Audited) -> str:
    facts = side.analysis.facts
    return f"{str(facts['relevance']).removeprefix('relevance/')} {facts['column']}"


def _attribution(side: Audited) -> Mapping[str, Json]:
    return _step(side.run.table(str(side.analysis.facts["relevance"])).provenance, "target")


def _analysis(side: Audited) -> Mapping[str, Json]:
    return _step(side.analysis.provenance, "representation")


def _findings(side: Audited) -> Mapping[str, Json]:
    return _step(side.analysis.findings_provenance, "ranking")


def _step(made: Provenance | None, setting: str) -> Mapping[str, Json]:
    """The step that has this setting; empty where it is not known."""
    return next((step for step in made.steps if setting in step), {}) if made is not None else {}


def _differing(
    one: Mapping[str, Json], other: Mapping[str, Json], apart: frozenset[str] = frozenset()
) -> list[str]:
    """Settings that both know, and not by the same value."""
    return [name for name in sorted(one.keys() & other.keys() - apart) if one[name] != other[name]]
