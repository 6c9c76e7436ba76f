"""Which rows of a run a verdict is on: it names its members by their ids, and ids may be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from stores.analyses import AnalysisHandle
from stores.run import Run
from stores.verdicts import Verdict, members_digest


@dataclass(frozen=True)
class Members:
    """What a verdict is on: rows, ascending, and the ids that lead to none.

    Attributes:
        gone: ids that no row has.
        unclear: ids that several rows have, of which nothing tells the one that was judged.
    """

    rows: Int[np.ndarray, " m"]
    gone: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()

    @property
    def members(self) -> frozenset[int | str]:
        """All of it as one set."""
        return frozenset((*self.rows.tolist(), *self.gone, *self.unclear))


class JudgedRows:
    """The rows that verdicts are on.

    Where several rows have one id, the finding or cluster that was judged tells which of them are meant, as long as its
    analysis is there; else all of them are, if they are one and the same picture.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._subjects: dict[str, dict[tuple[str, str], Int[np.ndarray, " m"]]] = {}

    def of(self, verdict: Verdict) -> Members:
        """The rows of one verdict."""
        known = self._rows_by_id
        repeated = [name for name in dict.fromkeys(verdict.members) if len(known.get(name, ())) > 1]
        if repeated and (exact := self._judged(verdict)) is not None:
            return Members(exact)
        unclear = tuple(name for name in repeated if not self._same_picture(known[name]))
        found = {row for name in verdict.members if name not in unclear for row in known.get(name, ())}
        gone = tuple(name for name in verdict.members if name not in known)
        return Members(np.array(sorted(found), np.int64), gone, unclear)

    def _judged(self, verdict: Verdict) -> Int[np.ndarray, " m"] | None:
        """The rows of the very finding or cluster that was judged, if the store still has it with these members."""
        if verdict.analysis not in self._analyses:
            return None
        if verdict.analysis not in self._subjects:
            self._subjects[verdict.analysis] = dict(_subjects(self.run.analysis(verdict.analysis)))
        rows = self._subjects[verdict.analysis].get((verdict.subject, verdict.key))
        if rows is None or members_digest(map(str, self._ids[rows])) != verdict.digest:
            return None
        return np.sort(rows)

    def _same_picture(self, rows: list[int]) -> bool:
        if "digest" not in self.run.samples.columns:
            return False
        return len(np.unique(self.run.samples.read("digest", np.array(rows)))) == 1

    @cached_property
    def _analyses(self) -> frozenset[str]:
        return frozenset(self.run.analyses())

    @cached_property
    def _ids(self) -> np.ndarray:
        return self.run.samples.read("id")

    @cached_property
    def _rows_by_id(self) -> dict[str, list[int]]:
        """The rows of every id, to the letter."""
        known: dict[str, list[int]] = {}
        for row, name in enumerate(self._ids.tolist()):
            known.setdefault(str(name), []).append(row)
        return known


def _subjects(handle: AnalysisHandle) -> Iterator[tuple[tuple[str, str], Int[np.ndarray, " m"]]]:
    """Everything of an analysis that a verdict may be on, by its kind and key, with its rows."""
    for finding in handle.findings():
        yield ("finding", finding.name), finding.rows
    for group in handle.groups:
        analysed = handle.read(group)
        for name, clustering in analysed.clusterings.items():
            for label in np.unique(clustering.labels):
                yield ("cluster", f"c{group}.{name}.{label}"), analysed.rows[clustering.labels == label]
