"""Check and repair: every committed byte against its record, and what crashed writers left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from stores.analyses import ROOT as ANALYSES
from stores.errors import Damaged, StoreError
from stores.ledger import COMMITS, Commit, Ledger, fingerprint
from stores.run import Location, Run, opened
from stores.schema import content_of
from stores.tables import Table
from stores.verdicts import ROOT as VERDICTS
from stores.verdicts import read_verdict
from stores.versions import refuse_newer

TOLD = 8
"""So many runs of missing shards are named."""
NO_GROUPS = ("zarr.json", "findings", "tested")
"""What else lies in an analysis."""
UNCOMMITTED = (
    "is not written: its files are there, but no commit record (a writer stopped before it, or it was lost)"
)


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was committed.

    ``kind`` is "bytes" (a file is missing or altered), "commit" (a commit record is), "metadata" (a document
    of a table, analysis or array is), "verdict", "lease" (of an owner that died), "held" (by an owner on
    another machine), "litter" (temporary files of a writer that died) or "incomplete" (nothing is wrong, but the stage
    that writes it has not come so far, or its commit was lost).
    """

    unit: str
    kind: str
    detail: str
    rows: tuple[int, int] | None = None
    """First row and one past the last, of a table's shard."""
    repaired: bool = False
    """Whether something was done about it: set right, or where ``redo`` says so, taken back."""
    redo: bool = False
    """Whether the stage that wrote the unit has to write it again, once it is repaired; it redoes just that."""

    def __str__(self) -> str:
        rows = f", rows {self.rows[0]} to {self.rows[1] - 1}" if self.rows else ""
        done = (" (taken back)" if self.redo else " (repaired)") if self.repaired else ""
        return f"{self.unit}{rows}: {self.detail}{done}"


def check(path: Location, repair: bool = False) -> list[Problem]:
    """Verify a whole store, every committed byte of it, and name what is not committed.

    With ``repair``, the commits of damaged units are removed, so that running the stage again redoes just
    those; lost metadata is written again, a verdict that cannot be read is set aside, and what dead writers
    left is removed. No committed and sound byte is touched. Leases of other machines are released too: do not
    repair while another machine writes.

    Raises:
        NotAStore, Damaged: the root itself cannot be read; nothing was changed.
        UnknownVersion: the root, or anything in the store, is of a later release; nothing was changed.
    """
    run = opened(path, writable=repair)
    refuse_newer(run.floor, everything=True)
    walk = _Check(run, repair)
    return [*walk.damages(), *walk.gaps()]


def _numbers(shards: list[int]) -> str:
    """Ascending numbers in words: "0, 2 to 5, 9"."""
    cuts = [at for at in range(1, len(shards)) if shards[at] != shards[at - 1] + 1]
    runs = [(shards[low], shards[high - 1]) for low, high in pairwise([0, *cuts, len(shards)])]
    told = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:TOLD]]
    return ", ".join([*told, *(["…"] if len(runs) > TOLD else [])])


