"""Tables: one row per sample, written in whole shards, read only where committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Int

from stores import made_from, raw
from stores.encoding import (
    COMPRESSIONS,
    FIRST_COMPRESSION,
    column_arrays,
    column_documents,
    decode,
    encode_shard,
)
from stores.errors import Damaged, StoreError, Uncommitted, UnknownVersion
from stores.floor import Floor
from stores.ledger import Claim, Commit, Ledger
from stores.names import is_key, safe_key
from stores.owners import Owner
from stores.provenance import Json, Provenance, to_json
from stores.schema import Column, parsed
from stores.values import clean, surely_finite

DOCUMENT = "zarr.json"
SAMPLES = "samples"
Rows = slice | Sequence[int] | np.ndarray | None


def table_key(name: str) -> str:
    """Where a table of this name lies: "samples", or "relevance/…" with the rest of the name escaped."""
    kind, _, rest = name.partition("/")
    return f"{kind}/{safe_key(rest)}" if rest else kind


def table_keys(floor: Floor) -> list[str]:
    """Keys where tables may lie."""
    names = [name for name in floor.names("relevance") if is_key(name) and name != DOCUMENT]
    return [SAMPLES, *(f"relevance/{name}" for name in names)]


class Table:
    """Columns over the same samples. Obtained from ``Run.table`` or ``Run.create_table``."""

    def __init__(self, floor: Floor, key: str, content: Mapping[str, Any], rows: int, writable: bool) -> None:
        self.name: str = content["name"]
        self.columns = {record["name"]: Column.from_json(record) for record in content["columns"]}
        """Every column by name, in the order they were declared."""
        self.provenance = Provenance.from_json(content["provenance"])
        self.n = rows
        self.rows_per_shard = max(1, min(int(content["rows_per_shard"]), rows))
        self._compression: str = content.get("compression", FIRST_COMPRESSION)
        if self._compression not in COMPRESSIONS:
            raise UnknownVersion(
                f"{floor.url}: the maps of {self.name!r} are compressed by {self._compression!r}; this reader knows "
                f"{', '.join(COMPRESSIONS)}. The store was left untouched: upgrade spray-audit to read it."
            )
        self._floor, self._key, self._writable = floor, key, writable
        self._ledger = Ledger(floor)
        self._commits: dict[int, Commit] = {}
        self._sound: set[tuple[int, str]] = set()
        self._matched: set[int] = set()
        self._documented = self._complete = False
        self._whole: Bool[np.ndarray, " n"] | None = None
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def __repr__(self) -> str:
        done = len(self.committed)
        return (
            f"<Table {self.name!r}: {self.n} rows, {list(self.columns)}, {done} of {len(self.shards)} shards>"
        )

    def _repr_html_(self) -> str:
        from stores.shown import table_html

        return table_html(self)

    @property
    def key(self) -> str:
        """Where it lies in the store; its shards are the units ``<key>/<number>``."""
        return self._key

    @property
    def shards(self) -> list[range]:
        """The rows of every shard."""
        size = self.rows_per_shard
        return [range(low, min(low + size, self.n)) for low in range(0, self.n, size)]

    def missing(self) -> list[int]:
        """Shards not committed yet, also by another process meanwhile; writing these completes the table."""
        if self._complete:
            return []  # what is committed stays so
        committed = set(self._ledger.numbers(self._key))
        absent = [shard for shard in range(len(self.shards)) if shard not in committed]
        self._complete = not absent
        return absent

    @property
    def committed(self) -> list[int]:
        """The other shards, ascending."""
        return sorted(set(range(len(self.shards))).difference(self.missing()))

    @property
    def complete(self) -> bool:
        """Whether every shard is committed."""
        return not self.missing()

    @property
    def failures(self) -> dict[int, str]:
        """Why a committed row has no values, by row number, ascending."""
        reasons = {}
        for shard in self.committed:
            reasons.update(self.failed_in(shard))
        return dict(sorted(reasons.items()))

    def failed_in(self, shard: int) -> dict[int, str]:
        """The same of one shard.

        Raises:
            Uncommitted: the shard is not written yet.
        """
        return {int(row): reason for row, reason in self._commit(shard).content["failed"].items()}

    @property
    def ok(self) -> Bool[np.ndarray, " n"]:
        """Which rows are committed and did not fail."""
        if self._whole is not None:
            return self._whole.copy()
        mask = np.zeros(self.n, bool)
        shards = self.shards
        for shard in self.committed:
            rows = shards[shard]
            mask[rows.start : rows.stop] = True
            mask[[int(row) for row in self._commit(shard).content["failed"]]] = False
        if self._complete:
            self._whole = mask.copy()
        return mask

    def facts(self, shard: int) -> dict[str, Any]:
        """What the commit of a shard says beside its rows, such as a batch that had to be halved.

        Raises:
            Uncommitted: the shard is not written yet.
        """
        return dict(self._commit(shard).content["facts"])

    def claim(self, shard: int) -> AbstractContextManager[Claim]:
        """Hold the right to write a shard while its values are computed; pass the claim on to ``write``.

        Raises:
            StoreBusy: another process, or thread, holds it.
        """
        self._check_writable()
        return self._ledger.claim(self._unit(shard))

    def release(self, shard: int, owner: Owner | None = None) -> None:
        """Remove the claim on a shard (of one owner only, if given) of one known to be gone, as a killed worker."""
        self._check_writable()
        self._ledger.release(self._unit(shard), owner)

    def take_back(self, shard: int) -> None:
        """Make a shard one that is not written, so that it can be written with other values.

        Raises:
            StoreBusy: another process is writing it.
            UnknownVersion: a later release wrote it.
        """
        with self.claim(shard):
            with suppress(Damaged):
                self._ledger.commit(self._unit(shard))
            self._ledger.retract(self._unit(shard))
        self._commits.pop(shard, None)
        self._matched.discard(shard)
        self._sound = {entry for entry in self._sound if entry[0] != shard}
        self._complete, self._whole = False, None

    def write(
        self,
        shard: int,
        columns: Mapping[str, Any],
        failed: Mapping[int, str] | None = None,
        *,
        claim: Claim | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> dict[int, str]:
        """Write one whole shard: every column for each of its rows, then the commit record.

        Args:
            shard: number of the shard, an index into ``shards``.
            columns: values of every column, one entry per row of the shard, in row order.
            failed: reason by row number (of the store, not of the shard); those rows' values are replaced by
                fill. A row with a NaN or an infinity in a column that does not allow them is failed too.
            claim: the claim under which this is written, if the caller holds one.
            facts: what else the commit should say, such as a batch that had to be halved.

        Returns:
            All failed rows of the shard with their reasons.

        Raises:
            StoreError: a column is missing, unknown, or of the wrong shape or type; nothing was written then.
                Also if the shard was committed before with other values.
            StoreBusy: another owner is writing this shard.
        """
        self._check_writable()
        unit, rows = self._unit(shard), self.shards[shard]
        values, reasons = clean(list(self.columns.values()), rows, columns, dict(failed or {}), self.name)
        files, seals = {}, {}
        for name, column in self.columns.items():
            folder = f"{self._key}/{safe_key(name)}"
            chunks = encode_shard(column, self.n, self.rows_per_shard, rows, values[name], self._compression)
            for key, data in chunks.items():
                files[folder + key] = data
                seals[folder + key] = raw.seal(column, self.rows_per_shard, data)
        if not self._documented:
            self.ensure_documents()
        content: dict[str, Json] = {
            "rows": [rows.start, rows.stop],
            "failed": {str(row): reason for row, reason in reasons.items()},
            "provenance": self.provenance.id,
            "facts": to_json(dict(facts or {})),
            "seals": to_json(seals),
        }
        self._ledger.write(unit, files, content, claim)
        return reasons

    def read(self, column: str, rows: Rows = None) -> np.ndarray:
        """Values of a column, the first axis following ``rows`` (None: all; any order, repeats allowed).

        Failed rows read as the column's fill: NaN, −1, 0 (unsigned), False or "". Text comes as an object
        array.

        Raises:
            KeyError: there is no such column.
            Uncommitted: a row asked for is not committed yet.
            Damaged: the bytes are not those that were committed.
        """
        spec = self._column(column)
        wanted = self._row_numbers(rows)
        unique, inverse = np.unique(wanted, return_inverse=True)
        dtype = np.dtype(object if spec.dtype == "str" else spec.dtype)
        values = np.empty((len(unique), *spec.shape), dtype)
        for shard, piece in self._pieces(unique):
            start, stop = np.searchsorted(unique, [piece[0], piece[-1] + 1])
            self._read_shard(spec, shard, piece, values[start:stop])
        return values if np.array_equal(unique, wanted) else values[inverse]

    def iterate(self, column: str, rows: Rows = None) -> Iterator[tuple[Int[np.ndarray, " m"], np.ndarray]]:
        """(row numbers, values) shard by shard, rows ascending and each once; memory holds one shard.

        Raises: as ``read``, before the first shard is read.
        """
        spec = self._column(column)
        pieces = self._pieces(np.unique(self._row_numbers(rows)))
        return ((piece, self._read_shard(spec, shard, piece)) for shard, piece in pieces)

    def _pieces(self, rows: Int[np.ndarray, " m"]) -> list[tuple[int, Int[np.ndarray, " k"]]]:
        """Ascending rows by shard, all of which are committed."""
        numbers, starts = np.unique(rows // self.rows_per_shard, return_index=True)
        shards = [int(shard) for shard in numbers]
        self._require(set(shards))
        return list(zip(shards, np.split(rows, starts[1:]) if len(rows) else [], strict=True))

    def _read_shard(
        self, column: Column, shard: int, rows: Int[np.ndarray, " m"], out: np.ndarray | None = None
    ) -> np.ndarray:
        """Values of ascending rows of a shard, written into ``out`` if it is given."""
        commit = self._commit(shard)
        self._check_inputs(shard, commit)
        key = f"{self._key}/{safe_key(column.name)}"
        parts = {}
        for suffix in column_arrays(column):
            self._check_files(shard, commit, key + suffix, column)
            if key + suffix not in self._arrays and not raw.readable(column):
                self._arrays[key + suffix] = self._array(column, key + suffix)
            parts[suffix] = self._decoded(column, commit, key + suffix, rows, out)
        values = decode(column, parts)
        if out is not None and values is not out:
            out[...] = values
        if column.dtype.startswith("float") and not column.missing and not surely_finite(values):
            holes = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            failed = {int(row) for row in commit.content["failed"]}
            for row in rows[holes].tolist():
                if row not in failed:
                    raise Damaged(
                        f"{self._floor.url}: row {row} of {self.name!r}, column {column.name!r}, is "
                        "committed as good but holds NaN. `spray check --repair` sets its shard aside for "
                        "running again."
                    )
        return values

    def _decoded(
        self, column: Column, commit: Commit, key: str, rows: Int[np.ndarray, " m"], out: np.ndarray | None
    ) -> np.ndarray:
        try:
            if raw.readable(column):
                seals = commit.content.get("seals", {})
                return raw.read_rows(self._floor, key, column, rows, self.rows_per_shard, seals, out)
            return self._read_rows(key, rows)
        except Exception as error:  # whatever zarr and its codecs make of broken bytes
            if not _says_that_bytes_are_broken(error):
                raise
            raise Damaged(
                f"{self._floor.url}: {commit.unit}, column {column.name!r}, cannot be decoded "
                f"({error}). `spray check --repair` sets it aside, and running the stage again redoes it."
            ) from error

    def _read_rows(self, key: str, rows: Int[np.ndarray, " m"]) -> np.ndarray:
        """Rows of one array within a shard: runs of inner chunks are read whole and the rows picked from them."""
        array = self._arrays[key]
        size = array.chunks[0]
        chunks = rows // size
        cuts = np.flatnonzero(np.diff(chunks) > 1) + 1
        pieces = []
        for run in np.split(rows, cuts):
            low = int(run[0]) // size * size
            high = min((int(run[-1]) // size + 1) * size, self.n)
            block = np.asarray(array[low:high])
            pieces.append(block if len(run) == high - low else block[run - low])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _array(self, column: Column, key: str) -> zarr.Array[Any]:
        """An array for Zarr to read: by what the table's columns say, since its own document is no part of a commit."""
        document = f"{key}/{DOCUMENT}"
        if not self._as_written(document, self._documents_of(column)[document]):
            raise Damaged(
                f"{self._floor.url}: {document} is missing or altered, so its values would be read as others. "
                "`spray check --repair` writes it again; no value is lost."
            )
        return zarr.open_array(self._floor.zarr(), path=key, mode="r")

    def _check_files(self, shard: int, commit: Commit, key: str, column: Column) -> None:
        """A missing, shortened or strange file reads as fill values, or as others', without a word; so look first."""
        if (shard, key) in self._sound:
            return
        seals = {} if raw.readable(column) else commit.content.get("seals", {})
        for file, (expected, _) in commit.files.items():
            if not file.startswith(f"{key}/"):
                continue
            with self._floor.parts(file) if file in seals else nullcontext() as parts:
                size = parts.size if parts else self._floor.size(file)
                if size != expected or (parts and not raw.ends_as(parts, seals[file])):
                    raise Damaged(self._ledger.damage(commit.unit, file, size, expected))
        self._sound.add((shard, key))

    def _check_inputs(self, shard: int, commit: Commit) -> None:
        """Relevance of other pixels than the samples' is sound in itself; the commits tell, where both can be read."""
        if shard in self._matched:
            return
        samples = None
        if self._key != SAMPLES and made_from.UNUSED in commit.content["facts"]:
            with suppress(Damaged):  # which is told to who reads the samples
                samples = self._ledger.commit(f"{SAMPLES}/{shard}")
        if samples is not None and made_from.differ(samples, commit):
            raise Damaged(
                f"{self._floor.url}: shard {shard} of {self.name!r} was made from other pixels than the samples of its "
                "rows: one of the two is that of another store. `spray check --repair` sets it aside, and running the "
                "stage again redoes it."
            )
        self._matched.add(shard)

    def _row_numbers(self, rows: Rows) -> Int[np.ndarray, " m"]:
        if rows is None:
            return np.arange(self.n)
        if isinstance(rows, slice):
            return np.arange(*rows.indices(self.n))
        numbers = np.asarray(rows)
        if numbers.dtype == bool or (numbers.size and numbers.dtype.kind not in "iu") or numbers.ndim != 1:
            raise StoreError(
                f"rows of {self.name!r}: expected None, a slice or a list of row numbers, got "
                f"{numbers.dtype} of shape {numbers.shape}. For a mask, use numpy.flatnonzero(mask)."
            )
        numbers = numbers.astype(np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < self.n):
            raise StoreError(
                f"rows of {self.name!r}: row numbers go from 0 to {self.n - 1}, got {numbers.min()} to "
                f"{numbers.max()}."
            )
        return numbers

    def _require(self, shards: set[int]) -> None:
        missing = sorted(shards.difference(self._commits).intersection(self.missing()))
        if missing:
            raise Uncommitted(
                f"{self._floor.url}: {len(missing)} of {len(self.shards)} shards of {self.name!r} are not "
                f"written yet (first: {missing[0]}, rows {self.shards[missing[0]].start} to "
                f"{self.shards[missing[0]].stop - 1}). Run the stage that writes them again, it goes on "
                "where it stopped; or read the rows where `table.ok` is true."
            )

    def _commit(self, shard: int) -> Commit:
        if shard not in self._commits:
            commit = self._ledger.commit(self._unit(shard))
            if commit is None:
                raise Uncommitted(f"{self._floor.url}: shard {shard} of {self.name!r} is not written yet.")
            if commit.unit != self._unit(shard):
                raise Damaged(
                    f"{self._floor.url}: the commit record of shard {shard} of {self.name!r} is that of "
                    f"{commit.unit}. `spray check --repair` sets it aside, and running the stage again redoes it."
                )
            if what := self.contradiction(shard, commit):
                raise Damaged(
                    f"{self._floor.url}: shard {shard} of {self.name!r} was committed for {what} than its table's. "
                    "`spray check --repair` sets it aside, and running the stage again redoes it."
                )
            self._commits[shard] = commit
        return self._commits[shard]

    def contradiction(self, shard: int, commit: Commit) -> str:
        """What a commit in the place of a shard's says otherwise than the table's document; "" where nothing."""
        if commit.content["provenance"] != self.provenance.id:
            return "another provenance"
        rows = self.shards[shard] if shard < len(self.shards) else range(0)
        return "" if commit.content["rows"] == [rows.start, rows.stop] else "other rows"

    def _unit(self, shard: int) -> str:
        if not 0 <= shard < len(self.shards):
            raise StoreError(f"{self.name!r} has shards 0 to {len(self.shards) - 1}, got {shard}.")
        return f"{self._key}/{shard}"

    def _column(self, name: str) -> Column:
        try:
            return self.columns[name]
        except KeyError:
            raise KeyError(
                f"{self.name!r} has no column {name!r}; it has {', '.join(self.columns)}"
            ) from None

    def _check_writable(self) -> None:
        if not self._writable:
            raise StoreError(f"{self._floor.url} is open for reading; open it with mode 'r+' to write.")

    def ensure_documents(self, *keys: str) -> None:
        """Write the metadata of the arrays (only of these, if given) where it is missing or altered."""
        documents = self.documents()
        for key in keys or self.altered_documents():
            self._floor.put(key, documents[key])
        self._documented = not keys

    def altered_documents(self) -> list[str]:
        """Keys of the arrays' metadata that are missing or altered."""
        return [key for key, data in self.documents().items() if not self._as_written(key, data)]

    def _as_written(self, key: str, document: bytes) -> bool:
        try:
            return _same_json(self._floor.read(key), document)
        except Damaged:
            return False

    def documents(self) -> dict[str, bytes]:
        """Metadata of every array of the table, by key; the table's columns say all of it."""
        found: dict[str, bytes] = {}
        for column in self.columns.values():
            found |= self._documents_of(column)
        return found

    def _documents_of(self, column: Column) -> dict[str, bytes]:
        folder = f"{self._key}/{safe_key(column.name)}"
        documents = column_documents(column, self.n, self.rows_per_shard, self._compression)
        return {f"{folder}{suffix}/{DOCUMENT}": document for suffix, document in documents.items()}


def _says_that_bytes_are_broken(error: Exception) -> bool:
    """Not so: no memory, or a service that does not answer."""
    if isinstance(error, StoreError):
        return isinstance(error, Damaged)
    missing = isinstance(error, FileNotFoundError)
    remote = type(error).__module__.startswith("obstore")
    return missing or not (remote or isinstance(error, MemoryError | OSError))


def _same_json(found: bytes | None, expected: bytes) -> bool:
    try:
        return found is not None and bool(parsed(found) == parsed(expected))
    except ValueError:
        return False
