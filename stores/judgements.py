"""Findings of an analysis joined with what people said of them: by members, so that renumbering changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from stores.analyses import AnalysisHandle
from stores.analysis import Finding
from stores.run import Run
from stores.verdicts import Verdict

INHERITED_FROM = 0.8
"""Least Jaccard overlap at which a verdict on other members is taken to mean a finding; 1 attaches it."""
CONFLICT = "conflict"


@dataclass(frozen=True)
class Judgement:
    """The last word of each person on one thing: a finding of this analysis, or something that it does not have.

    Attributes:
        finding: None for verdicts on clusters and samples, and for orphans, whose members no finding has.
        overlap: least Jaccard index of a verdict's members and the finding's: 1 where they are the same.
    """

    finding: Finding | None
    verdicts: tuple[Verdict, ...]
    overlap: float = 1.0

    @property
    def word(self) -> str:
        """What all of them say; "conflict" where they differ, "" where nobody said anything."""
        words = {verdict.verdict for verdict in self.verdicts}
        return CONFLICT if len(words) > 1 else next(iter(words), "")

    @property
    def inherited(self) -> bool:
        """Whether it was given on somewhat other members, of an earlier analysis, and is to be confirmed."""
        return self.overlap < 1


def judgements(run: Run, handle: AnalysisHandle) -> list[Judgement]:
    """Every finding as ranked, judged or not; then verdicts on clusters and samples, and orphans, none dropped."""
    findings = handle.findings()
    ids = run.samples.read("id")
    members = [frozenset(str(name) for name in ids[finding.rows]) for finding in findings]
    names, unnamed = [finding.name for finding in findings], [""] * len(findings)
    said: dict[tuple[str, str], list[tuple[Verdict, float]]] = {}
    for verdict in sorted(run.verdicts(), key=lambda verdict: verdict.moment):
        known = names if verdict.analysis == handle.id else unnamed
        place, overlap = (None, 1.0) if verdict.subject != "finding" else _nearest(verdict, known, members)
        key = (
            ("finding", findings[place].name)
            if place is not None
            else (f"other {verdict.subject}", verdict.digest)
        )
        said.setdefault(key, []).append((verdict, overlap))
    joined = [_last_words(finding, said.pop(("finding", finding.name), [])) for finding in findings]
    others = (_last_words(None, given) for given in said.values())
    return joined + [judgement for judgement in others if judgement.verdicts]


def condemned(
    run: Run, found: Iterable[Judgement], *, flagged: bool = False
) -> tuple[Bool[np.ndarray, " n"], dict[int, str]]:
    """Rows that people condemned, and of each the reason.

    A row is condemned by a verdict "clever_hans" that nobody contradicts, on the very members that the verdict names:
    what a later analysis adds to a finding was never looked at. Members are known by their ids: where several rows have
    one id, it means all of them.

    Args:
        flagged: findings that only the machine flags condemn, too, unless a person said otherwise.
    """
    known = rows_by_id(run)
    reasons: dict[int, str] = {}
    for judgement in found:
        name = judgement.finding.name if judgement.finding is not None else ""
        if judgement.word == "clever_hans":
            for verdict in judgement.verdicts:
                who = verdict.annotator or "unnamed"
                why = f"clever_hans: {name or verdict.key} ({who})"
                if verdict.subject == "sample" and verdict.members != (verdict.key,):
                    continue  # of an older store: it names one sample and would condemn another
                reasons.update(dict.fromkeys(rows_of(known, verdict.members).tolist(), why))
        elif flagged and judgement.finding is not None and judgement.finding.flagged and not judgement.word:
            rows = judgement.finding.rows
            reasons.update({row: f"flagged: {name}" for row in rows.tolist() if row not in reasons})
    mask = np.zeros(run.n, bool)
    mask[list(reasons)] = True
    return mask, reasons


def rows_by_id(run: Run) -> dict[str, list[int]]:
    """The rows of every id, to the letter."""
    known: dict[str, list[int]] = {}
    for row, name in enumerate(run.samples.read("id").tolist()):
        known.setdefault(str(name), []).append(row)
    return known


def rows_of(known: Mapping[str, Sequence[int]], ids: Iterable[str]) -> Int[np.ndarray, " m"]:
    """Rows of some ids, ascending; ids that no row has are left out. ``known`` is as of ``rows_by_id``."""
    found = {row for name in ids for row in known.get(name, ())}
    return np.array(sorted(found), np.int64)


def balanced_weights(
    labels: Int[np.ndarray, " n"], usable: Bool[np.ndarray, " n"], down: Bool[np.ndarray, " n"], weight: float
) -> np.ndarray:
    """Sample weights: ``weight`` for the rows marked ``down``, and the rest of their class raised so that each class
    weighs as much as it has usable samples. 0 for rows that cannot be used; a class without a rest keeps ``weight``.
    """
    weights = np.where(usable, 1.0, 0.0)
    for label in np.unique(labels[usable & down]):
        own = usable & (labels == label)
        low, rest = own & down, own & ~down
        weights[low] = weight
        if rest.any():
            weights[rest] = (own.sum() - weight * low.sum()) / rest.sum()
    return weights


def _nearest(
    verdict: Verdict, names: Sequence[str], members: Sequence[frozenset[str]]
) -> tuple[int | None, float]:
    """The finding that has the verdict's members, or most of them; None for an orphan.

    Findings by other channels may have the very same members: the verdict is on the one it names, if that is of this
    analysis, else on the first.
    """
    said = frozenset(verdict.members)
    same = [place for place, own in enumerate(members) if own == said]
    if same:
        return next((place for place in same if names[place] == verdict.key), same[0]), 1.0
    best = (0.0, -1)
    for place, own in enumerate(members):
        best = max(best, (len(own & said) / max(len(own | said), 1), -place - 1))
    return (-best[1] - 1, best[0]) if best[0] >= INHERITED_FROM else (None, 1.0)


def _last_words(finding: Finding | None, given: list[tuple[Verdict, float]]) -> Judgement:
    last = {verdict.author: (verdict, overlap) for verdict, overlap in given}
    last = {author: said for author, said in last.items() if said[0].verdict != "withdrawn"}
    verdicts = tuple(verdict for verdict, _ in last.values())
    return Judgement(finding, verdicts, min((overlap for _, overlap in last.values()), default=1.0))
