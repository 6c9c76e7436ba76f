"""Samples that follow from verdicts: which are condemned, by whom, and where people's words do not allow it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from stores.analysis import Finding
from stores.judged_rows import JudgedRows
from stores.judgements import Judgement
from stores.run import Run

CLEVER_HANS = "clever_hans"


@dataclass(frozen=True)
class Condemned:
    """Rows that were condemned, and what stood against others.

    Attributes:
        reasons: of each condemned row.
        contested: rows that one word condemns and another, on the sample itself or on something else that it is part
            of, does not; with both.
        unclear: names of what was condemned whose samples' ids other rows have, too, so that nothing tells which.
    """

    mask: Bool[np.ndarray, " n"]
    reasons: dict[int, str]
    contested: dict[int, str]
    unclear: tuple[str, ...]


def condemned(run: Run, found: Iterable[Judgement], *, flagged: bool = False) -> Condemned:
    """Rows that people condemned.

    A row is condemned by a verdict "clever_hans" that nobody contradicts, on the very members that the verdict names:
    what a later analysis adds to a finding was never looked at. A word on the sample itself outdoes those on findings
    and clusters that it is part of; where words of one kind disagree, they condemn nothing.

    Args:
        flagged: findings that only the machine flags condemn, too, unless a person said otherwise.
    """
    rows, alone, among = JudgedRows(run), _Words(run.n), _Words(run.n)
    unclear: list[str] = []
    machine: list[Finding] = []
    for judgement in found:
        name = judgement.finding.name if judgement.finding is not None else ""
        if flagged and judgement.finding is not None and judgement.finding.flagged and not judgement.word:
            machine.append(judgement.finding)
        for verdict in judgement.verdicts:
            if verdict.subject == "sample" and verdict.members != (verdict.key,):
                continue  # of an older store: it names one sample and would condemn another
            members = rows.of(verdict)
            if members.unclear and judgement.word == CLEVER_HANS:
                unclear.append(name or verdict.key)
            why = f"{verdict.verdict}: {name or verdict.key} ({verdict.annotator or 'unnamed'})"
            kind = alone if verdict.subject == "sample" else among
            # That somebody is unsure of a whole contradicts no word on another whole.
            silent = {CLEVER_HANS} if kind is alone else {CLEVER_HANS, "unsure"}
            kind.say(members.rows, verdict.verdict == CLEVER_HANS, judgement.word not in silent, why)
    mask = np.where(alone.any, alone.agreed, among.agreed)
    contested = (alone.condemning | among.condemning) & ~mask
    both = (
        (row, dict.fromkeys(among.told(row) + alone.told(row))) for row in np.flatnonzero(contested).tolist()
    )
    reasons = {row: (alone if alone.any[row] else among).reason(row) for row in np.flatnonzero(mask).tolist()}
    free = ~(alone.any | among.any)
    for finding in machine:
        reasons.update(dict.fromkeys(finding.rows[free[finding.rows]].tolist(), f"flagged: {finding.name}"))
        mask[finding.rows[free[finding.rows]]] = True
    against = {row: f"judged differently: {'; '.join(words)}" for row, words in both}
    return Condemned(mask, reasons, against, tuple(dict.fromkeys(unclear)))


class _Words:
    """What people said of every row: for each side the last who said so, -1 where nobody did."""

    def __init__(self, n: int) -> None:
        self._for, self._against = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
        self._texts: list[str] = []

    def say(self, rows: Int[np.ndarray, " m"], condemns: bool, contradicts: bool, why: str) -> None:
        """Note a person's word, and whether all that was said of this thing come to another."""
        self._texts.append(why)
        if condemns:
            self._for[rows] = len(self._texts) - 1
        if contradicts:
            self._against[rows] = len(self._texts) - 1

    @property
    def condemning(self) -> Bool[np.ndarray, " n"]:
        """Where somebody said it."""
        return self._for >= 0

    @property
    def agreed(self) -> Bool[np.ndarray, " n"]:
        """Where nobody said otherwise."""
        return (self._for >= 0) & (self._against < 0)

    @property
    def any(self) -> Bool[np.ndarray, " n"]:
        """Where somebody said anything."""
        return (self._for >= 0) | (self._against >= 0)

    def reason(self, row: int) -> str:
        """Who condemned a row."""
        return self._texts[int(self._for[row])]

    def told(self, row: int) -> list[str]:
        """Who said something of a row, each with the word."""
        return [self._texts[int(side[row])] for side in (self._for, self._against) if side[row] >= 0]
