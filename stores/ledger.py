"""The ledger: units of files written once, and the commit records that readers trust and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stores.errors import Damaged, NoHardLinks, StoreBusy, StoreError
from stores.floor import Floor
from stores.names import is_key, safe_key
from stores.owners import Owner
from stores.provenance import Json, canonical_json
from stores.schema import content_of, element, parsed

COMMITS = "ledger/commits"
LEASES = "ledger/leases"
PATIENCE, PAUSE = 10.0, 0.01
"""Seconds for which another who writes the same single file is waited for, and between two looks."""
_COMMIT = ".json"
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_LEASE = re.compile(r"[a-z0-9_.=-]+-[0-9a-f]{16}")

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
            content = content_of(parsed(data), "commit", where)
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


@dataclass(frozen=True)
class Lease:
    """What lies in the store for a claim. No other lease ever has the same key."""

    key: str
    unit: str
    holder: Owner | None
    """None where the owner is gone."""


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
            StoreBusy: another owner is writing the unit, or the claim was released by somebody else.
            StoreError: the unit was committed before with other bytes, or the claim is on another unit.
        """
        if claim is not None and claim.unit != unit:
            raise StoreError(
                f"{self.floor.url}: the claim is on {claim.unit}, so {unit} is not written under it."
            )
        records = {key: fingerprint(data) for key, data in sorted(files.items())}
        commit = Commit(unit, records, content)
        with contextlib.nullcontext(claim) if claim else self.claim(unit) as held:
            self._refuse_if_lost(held)
            before = self.commit(unit)
            self._refuse_if_other(before, commit)
            self.floor.put_all(
                {
                    key: data
                    for key, data in files.items()
                    if before is None or not self._intact(key, records[key])
                }
            )
            if before is None:
                self._refuse_if_lost(held)
                if not self.floor.create(self._key(unit), commit.to_bytes(), leased=True):
                    self._refuse_if_other(self.commit(unit), commit)

    def _refuse_if_other(self, before: Commit | None, commit: Commit) -> None:
        if before is None:
            return
        # What an older release did not state yet is no contradiction; the files are compared by their digests.
        stated = {key: value for key, value in commit.content.items() if key in before.content}
        if before.to_bytes() != replace(commit, content=stated).to_bytes():
            raise StoreError(
                f"{self.floor.url}: {commit.unit} is committed already, with other content. What is committed "
                "stays: write to another table or analysis, or to a new store."
            )

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
        return [name.removesuffix(_COMMIT) for name in names if is_key(name) and name.endswith(_COMMIT)]

    def numbers(self, prefix: str) -> list[int]:
        """The same where units are numbers, ascending."""
        return sorted(int(unit) for unit in self.units(prefix) if _NUMBER.fullmatch(unit))

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

        Whoever wants a unit lays down a lease of his own, under a key that nobody uses again, and only then
        looks who else has one: of two, the later sees the earlier (Dekker's flags). One who sees another living
        one takes his own back. So whoever removes a lease that he found dead can never hit its successor.

        Raises:
            StoreBusy: a living owner, or one on another machine, holds it.
        """
        claim = self._acquire(unit)
        try:
            yield claim
        finally:
            _held.discard(claim.token)
            self.floor.delete(_lease(unit, claim.token))

    def release(self, unit: str, owner: Owner | None = None) -> None:
        """Remove the leases of a unit (of one owner only, if given): only for one that is known to be gone.

        Should he live all the same, his claim is lost and his next write refused.
        """
        for lease in self._leases_of(unit):
            if owner is None or (lease.holder is not None and lease.holder.mark == owner.mark):
                self.floor.delete(lease.key)

    def leases(self) -> list[Lease]:
        """Every lease, and who holds it."""
        return self._leases(self.floor.names(LEASES))

    def sweep(self) -> None:
        """Remove what dead writers left: temporary files and leases."""
        for key in self.floor.litter():
            self.floor.delete(key)
        for lease in self.leases():
            if lease.holder is None:
                self.floor.delete(lease.key)

    def _acquire(self, unit: str) -> Claim:
        me, claim = Owner.me(), Claim(unit, secrets.token_hex(8))
        record: dict[str, Json] = {
            "unit": unit,
            "machine": me.machine,
            "pid": me.pid,
            "start": me.start,
            "host": me.host,
            "system": me.system,
            "boot": me.boot,
            "token": claim.token,
        }
        mine = _lease(unit, claim.token)
        _held.add(claim.token)
        try:
            for attempt in itertools.count(1):
                self._refuse_if_held(unit)
                self.floor.put(mine, canonical_json(record).encode())
                others = [lease for lease in self._leases_of(unit) if lease.key != mine]
                if all(lease.holder is None for lease in others):
                    for lease in others:
                        self.floor.delete(lease.key)
                    return claim
                # Two came at once and may both give way; who comes again after an uneven pause finds it free.
                self.floor.delete(mine)
                time.sleep(secrets.randbelow(1 + min(attempt, 20)) / 1000)
        except BaseException:
            _held.discard(claim.token)
            self.floor.delete(mine)
            raise
        raise AssertionError  # the count does not end

    def _refuse_if_held(self, unit: str) -> None:
        for lease in self._leases_of(unit):
            if lease.holder is not None:
                raise StoreBusy(
                    f"{self.floor.url}: {unit} is being written by {lease.holder}. Wait for it; if it is gone "
                    "for good, `spray check --repair` releases it."
                )

    def _refuse_if_lost(self, claim: Claim) -> None:
        if self.floor.size(_lease(claim.unit, claim.token)) is None:
            raise StoreBusy(
                f"{self.floor.url}: the claim on {claim.unit} is not held any more, so another process may be writing "
                "it; `spray check --repair` while a stage runs would release it. Nothing was committed: run the "
                "stage again."
            )

    def _leases_of(self, unit: str) -> list[Lease]:
        key = safe_key(unit)
        return self._leases(name for name in self.floor.names(LEASES) if name.rpartition("-")[0] == key)

    def _leases(self, names: Iterable[str]) -> list[Lease]:
        found = []
        for name in names:
            if not _LEASE.fullmatch(name):
                continue
            data = None
            with contextlib.suppress(
                Damaged
            ):  # a folder, a link: no writer made it, and nobody holds anything by it
                data = self.floor.read(f"{LEASES}/{name}")
            if data is not None:  # else it was released since it was listed
                found.append(_judged(f"{LEASES}/{name}", data))
        return found

    def _intact(self, key: str, expected: tuple[int, str]) -> bool:
        data = self.floor.read(key)
        return data is not None and fingerprint(data) == expected

    @staticmethod
    def _key(unit: str) -> str:
        return f"{COMMITS}/{unit}{_COMMIT}"


def create_once(floor: Floor, key: str, data: bytes) -> bool:
    """``floor.create`` of a file that is no unit's, under a lease of its own where the file system needs one.

    Raises:
        StoreBusy: another owner has been writing this very file for longer than that takes.
    """
    try:
        return floor.create(key, data)
    except NoHardLinks:
        pass
    waiting = time.monotonic() + PATIENCE
    while True:
        try:
            with Ledger(floor).claim(key):
                return floor.create(key, data, leased=True)
        except StoreBusy:
            if time.monotonic() > waiting:
                raise
            time.sleep(PAUSE)


def _lease(unit: str, token: str) -> str:
    return f"{LEASES}/{safe_key(unit)}-{token}"


def _judged(key: str, data: bytes) -> Lease:
    """A lease as it stands now. It is written whole, so one that cannot be read is nobody's."""
    try:
        record = parsed(data)
        unit, token = str(record["unit"]), record["token"]
        machine, host = str(record["machine"]), str(record["host"])
        system, boot = str(record.get("system", "")), str(record.get("boot", ""))
        owner = Owner(machine, int(record["pid"]), int(record["start"]), host, system, boot)
    except (ValueError, KeyError, TypeError):
        return Lease(key, key, None)
    alive = token in _held if owner.mark == Owner.me().mark else owner.alive
    return Lease(key, unit, owner if alive else None)
