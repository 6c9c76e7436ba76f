"""What a store does not hold yet, and what is worth knowing of what it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cached_property

from stores.analyses import ROOT as ANALYSES
from stores.analyses import AnalysisHandle, analysis_content
from stores.circumstances import not_finished, not_searched, of_other_samples
from stores.errors import Damaged, StoreError, Unreadable
from stores.groups import group_key, is_group
from stores.ledger import Ledger
from stores.machines import TOLD, circumstances_of, numbers_in_words
from stores.names import is_key
from stores.problems import Problem
from stores.run import Run
from stores.tables import Table

UNCOMMITTED = (
    "is not written: its files are there, but no commit record (a writer stopped before it, or it was lost)"
)


class Gaps:
    """Of one store; ``told`` are units that are damaged: that they are not written, once taken back, is no news."""

    def __init__(self, run: Run, told: Collection[str]) -> None:
        self.run, self.told = run, told
        self.floor, self.ledger = run.floor, Ledger(run.floor)

    def gaps(self) -> Iterator[Problem]:
        """What is not committed."""
        yield from self._unwritten_shards()
        yield from self._uncommitted_groups()
        yield from self._unfinished_searches()

    def notes(self) -> Iterator[Problem]:
        """What is as it was committed, and yet worth knowing."""
        for table in sound_tables(self.run):
            with suppress(StoreError):  # what is wrong with a commit was told of it
                yield from [Problem(table.key, "note", told) for told in circumstances_of(table)]
        for id, told in self._lapsed.items():
            yield Problem(f"{ANALYSES}/{id}", "note", told)

    def _unwritten_shards(self) -> Iterator[Problem]:
        for table in sound_tables(self.run):
            if not (missing := table.missing()):
                continue
            folders = {
                key.rpartition("/c/")[2].partition("/")[0]
                for key in self.floor.sizes(table.key)
                if "/c/" in key
            }
            missing = [shard for shard in missing if f"{table.key}/{shard}" not in self.told]
            for shard in missing:
                if str(shard) in folders:
                    rows, unit = table.shards[shard], f"{table.key}/{shard}"
                    yield Problem(unit, "incomplete", self._why_unwritten(unit), (rows.start, rows.stop))
            absent = [shard for shard in missing if str(shard) not in folders]
            if absent:
                first, last = table.shards[absent[0]], table.shards[absent[-1]]
                yield Problem(
                    table.key,
                    "incomplete",
                    f"{len(absent)} of {len(table.shards)} shards are not written yet ({numbers_in_words(absent)})",
                    (first.start, last.stop),
                )

    def _uncommitted_groups(self) -> Iterator[Problem]:
        """Groups and the newest findings whose files are there without a commit; nobody waits for earlier ones.

        Of samples that are not those of then any more no command makes them: that is worth knowing, and no gap.
        """
        for name in filter(is_key, self.floor.names(ANALYSES)):
            committed = self.ledger.units(f"{ANALYSES}/{name}")
            groups = set(filter(is_group, self.floor.names(f"{ANALYSES}/{name}")))
            lapsed = name in self._lapsed
            yield from self._planned_groups(name, {*committed, *groups}, lapsed)
            units = [f"{ANALYSES}/{name}/{key}" for key in sorted(groups.difference(committed))]
            lists = f"{ANALYSES}/{name}/findings"
            newest = max((int(key) for key in self.floor.names(lists) if key.isdecimal()), default=0)
            if newest > max(self.ledger.numbers(lists), default=0):
                units.append(f"{lists}/{newest}")
            for unit in units:
                if unit not in self.told:
                    yield Problem(unit, "note" if lapsed else "incomplete", self._why_unwritten(unit))

    def _unfinished_searches(self) -> Iterator[Problem]:
        """Findings that are not searched or tested to the end, or not in groups that came later."""
        for handle in self._handles():
            if any(unit.startswith(f"{ANALYSES}/{handle.id}/") for unit in self.told):
                continue  # which is to be written again
            with suppress(StoreError, KeyError):  # damaged findings were told of
                if told := not_searched(self.run, handle) or not_finished(handle):
                    yield Problem(f"{ANALYSES}/{handle.id}/findings", "incomplete", told)

    def _handles(self) -> Iterator[AnalysisHandle]:
        """The analyses whose documents can be read."""
        for name in filter(is_key, self.floor.names(ANALYSES)):
            with suppress(Damaged, Unreadable):
                content = analysis_content(self.floor, name)
                if content is not None:
                    yield AnalysisHandle(self.floor, content, writable=False)

    def _why_unwritten(self, unit: str) -> str:
        """Of a unit whose files are there."""
        for lease in self.ledger.leases():
            if lease.unit == unit and lease.holder is not None:
                return f"is being written by {lease.holder}"
        return UNCOMMITTED

    @cached_property
    def _lapsed(self) -> dict[str, str]:
        """Of the analyses, by id, that are of samples as they were: in what way."""
        found = {}
        for handle in self._handles():
            with suppress(StoreError):
                if told := of_other_samples(self.run, handle):
                    found[handle.id] = told
        return found

    def _planned_groups(self, name: str, there: set[str], lapsed: bool) -> Iterator[Problem]:
        """Groups that an analysis was begun for and of which nothing is there."""
        try:
            planned = (analysis_content(self.floor, name) or {}).get("groups") or []
        except (Damaged, Unreadable):
            return  # which is told of the document
        keys = [group_key(group) for group in planned]
        absent = [key for key in keys if key not in there and f"{ANALYSES}/{name}/{key}" not in self.told]
        if absent:
            few = ", ".join([*absent[:TOLD], *(["…"] if len(absent) > TOLD else [])])
            yet = (
                "not written, and their samples are not those of then any more"
                if lapsed
                else "not written yet"
            )
            detail = f"{len(absent)} of {len(keys)} groups are {yet} ({few})"
            yield Problem(f"{ANALYSES}/{name}", "note" if lapsed else "incomplete", detail)


def sound_tables(run: Run) -> Iterator[Table]:
    """The tables whose documents can be read."""
    for key in run.table_keys():
        try:
            table = run.table_at(key)
        except (Damaged, Unreadable):
            continue
        if table is not None:
            yield table
