"""Check and repair: every committed byte against its record, and what crashed writers left behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from stores import lost_roots, made_from
from stores.analyses import ROOT as ANALYSES
from stores.analyses import analysis_content
from stores.errors import Damaged, StoreError, Unreadable
from stores.gaps import Gaps, sound_tables
from stores.ledger import COMMITS, Commit, Ledger, fingerprint
from stores.lost_verdicts import verdict_problems
from stores.places import Location
from stores.problems import Problem
from stores.roots import ROOT, contradicts
from stores.run import Run, opened, told_without_root
from stores.tables import SAMPLES, Table
from stores.verdicts import ROOT as VERDICTS
from stores.versions import refuse_newer

Report = Callable[[int, int, str], object]
"""``report(done, total, what)``"""

UNIT = re.compile(r"[0-9]+|([0-9a-f]{12}-)?(all|c[0-9]+)")
"""Last segments of units: shards and lists of findings, groups, and what is kept while groups are tested."""
OTHER_INPUTS = (
    "samples and relevance of these rows were made from different pixels: one of the two is another store's"
)


def check(
    path: Location, repair: bool = False, report: Report = lambda done, total, what: None
) -> list[Problem]:
    """Verify a whole store, every committed byte of it, and name what is not committed.

    With ``repair``, the commits of damaged units are removed, so that running the stage again redoes just
    those; lost metadata is written again, a verdict that cannot be read is set aside, and what dead writers
    left is removed. No committed and sound byte is touched. Leases of other machines are released too: do not
    repair while another machine writes.

    A root that cannot be read is damage like any other: the rest is checked by what its copy, or else the tables, tell.
    ``report`` is told how many of the committed units have been read.

    Raises:
        NotAStore: there is no store, nor was one.
        UnknownVersion: the root, or anything in the store, is of a later release; nothing was changed.
    """
    run, lost = opened(path, writable=repair)
    if lost is None and lost_roots.is_foreign(run.floor, run.n, run.digest):
        lost = Damaged(f"{path}: its {ROOT} is that of another run than its tables.")
        run = told_without_root(run.floor, run.path, writable=repair)
    refuse_newer(run.floor, everything=True)
    walk = _Check(run, repair, lost, report)
    damages = list(walk.damages())
    beside = Gaps(run, walk.told)
    return [*damages, *beside.gaps(), *beside.notes()]


class _Check:
    def __init__(self, run: Run, repair: bool, lost: StoreError | None, report: Report) -> None:
        self.run, self.repair, self.report = run, repair, report
        self.lost = lost
        """Why the root could not be read."""
        self.floor = run.floor
        self.ledger = Ledger(self.floor)
        self.made: dict[str, Commit] = {}
        """The commit of every unit, where it could be read."""
        self.told: set[str] = set()
        """Units that are damaged: that they are not written, once they are taken back, is no news."""

    def damages(self) -> Iterator[Problem]:
        """What is not as it was committed."""
        if self.lost is None:
            yield from lost_roots.copy_problems(self.floor, self.run.n, self.run.digest, self._done)
        else:
            yield lost_roots.root_problem(self.floor, self.lost, self._done)
        yield from self._litter()
        yield from self._leases()
        yield from self._tables()
        yield from self._analyses()
        yield from self._commits()
        yield from verdict_problems(self.floor, self._done, self.repair)

    def _done(self, problem: Problem, repair: Callable[[], object] = lambda: None) -> Problem:
        """The problem, repaired if that is asked for and can be done."""
        if problem.redo:
            self.told.add(problem.unit)
        if not self.repair:
            return problem
        try:
            repair()
        except StoreError as error:
            return replace(problem, detail=f"{problem.detail}; {error}")
        return replace(problem, repaired=True)

    def _litter(self) -> Iterator[Problem]:
        for key in self.floor.litter():
            yield self._done(
                Problem(key, "litter", "left by a writer that died"), partial(self.floor.delete, key)
            )

    def _leases(self) -> Iterator[Problem]:
        for lease in self.ledger.leases():
            if lease.holder is not None and lease.holder.here:
                continue  # being written right now
            problem = Problem(lease.unit, "lease", "claimed by a writer that died")
            if lease.holder is not None:
                told = f"claimed by {lease.holder}; if that is gone, --repair releases it"
                problem = Problem(lease.unit, "held", told)
            yield self._done(problem, partial(self.floor.delete, lease.key))

    def _tables(self) -> Iterator[Problem]:
        for key in self.run.table_keys():
            try:
                table = self.run.table_at(key)
            except Damaged as error:
                yield self._table(key, error)
                continue
            except Unreadable as error:
                yield Problem(key, "metadata", str(error))
                continue
            if table is not None:
                yield from self._array_documents(table)
                yield from self._other_run(table)

    def _table(self, key: str, error: Damaged) -> Problem:
        """A document that cannot be read; or that of a table of another length: a person has to say which is ours."""
        if self.run.says(key):
            self.told.add(key)
            return Problem(key, "metadata", str(error))
        problem = Problem(key, "metadata", f"{error} Running the stage again restores it.", redo=True)
        return self._done(problem, partial(self.floor.delete, f"{key}/zarr.json"))

    def _other_run(self, table: Table) -> Iterator[Problem]:
        if table.name == "samples" and contradicts(self.run.provenance, table.provenance):
            told = (
                "the root zarr.json, or this table's, is that of another run: put the right one in its place"
            )
            yield Problem(table.key, "metadata", told)

    def _array_documents(self, table: Table) -> Iterator[Problem]:
        for key in table.altered_documents():
            problem = Problem(key.rpartition("/")[0], "metadata", "its zarr.json is missing or altered")
            yield self._done(problem, partial(table.ensure_documents, key))

    def _analyses(self) -> Iterator[Problem]:
        for name in self.floor.names(ANALYSES):
            try:
                analysis_content(self.floor, name)
            except Unreadable as error:
                yield Problem(f"{ANALYSES}/{name}", "metadata", str(error))
            except Damaged as error:
                problem = Problem(f"{ANALYSES}/{name}", "metadata", str(error), redo=True)
                key = f"{ANALYSES}/{name}/zarr.json"
                yield self._done(problem, partial(self.floor.delete, key))

    def _commits(self) -> Iterator[Problem]:
        units = sorted(self._units())
        yield from self._owners(units)
        for number, unit in enumerate(units, start=1):
            problem = self._commit(unit)
            self.report(number, len(units), "check")
            if problem is None:
                continue
            yield self._done(problem, partial(self.ledger.retract, unit)) if problem.redo else problem
        for table in sound_tables(self.run):
            yield from self._of_others(table)
        yield from self._of_other_inputs()

    def _of_others(self, table: Table) -> Iterator[Problem]:
        """Commits made for another table; where all are, it may be the table's document that is another's."""
        units = [f"{table.key}/{shard}" for shard in self.ledger.numbers(table.key)]
        units = [unit for unit in units if unit not in self.told and unit in self.made]
        others = {
            unit: what
            for unit in units
            if (what := table.contradiction(int(unit.rpartition("/")[2]), self.made[unit]))
        }
        if others and len(others) == len(units):
            told = (
                f"none of its commits is of its own ({others[units[0]]}): its zarr.json is another one's, or all of "
                "them are. Put the right one in its place, or remove it: the command that made the table, with the "
                "options of then, writes it anew"
            )
            yield Problem(table.key, "metadata", told)
            return
        for unit, what in others.items():
            problem = Problem(unit, "commit", f"it was committed for {what} than its table's", redo=True)
            yield self._done(problem, partial(self.ledger.retract, unit))

    def _of_other_inputs(self) -> Iterator[Problem]:
        """Relevance that was made from other pixels than the samples of its rows.

        Where some of the relevance agrees with the samples, the rest is another store's; where none does, no one
        can tell, and both are taken back.
        """
        tables = {table.key: table for table in sound_tables(self.run)}
        samples = tables.pop(SAMPLES, None)
        if samples is None or made_from.COLUMN not in samples.columns:
            return
        others = [table for table in tables.values() if table.rows_per_shard == samples.rows_per_shard]
        for shard, rows in enumerate(samples.shards):
            beside = [table for table in others if self._sound(table, shard)]
            if not beside or not self._sound(samples, shard):
                continue
            try:
                digests, failed = samples.read(made_from.COLUMN, rows), samples.failed_in(shard)
                fit = [
                    made_from.fits(table.facts(shard), table.failed_in(shard), digests, rows, failed)
                    for table in beside
                ]
            except StoreError:
                continue  # which is told by what is read
            if False in fit and True not in fit:
                beside.append(samples)
                fit.append(False)
            for table, fits in zip(beside, fit, strict=True):
                if fits is False:
                    unit = f"{table.key}/{shard}"
                    problem = Problem(unit, "commit", OTHER_INPUTS, (rows.start, rows.stop), redo=True)
                    yield self._done(problem, partial(self.ledger.retract, unit))

    def _sound(self, table: Table, shard: int) -> bool:
        """Whether a shard is committed, and nothing was found wrong with it."""
        unit = f"{table.key}/{shard}"
        return unit in self.made and unit not in self.told

    def _units(self) -> set[str]:
        """Every unit that has a commit record, or what stands in the place of one."""
        keys = {key.rpartition("/")[0].removeprefix(COMMITS).strip("/") for key in self.floor.sizes(COMMITS)}
        owners = {*keys, *self.run.table_keys()} - {VERDICTS}
        return {
            f"{owner}/{unit}"
            for owner in owners
            if owner
            for unit in self.ledger.units(owner)
            if UNIT.fullmatch(unit)
        }

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
        except Unreadable as error:
            return Problem(unit, "commit", str(error))
        if commit is None:
            return None
        self.made[unit] = commit
        rows = tuple(commit.content["rows"]) if "rows" in commit.content else None
        if commit.unit != unit:
            return Problem(unit, "commit", f"its commit record is that of {commit.unit}", rows, redo=True)
        bad, unread = self._bad_files(commit)
        if bad or unread:
            # What cannot be read only may be sound: a person has to see to it.
            failed = tuple(map(int, commit.content["failed"])) if rows else None
            return Problem(unit, "bytes", "; ".join(bad + unread), rows, redo=bool(bad), failed=failed)
        return None

    def _bad_files(self, commit: Commit) -> tuple[list[str], list[str]]:
        """What is wrong with files of a unit, and which of them cannot be read at all."""
        bad, unread = [], []
        for key, (size, digest) in commit.files.items():
            try:
                data = self.floor.read(key)
            except Damaged as error:
                bad.append(str(error).removesuffix("."))
                continue
            except Unreadable as error:
                unread.append(str(error))
                continue
            if data is None:
                bad.append(f"{key} is missing")
            elif len(data) != size:
                bad.append(f"{key} has {len(data)} bytes where {size} were committed")
            elif fingerprint(data) != (size, digest):
                bad.append(f"{key} has other bytes than were committed")
        return bad, unread
