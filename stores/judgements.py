"""Findings of an analysis joined with what people said of them: by members, so that renumbering changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from stores.analyses import AnalysisHandle
from stores.analysis import Finding
from stores.judged_rows import JudgedRows
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
    findings, rows = handle.findings(), JudgedRows(run)
    members = [frozenset(finding.rows.tolist()) for finding in findings]
    names, unnamed = [finding.name for finding in findings], [""] * len(findings)
    said: dict[tuple[str, str], list[tuple[Verdict, float]]] = {}
    for verdict in sorted(run.verdicts(), key=lambda verdict: verdict.moment):
        place, overlap = None, 1.0
        if verdict.subject == "finding":
            known = names if verdict.analysis == handle.id else unnamed
            place, overlap = _nearest(verdict.key, rows.of(verdict).members, known, members)
        key = (
            ("finding", findings[place].name)
            if place is not None
            else (f"other {verdict.subject}", verdict.digest)
        )
        said.setdefault(key, []).append((verdict, overlap))
    joined = [_last_words(finding, said.pop(("finding", finding.name), [])) for finding in findings]
    others = (_last_words(None, given) for given in said.values())
    return joined + [judgement for judgement in others if judgement.verdicts]


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
    key: str, said: frozenset[int | str], names: Sequence[str], members: Sequence[frozenset[int]]
) -> tuple[int | None, float]:
    """The finding that has the members of a verdict, or most of them; None for an orphan.

    Findings by other channels may have the very same members: the verdict is on the one it names, if that is of this
    analysis, else on the first.
    """
    same = [place for place, own in enumerate(members) if own == said]
    if same:
        return next((place for place in same if names[place] == key), same[0]), 1.0
    best = (0.0, -1)
    for place, own in enumerate(members):
        best = max(best, (len(own & said) / max(len(own | said), 1), -place - 1))
    return (-best[1] - 1, best[0]) if best[0] >= INHERITED_FROM else (None, 1.0)


def _last_words(finding: Finding | None, given: list[tuple[Verdict, float]]) -> Judgement:
    last = {verdict.author: (verdict, overlap) for verdict, overlap in given}
    last = {author: said for author, said in last.items() if said[0].verdict != "withdrawn"}
    verdicts = tuple(verdict for verdict, _ in last.values())
    return Judgement(finding, verdicts, min((overlap for _, overlap in last.values()), default=1.0))
