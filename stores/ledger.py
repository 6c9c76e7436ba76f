"""The ledger: units of files written once, and the commit records that readers trust and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stores.errors import Damaged, StoreBusy, StoreError
from stores.floor import Floor
from stores.names import safe_key
from stores.owners import Owner
from stores.provenance import Json, canonical_json
from stores.schema import content_of, element

COMMITS = "ledger/commits"
LEASES = "ledger/leases"
_COMMIT = ".json"

_held: set[str] = set()
"""Tokens of the leases this process holds: one that names this process but is not here is a dead one."""


def fingerprint(data: bytes) -> tuple[int, str]:
    """What a commit says of a file: length and SHA-256."""
    return len(data), hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Commit:
    """What was committed: length and SHA-256 of every file of the unit, and what the unit says of itself.

    Not a CRC-32C: chunks end in their own, and the CRC of anything followed by its CRC is one constant.
    """

    unit: str
    files: Mapping[str, tuple[int, str]]
    content: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The record as a file, with a CRC-32C of its own."""
        record = element(
            "commit",
            {
                "unit": self.unit,
                "files": {
                    key: {"bytes": size, "sha256": digest} for key, (size, digest) in self.files.items()
                },
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
            files = {key: (entry["bytes"], entry["sha256"]) for key, entry in content["files"].items()}
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
        records = {key: fingerprint(data) for key, data in sorted(files.items())}
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
        names = self.floor.names(f"{COMMITS}/{prefix}")
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
        for key, (size, digest) in commit.files.items():
            data = self.floor.read(key)
            if data is None or fingerprint(data) != (size, digest):
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
        self._release(unit, max(self._generations(unit), default=-1))

    def leases(self) -> dict[str, Owner | None]:
        """Units with a lease, and who holds each; None where the owner is gone."""
        holders = {}
        for name in self.floor.names(LEASES):
            unit = self._lease_record(f"{LEASES}/{name}").get("unit")
            if isinstance(unit, str):
                holders[unit] = self._holder(unit, max(self._generations(unit), default=0))
        return holders

    def sweep(self) -> None:
        """Remove what dead writers left: temporary files and leases."""
        for key in self.floor.litter():
            self.floor.delete(key)
        for unit, holder in self.leases().items():
            if holder is None:
                self.release(unit)

    def _acquire(self, unit: str) -> Claim:
        me, token = Owner.me(), secrets.token_hex(8)
        _held.add(token)
        try:
            while True:
                generation = max(self._generations(unit), default=-1)
                holder = None if generation < 0 else self._holder(unit, generation)
                if holder is not None:
                    raise StoreBusy(
                        f"{self.floor.url}: {unit} is being written by {holder}. Wait for it; if it is gone "
                        "for good, `spray check --repair` releases it."
                    )
                lease: dict[str, Json] = {
                    "unit": unit,
                    "machine": me.machine,
                    "pid": me.pid,
                    "start": me.start,
                    "host": me.host,
                    "token": token,
                }
                if self.floor.create(_lease(unit, generation + 1), canonical_json(lease).encode()):
                    return Claim(unit, token, generation + 1)
        except BaseException:
            _held.discard(token)
            raise

    def _generations(self, unit: str) -> list[int]:
        prefix = f"{safe_key(unit)}-"
        numbers = (name.removeprefix(prefix) for name in self.floor.names(LEASES) if name.startswith(prefix))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _holder(self, unit: str, generation: int) -> Owner | None:
        """Who holds a lease; None where the owner is gone, or the lease is."""
        lease = self._lease_record(_lease(unit, generation))
        try:
            owner = Owner(lease["machine"], lease["pid"], lease["start"], lease["host"])
            token = lease["token"]
        except KeyError:
            return None
        if owner.mark == Owner.me().mark:
            return owner if token in _held else None
        return owner if owner.alive else None

    def _lease_record(self, key: str) -> dict[str, Any]:
        try:
            record = json.loads(self.floor.read(key) or b"")
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    def _release(self, unit: str, generation: int) -> None:
        for older in self._generations(unit):
            if older <= generation:
                self.floor.delete(_lease(unit, older))

    def _intact(self, key: str, expected: tuple[int, str]) -> bool:
        data = self.floor.read(key)
        return data is not None and fingerprint(data) == expected

    @staticmethod
    def _key(unit: str) -> str:
        return f"{COMMITS}/{unit}{_COMMIT}"


def _lease(unit: str, generation: int) -> str:
    return f"{LEASES}/{safe_key(unit)}-{generation}"