class _Check:
    def __init__(self, run: Run, repair: bool) -> None:
        self.run, self.repair = run, repair
        self.floor = run.floor
        self.ledger = Ledger(self.floor)
        self.told: set[str] = set()
        """Units that are damaged: what repair takes back of them is no news."""

    def damages(self) -> Iterator[Problem]:
        """What is not as it was committed."""
        yield from self._litter()
        yield from self._leases()
        yield from self._tables()
        yield from self._analyses()
        yield from self._commits()
        yield from self._verdicts()

    def gaps(self) -> Iterator[Problem]:
        """What is not committed."""
        yield from self._unwritten_shards()
        yield from self._uncommitted_groups()

    def _done(self, problem: Problem) -> Problem:
        self.told.add(problem.unit)
        return replace(problem, repaired=self.repair)

    def _litter(self) -> Iterator[Problem]:
        for key in self.floor.litter():
            if self.repair:
                self.floor.delete(key)
            yield self._done(Problem(key, "litter", "left by a writer that died"))

    def _leases(self) -> Iterator[Problem]:
        for lease in self.ledger.leases():
            if lease.holder is not None and lease.holder.here:
                continue  # being written right now
            if self.repair:
                self.floor.delete(lease.key)
            if lease.holder is None:
                yield self._done(Problem(lease.unit, "lease", "claimed by a writer that died"))
            else:
                yield self._done(
                    Problem(
                        lease.unit,
                        "held",
                        f"claimed by {lease.holder}; if that is gone, --repair releases it",
                    )
                )

    def _tables(self) -> Iterator[Problem]:
        for key in self.run.table_keys():
            document = f"{key}/zarr.json"
            try:
                table = self.run.table_at(key)
            except Damaged as error:
                if self.repair:
                    self.floor.delete(document)
                yield self._done(
                    Problem(key, "metadata", f"{error} Running the stage again restores it.", redo=True)
                )
                continue
            if table is not None:
                yield from self._array_documents(table)

    def _array_documents(self, table: Table) -> Iterator[Problem]:
        for key in table.altered_documents():
            yield self._done(
                Problem(key.rpartition("/")[0], "metadata", "its zarr.json is missing or altered")
            )
        if self.repair:
            table.ensure_documents()

    def _analyses(self) -> Iterator[Problem]:
        for name in self.floor.names(ANALYSES):
            key = f"{ANALYSES}/{name}/zarr.json"
            document = self.floor.read(key)
            if name == "zarr.json" or document is None:
                continue
            try:
                content_of(json.loads(document)["attributes"], "analysis", key)
            except (ValueError, KeyError, TypeError, Damaged) as error:
                if self.repair:
                    self.floor.delete(key)
                yield self._done(
                    Problem(
                        f"{ANALYSES}/{name}", "metadata", f"its zarr.json cannot be read ({error})", redo=True
                    )
                )

    def _commits(self) -> Iterator[Problem]:
        keys = sorted(key for key in self.floor.sizes(COMMITS) if key.endswith(".json"))
        units = [key.removeprefix(f"{COMMITS}/").removesuffix(".json") for key in keys]
        yield from self._owners(units)
        for unit in units:
            problem = self._commit(unit)
            if problem is not None:
                if self.repair:
                    self.ledger.retract(unit)
                yield self._done(problem)

    def _owners(self, units: list[str]) -> Iterator[Problem]:
        """Tables and analyses that have commits but are not there any more."""
        for owner in dict.fromkeys(
            unit.removesuffix("/findings").removesuffix("/tested")
            for unit in (u.rpartition("/")[0] for u in units)
        ):
            if owner not in self.told and self.floor.size(f"{owner}/zarr.json") is None:
                yield Problem(
                    owner,
                    "metadata",
                    "its zarr.json is missing. Running the stage again restores it.",
                    redo=True,
                )

    def _commit(self, unit: str) -> Problem | None:
        try:
            commit = self.ledger.commit(unit)
        except Damaged as error:
            return Problem(unit, "commit", str(error), redo=True)
        if commit is None:
            return None
        rows = tuple(commit.content["rows"]) if "rows" in commit.content else None
        if commit.unit != unit:
            return Problem(unit, "commit", f"its commit record is that of {commit.unit}", rows, redo=True)
        bad = self._bad_files(commit)
        return Problem(unit, "bytes", "; ".join(bad), rows, redo=True) if bad else None

    def _bad_files(self, commit: Commit) -> list[str]:
        bad = []
        for key, (size, digest) in commit.files.items():
            data = self.floor.read(key)
            if data is None:
                bad.append(f"{key} is missing")
            elif len(data) != size:
                bad.append(f"{key} has {len(data)} bytes where {size} were committed")
            elif fingerprint(data) != (size, digest):
                bad.append(f"{key} has other bytes than were committed")
        return bad

    def _unwritten_shards(self) -> Iterator[Problem]:
        for table in self._sound_tables():
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
                    rows = table.shards[shard]
                    yield Problem(f"{table.key}/{shard}", "incomplete", UNCOMMITTED, (rows.start, rows.stop))
            absent = [shard for shard in missing if str(shard) not in folders]
            if absent:
                first, last = table.shards[absent[0]], table.shards[absent[-1]]
                yield Problem(
                    table.key,
                    "incomplete",
                    f"{len(absent)} of {len(table.shards)} shards are not written yet ({_numbers(absent)})",
                    (first.start, last.stop),
                )

    def _sound_tables(self) -> Iterator[Table]:
        for key in self.run.table_keys():
            try:
                table = self.run.table_at(key)
            except Damaged:
                continue
            if table is not None:
                yield table

    def _uncommitted_groups(self) -> Iterator[Problem]:
        """Groups and the newest findings whose files are there without a commit; nobody waits for earlier ones."""
        for name in self.floor.names(ANALYSES):
            committed = self.ledger.units(f"{ANALYSES}/{name}")
            groups = {key for key in self.floor.names(f"{ANALYSES}/{name}") if key not in NO_GROUPS}
            units = [f"{ANALYSES}/{name}/{key}" for key in sorted(groups.difference(committed))]
            lists = f"{ANALYSES}/{name}/findings"
            newest = max(map(int, self.floor.names(lists)), default=0)
            if newest > max(map(int, self.ledger.units(lists)), default=0):
                units.append(f"{lists}/{newest}")
            for unit in units:
                if unit not in self.told:
                    yield Problem(unit, "incomplete", UNCOMMITTED)

    def _verdicts(self) -> Iterator[Problem]:
        names = [name for name in self.floor.names(VERDICTS) if name.endswith(".json")]
        known = {*names, *self.floor.names(f"{VERDICTS}/damaged")}
        for number in range(1, 1 + max((int(name.removesuffix(".json")) for name in names), default=0)):
            if f"{number:08d}.json" not in known:
                yield Problem(
                    f"{VERDICTS}/{number:08d}.json", "verdict", "is missing, and cannot be made again"
                )
        for name in names:
            key = f"{VERDICTS}/{name}"
            try:
                read_verdict(self.floor, key)
            except StoreError as error:
                if self.repair:
                    self.floor.put(f"{VERDICTS}/damaged/{name}", self.floor.read(key) or b"")
                    self.floor.delete(key)
                yield self._done(Problem(key, "verdict", str(error)))
