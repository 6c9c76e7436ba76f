"""A run: everything of one audit in one Zarr v3 root."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from stores.analyses import AnalysisHandle, create_analysis, list_analyses
from stores.analysis import GroupAnalysis, is_tested
from stores.differences import difference
from stores.encoding import COMPRESSION, group_document
from stores.errors import Damaged, NotAStore, StoreError, Uncommitted, Unreadable
from stores.floor import Floor, LocalFloor
from stores.groups import ensure_group
from stores.ledger import Ledger, create_once
from stores.lost_roots import keep_copy, told_beside, was_store
from stores.places import Location, floor_at, refuse_place, refuse_taken, what_is_there
from stores.provenance import Json, Provenance, to_json
from stores.roots import ROOT, content_in, is_lost_root, run_digest
from stores.schema import VERSION, Column, element
from stores.tables import Table, table_key, table_keys
from stores.verdicts import Verdict, VerdictList, add_verdict, read_verdicts
from stores.versions import refuse_newer

LATER = ("compression", "run")
"""What the documents of tables of early releases do not say."""


class Run:
    """An open store. Obtained from ``stores.create`` or ``stores.open``."""

    def __init__(
        self,
        floor: Floor,
        path: Location,
        content: Mapping[str, Any],
        writable: bool,
        digest: str | None = None,
    ) -> None:
        self.path = path
        """Where it is: a ``Path``, or the URL of a remote store."""
        self.classes: tuple[str, ...] = tuple(content["classes"])
        """Names of the model's classes, by index."""
        self.n = int(content["samples"])
        """Number of samples, the rows of every table."""
        self.provenance: dict[str, Any] = dict(content["provenance"])
        self.digest = run_digest(content) if digest is None else digest
        """Of all three of them, some of which are lost with the root; what a table says of the run it belongs to."""
        self.version = VERSION
        self.writable = writable
        self.floor = floor
        """The files themselves, for the modules of this package."""

    def __repr__(self) -> str:
        mode = "r+" if self.writable else "r"
        return f"<Run {str(self.path)!r} ({mode}): {self.n} samples, {len(self.classes)} classes>"

    def _repr_html_(self) -> str:
        from stores.shown import run_html

        return run_html(self)

    @property
    def samples(self) -> Table:
        """The table "samples": ids, labels, predictions, logits, metadata, thumbnails."""
        return self.table("samples")

    def create_table(
        self, name: str, columns: Sequence[Column], *, rows_per_shard: int, provenance: Provenance
    ) -> Table:
        """Create a table, or open the one of this name if it is the same in everything.

        Args:
            name: "samples", or "relevance/<method>".
            columns: what each row holds; see ``sample_columns`` and ``relevance_columns``.
            rows_per_shard: rows written and committed at once; aim at 64 to 512 MiB for full maps.
            provenance: how the values are made.

        Raises:
            StoreError: there is another table of this name, or two columns have one name.
        """
        self.check_writable()
        key = self._table_key(name)
        names = [column.name for column in columns]
        if not columns or len(set(names)) != len(names) or rows_per_shard < 1:
            raise StoreError(
                f"table {name!r}: needs columns of different names and at least one row per shard, got "
                f"columns {names} and {rows_per_shard} rows per shard."
            )
        content: dict[str, Json] = {
            "name": name,
            "columns": [column.to_json() for column in columns],
            "rows": self.n,
            "rows_per_shard": rows_per_shard,
            "provenance": provenance.to_json(),
            "compression": COMPRESSION,
            "run": self.digest,
        }
        if "/" in key:
            ensure_group(self.floor, key.partition("/")[0])
        if self.floor.size(f"{key}/{ROOT}") is None:
            self._refuse_other_commits(Table(self.floor, key, content, self.n, self.writable))
        create_once(self.floor, f"{key}/{ROOT}", group_document(element("table", content)))
        stored = self._table_content(key)
        if stored is not None:
            for entry in LATER:  # a table goes on as it began
                content.pop(entry, None)
                content |= {entry: stored[entry]} if entry in stored else {}
        if stored is not None and min(stored["rows_per_shard"], rows_per_shard) >= self.n:
            content["rows_per_shard"] = stored["rows_per_shard"]  # one shard holds all rows, either way
        if stored != json.loads(json.dumps(content)):
            raise StoreError(
                f"{self.path}: there is a table {name!r} already, and it differs in "
                f"{difference(stored, content)}. A table is never changed: give the new one another name, "
                "or write to a new store."
            )
        table = Table(self.floor, key, content, self.n, self.writable)
        table.ensure_documents()
        return table

    def _refuse_other_commits(self, table: Table) -> None:
        """Of a table whose document was lost: the new one has to be what the shards that are there were made for.

        Raises:
            StoreError: it is not.
        """
        ledger = Ledger(self.floor)
        for shard in ledger.numbers(table.key):
            with contextlib.suppress(Damaged):  # which is told by a check
                commit = ledger.commit(f"{table.key}/{shard}")
                if commit is not None and (what := table.contradiction(shard, commit)):
                    raise StoreError(
                        f"{self.path}: the table {table.name!r} lost its zarr.json, and its shards were committed for "
                        f"{what} than it would have now. Nothing was changed: run the command with the options, and "
                        "the releases of packages, that it was made with (the run log tells), which writes it anew."
                    )
                return

    def rows_per_shard(self) -> int | None:
        """That of the tables that are there, or were, as their commits tell; None where there are none."""
        for key in self.table_keys():
            if (table := self.table_at(key)) is not None:
                return table.rows_per_shard
        ledger = Ledger(self.floor)
        for key in self.table_keys():
            with contextlib.suppress(Damaged):
                for shard in ledger.numbers(key)[:1]:
                    if (commit := ledger.commit(f"{key}/{shard}")) is not None:
                        first, stop = commit.content["rows"]
                        return int(first // shard if shard else stop - first)
        return None

    def table(self, name: str) -> Table:
        """An existing table.

        Raises:
            KeyError: there is no such table.
        """
        table = self.table_at(self._table_key(name))
        if table is None:
            raise KeyError(f"{self.path} has no table {name!r}; it has {', '.join(self.tables()) or 'none'}")
        return table

    def table_at(self, key: str) -> Table | None:
        """The table at a key of the store; None if there is none."""
        content = self._table_content(key)
        return None if content is None else Table(self.floor, key, content, self.n, self.writable)

    def says(self, key: str) -> bool:
        """Whether the document of a table can be read, be it that of a table of another run."""
        try:
            return content_in(self.floor.read(f"{key}/{ROOT}") or b"", "table", key) is not None
        except Damaged:
            return False

    def table_keys(self) -> list[str]:
        """Keys where tables may lie."""
        return table_keys(self.floor)

    def tables(self) -> list[str]:
        """Names of all tables."""
        tables = (self.table_at(key) for key in self.table_keys())
        return [table.name for table in tables if table is not None]

    def create_analysis(
        self, provenance: Provenance, *, facts: Mapping[str, Any], groups: Iterable[int] | None = None
    ) -> AnalysisHandle:
        """Create an analysis, or go on with the one of the same provenance.

        ``facts`` say at least which relevance table and column were analysed, how samples were grouped
        ("label", "prediction" or "all") and the grid (y, x) of the maps. ``groups`` are those that are going to be
        written, so that a check can tell which are not.
        """
        self.check_writable()
        return create_analysis(self.floor, provenance, facts, groups)

    def write_analysis(
        self, provenance: Provenance, groups: Iterable[GroupAnalysis], *, facts: Mapping[str, Any]
    ) -> AnalysisHandle:
        """``create_analysis`` and ``write`` of every group."""
        handle = self.create_analysis(provenance, facts=facts)
        for group in groups:
            handle.write(group)
        return handle

    def analyses(self) -> list[str]:
        """Ids of all analyses, oldest first."""
        return [handle.id for handle in list_analyses(self.floor, self.writable)]

    def analysis(self, id: str | None = None) -> AnalysisHandle:
        """An analysis by its id (or the beginning of it), or the newest one with a committed group.

        Raises:
            Uncommitted: there is none yet.
            KeyError: no analysis, or more than one, has an id that begins like this.
        """
        handles = list_analyses(self.floor, self.writable)
        if id is not None:
            found = [handle for handle in handles if id and handle.id.startswith(id)]
            if len(found) != 1:
                ids = ", ".join(handle.id for handle in handles) or "none"
                raise KeyError(f"{self.path} has {len(found)} analyses whose id begins {id!r}; it has {ids}")
            return found[0]
        for handle in reversed(handles):
            if handle.groups:
                return handle
        raise Uncommitted(f"{self.path} has no analysis yet; run `spray analyze` first.")

    def shown_analysis(self, id: str | None = None) -> AnalysisHandle:
        """An analysis by its id, or the one that reports, exports and corrections are of where none is named.

        That is the newest that can tell of suspicion: its findings were tested, or there are none; else the newest that
        was searched for them, else the newest. One that was only begun takes no other's place.

        Raises: as ``analysis``.
        """
        if id is not None:
            return self.analysis(id)
        handles = [handle for handle in list_analyses(self.floor, self.writable) if handle.groups]
        searched = [handle for handle in reversed(handles) if handle.searched]
        if len(searched) > 1:
            for handle in searched:
                findings = handle.findings()
                if not findings or any(map(is_tested, findings)):
                    return handle
        return searched[0] if searched else self.analysis()

    def add_verdict(self, verdict: Verdict) -> None:
        """Append a verdict."""
        self.check_writable()
        add_verdict(self.floor, verdict)

    def verdicts(self) -> VerdictList:
        """Every verdict in the order they were given; a later one on the same subject supersedes."""
        return VerdictList(read_verdicts(self.floor))

    def _table_key(self, name: str) -> str:
        if name != "samples" and not name.startswith("relevance/"):
            raise KeyError(f"a table is called 'samples' or 'relevance/<method>', not {name!r}")
        return table_key(name)

    def _table_content(self, key: str) -> dict[str, Any] | None:
        document, where = self.floor.read(f"{key}/{ROOT}"), f"{self.floor.url}/{key}"
        if document is None:
            return None
        if (content := content_in(document, "table", where)) is None:
            raise Damaged(f"{where}: its zarr.json does not say that it is a table.")
        self._refuse_other_run(content, key)
        return content

    def refuse_other_root(self) -> None:
        """Refuse a root that is not that of the samples beside it: its names would be told as those of their classes.

        Raises:
            Damaged: so it is.
        """
        where = f"{self.floor.url}/samples"
        content = None
        with contextlib.suppress(StoreError):  # what is wrong with the samples is told to who reads them
            content = content_in(self.floor.read(f"samples/{ROOT}") or b"", "table", where)
        if content is not None:
            self._refuse_other_run(content, "samples")

    def _refuse_other_run(self, content: Mapping[str, Any], key: str) -> None:
        """Of what the document of the table at this key says."""
        where = f"{self.floor.url}/{key}"
        if table_key(content["name"]) != key:
            raise Damaged(
                f"{where}: its zarr.json is that of the table {content['name']!r}. Put the right one in its "
                "place, or remove it: the command that made the table writes it anew."
            )
        if content["rows"] != self.n:
            raise Damaged(
                f"{where}: the table has {content['rows']} rows and the run {self.n} samples: one of the two zarr.json "
                "is that of another store. Put the right one in its place."
            )
        if content.get("run", self.digest) != self.digest:
            raise Damaged(
                f"{where}: the table is that of another run: of other classes, or of another model or data set. One of "
                f"the two zarr.json, the table's or the root's ({self.floor.url}/{ROOT}), is that of another store. "
                "Put the right one in its place."
            )

    def check_writable(self) -> None:
        """Refuse to write where that cannot be; long work asks before it begins.

        Raises:
            StoreError: the run was opened for reading.
        """
        if not self.writable:
            raise StoreError(f"{self.path} is open for reading; open it with mode 'r+' to write.")


def create(path: Location, *, classes: Sequence[str], samples: int, provenance: Mapping[str, Any]) -> Run:
    """Create a store, or open for writing the one that is there if it is for the same run.

    Args:
        path: a folder, by custom "<name>.zarr", or a URL such as "s3://bucket/run.zarr".
        classes: names of the model's classes, by index.
        samples: number of samples of the data set.
        provenance: what makes this run this run (model, data, …), as JSON; no times, no secrets.

    Raises:
        StoreError: there is a store for another run.
        NotAStore: the path is a file, or a folder with something else in it.
    """
    content: dict[str, Json] = {
        "classes": list(classes),
        "samples": int(samples),
        "provenance": to_json(dict(provenance)),
    }
    refuse_place(path)
    floor = floor_at(path)
    if floor.read(ROOT) is None:
        if not is_lost_root(floor, content):
            refuse_taken(floor, path)
        create_once(floor, ROOT, group_document(element("run", content)))
    run = open(path, mode="r+")
    stored = {"classes": list(run.classes), "samples": run.n, "provenance": run.provenance}
    if stored != json.loads(json.dumps(content)):
        raise StoreError(
            f"{path} holds another run: it differs in {difference(stored, content)}. Nothing was changed: "
            "choose another path, or remove the folder if you no longer need it."
        )
    keep_copy(floor)
    return run


def open(path: Location, mode: Literal["r", "r+"] = "r") -> Run:
    """Open a store, for reading or ("r+") for reading and writing. Several processes may do either at once.

    Opening for writing removes what writers that died left behind: temporary files and leases.

    Raises:
        NotAStore: there is nothing, a file, or something else at the path.
        UnknownVersion: the store is of a version that this one does not know; for writing, also if any table or
            analysis of it is. Nothing was changed.
        Damaged: its root document cannot be read, or is that of another run than the samples'.
    """
    if mode not in ("r", "r+"):
        raise StoreError(f"mode is 'r' or 'r+', got {mode!r}; use stores.create for a new store.")
    run, lost = opened(path, writable=mode == "r+")
    if isinstance(lost, Unreadable):
        raise lost
    if lost is not None:
        raise type(lost)(
            f"{lost} Nothing was changed: `spray check {path} --repair` says what is left, and writes {ROOT} again "
            "from its copy, or tells which command does."
        ) from lost
    run.refuse_other_root()
    if run.writable:
        refuse_newer(run.floor)
        Ledger(run.floor).sweep()
    return run


def opened(path: Location, *, writable: bool) -> tuple[Run, StoreError | None]:
    """Open a store as it is, without removing what dead writers left; raises as ``open`` where there was none.

    Where the root cannot be read, which the second value says, the run is what lies beside it tells.
    """
    floor = floor_at(path)
    where = floor.root if isinstance(floor, LocalFloor) else str(path)
    try:
        return Run(floor, where, _root_content(floor, path), writable), None
    except (NotAStore, Damaged, Unreadable) as error:
        if not was_store(floor):
            raise
        return told_without_root(floor, where, writable=writable), error


def told_without_root(floor: Floor, where: Location, *, writable: bool) -> Run:
    """The run of a store whose root is lost, as far as its copy or else its tables tell."""
    content, digest = told_beside(floor)
    return Run(floor, where, content, writable, digest)


def _root_content(floor: Floor, path: Location) -> dict[str, Any]:
    document = floor.read(ROOT)
    content = None if document is None else content_in(document, "run", str(path))
    if content is not None:
        return content
    if document is not None and was_store(floor):
        raise Damaged(f"{path}: its zarr.json does not say that it is a run.")
    lost = f"It was one, and lost its {ROOT}." if was_store(floor) else "Expected a folder made by `spray`."
    raise NotAStore(f"{path} is no run store: {what_is_there(floor)} {lost}")
