"""The ledger: units of files written once, and the commit records that readers trust and nothing else."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stores.errors import Damaged, StoreBusy, StoreError
from stores.floor import Floor
from stores.owners import Owner
from stores.provenance import Json, canonical_json
from stores.schema import content_of, crc32c, element

ROOT = "ledger"
_COMMIT = ".json"
_LEASE = ".lease-"

_held: set[str] = set()
"""Tokens of the leases this process holds: one that names this process but is not here is a dead one."""


@dataclass(frozen=True)
class Commit:
    """What was committed: length and CRC-32C of every file of the unit, and what the unit says of itself."""

    unit: str
    files: Mapping[str, tuple[int, str]]
    content: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The record as a file, with a CRC-32C of its own."""
        record = element(
            "commit",
            {
                "unit": self.unit,
                "files": {key: {"bytes": size, "crc32c": crc} for key, (size, crc) in self.files.items()},
                "content": self.content,
            },
        )
        return canonical_json(record).encode("utf-8", "surrogatepass")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Commit:
        """The record of a file.

        Raises:
            Damaged: the bytes are not those of a commit record.
            UnknownVersion: they are, of a version that this reader does not know.
        """
        try:
            content = content_of(json.loads(data), "commit", where)
            if content is None:
                raise ValueError("it is no commit record")
            files = {key: (entry["bytes"], entry["crc32c"]) for key, entry in content["files"].items()}
            return cls(content["unit"], files, content["content"])
        except (ValueError, KeyError, TypeError, Damaged) as error:
            raise Damaged(
                f"{where}: the commit record cannot be read ({error}). `spray check --repair` removes it, "
                "and running the stage again redoes only what it stood for."
            ) from error


@dataclass(frozen=True)
class Claim:
    """The right to write one unit, until released."""

    unit: str
    token: str
    generation: int


class Ledger:
    """Commits of one store. A unit is written by one owner at a time, and once."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor

    def write(
        self, unit: str, files: Mapping[str, bytes], content: Mapping[str, Json], claim: Claim | None = None
    ) -> None:
        """Write the files of a unit and then its commit record; until that is there, nothing counts.

        Writing a committed unit again with the same bytes restores the files; with others it is refused.

        Raises:
            StoreBusy: another owner is writing the unit.
            StoreError: the unit was committed before with other bytes.
        """
        records = {key: (len(data), crc32c(data)) for key, data in sorted(files.items())}
        commit = Commit(unit, records, content)
        with contextlib.nullcontext(claim) if claim else self.claim(unit):
            before = self.commit(unit)
            if before is not None and before.to_bytes() != commit.to_bytes():
                raise StoreError(
                    f"{self.floor.url}: {unit} is committed already, with other content. What is committed "
                    "stays: write to another table or analysis, or to a new store."
                )
            for key, data in files.items():
                if before is None or not self._intact(key, records[key]):
                    self.floor.put(key, data)
            if before is None:
                self.floor.create(self._key(unit), commit.to_bytes())

    def commit(self, unit: str) -> Commit | None:
        """The commit record of a unit, None where there is none yet.

        Raises:
            Damaged: there is one, but its bytes are not what was written.
        """
        data = self.floor.read(self._key(unit))
        return None if data is None else Commit.from_bytes(data, f"{self.floor.url}: {self._key(unit)}")

    def units(self, prefix: str) -> list[str]:
        """Last segments of the committed units directly under ``prefix``; nothing is read or verified."""
        names = self.floor.names(f"{ROOT}/{prefix}")
        return [name.removesuffix(_COMMIT) for name in names if name.endswith(_COMMIT)]

    def read(self, unit: str) -> tuple[Commit, dict[str, bytes]]:
        """All files of a small unit, checked byte for byte.

        Raises:
            KeyError: the unit is not committed.
            Damaged: a file is missing or has other bytes.
        """
        commit = self.commit(unit)
        if commit is None:
            raise KeyError(unit)
        files = {}
        for key, (size, crc) in commit.files.items():
            data = self.floor.read(key)
            if data is None or len(data) != size or crc32c(data) != crc:
                raise Damaged(self.damage(unit, key, None if data is None else len(data), size))
            files[key] = data
        return commit, files

    def damage(self, unit: str, key: str, found: int | None, expected: int) -> str:
        """A sentence about a file that is not what was committed."""
        if found is None:
            what = "is missing"
        elif found != expected:
            what = f"has {found} bytes where {expected} were committed"
        else:
            what = "has other bytes than were committed (its checksum does not match)"
        return (
            f"{self.floor.url}: {key} {what}, so {unit} cannot be trusted. `spray check --repair` sets it "
            "aside, and running the stage again redoes only that."
        )

    def retract(self, unit: str) -> None:
        """Remove a unit's commit record: its files count no more, and are replaced when it is written again."""
        self.floor.delete(self._key(unit))

    @contextlib.contextmanager
    def claim(self, unit: str) -> Iterator[Claim]:
        """Hold the right to write a unit.

        Leases are numbered: a lease left by an owner that died is never removed but outnumbered, by creating
        the next number, which only one successor can.

        Raises:
            StoreBusy: a living owner, or one on another machine, holds it.
        """
        claim = self._acquire(unit)
        try:
            yield claim
        finally:
            _held.discard(claim.token)
            self._release(unit, claim.generation)

    def release(self, unit: str) -> None:
        """Remove every lease of a unit, whoever holds it: only for an owner that is known to be gone."""
        self._release(unit, max(self._leases(unit), default=-1))

    def leases(self) -> dict[str, Owner | None]:
        """Units with a lease, and who holds each; None where the owner is gone."""
        holders = {}
        for key in sorted(self.floor.sizes(ROOT)):
            unit, lease, _ = key.removeprefix(f"{ROOT}/").rpartition(_LEASE)
            if lease:
                holders[unit] = self._holder(unit, max(self._leases(unit), default=0))
        return holders

    def _acquire(self, unit: str) -> Claim:
        me, token = Owner.me(), secrets.token_hex(8)
        _held.add(token)
        try:
            while True:
                generation = max(self._leases(unit), default=-1)
                holder = None if generation < 0 else self._holder(unit, generation)
                if holder is not None:
                    raise StoreBusy(
                        f"{self.floor.url}: {unit} is being written by {holder}. Wait for it; if it is gone "
                        "for good, `spray check --repair` releases it."
                    )
                lease: dict[str, Json] = {
                    "machine": me.machine,
                    "pid": me.pid,
                    "start": me.start,
                    "host": me.host,
                    "token": token,
                }
                key = f"{ROOT}/{unit}{_LEASE}{generation + 1}"
                if self.floor.create(key, canonical_json(lease).encode()):
                    return Claim(unit, token, generation + 1)
        except BaseException:
            _held.discard(token)
            raise

    def _leases(self, unit: str) -> list[int]:
        folder, _, name = unit.rpartition("/")
        prefix = f"{name}{_LEASE}"
        names = self.floor.names(f"{ROOT}/{folder}" if folder else ROOT)
        return sorted(int(entry.removeprefix(prefix)) for entry in names if entry.startswith(prefix))

    def _holder(self, unit: str, generation: int) -> Owner | None:
        """Who holds a lease; None where the owner is gone, or the lease is."""
        data = self.floor.read(f"{ROOT}/{unit}{_LEASE}{generation}")
        try:
            lease = json.loads(data or b"")
            owner = Owner(lease["machine"], lease["pid"], lease["start"], lease["host"])
            token = lease["token"]
        except (ValueError, KeyError, TypeError):
            return None
        if owner.mark == Owner.me().mark:
            return owner if token in _held else None
        return owner if owner.alive else None

    def _release(self, unit: str, generation: int) -> None:
        for older in self._leases(unit):
            if older <= generation:
                self.floor.delete(f"{ROOT}/{unit}{_LEASE}{older}")

    def _intact(self, key: str, record: tuple[int, str]) -> bool:
        data = self.floor.read(key)
        return data is not None and (len(data), crc32c(data)) == record

    @staticmethod
    def _key(unit: str) -> str:
        return f"{ROOT}/{unit}{_COMMIT}"
