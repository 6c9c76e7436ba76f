"""Any sequence of writing, crashing, resuming, damaging, checking and reading, against a plain dict."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_tools import (
    ROWS,
    Crash,
    FaultyOs,
    be_reborn,
    contents,
    crash_before,
    crash_half_way,
    new_run,
    new_table,
    s3_server,
    values,
)

import stores
from stores import floor as floor_module
from stores.remote import ObjectFloor

SHARDS = [range(4), range(4, 8), range(8, 10)]
TRUTH = values(range(ROWS))


class StoreMachine(RuleBasedStateMachine):
    """Handles come and go, the model remembers which shards a write returned for, and which rows failed."""

    monkeypatch: pytest.MonkeyPatch

    def __init__(self) -> None:
        super().__init__()
        self.committed: dict[int, dict[int, str]] = {}
        self.location = self.new_location()
        self.start()

    def new_location(self) -> Path | str:
        raise NotImplementedError

    def start(self) -> None:
        """Come up as a new process."""
        be_reborn(self.monkeypatch)
        self.table = new_table(new_run(self.location))

    @rule(shard=st.integers(0, 2), failed=st.booleans())
    def write(self, shard: int, failed: bool) -> None:
        failures = {SHARDS[shard].start: "corrupt"} if failed else {}
        if shard in self.committed and self.committed[shard] != failures:
            with pytest.raises(stores.StoreError, match="committed already"):
                self.table.write(shard, values(SHARDS[shard]), failures)
        else:
            self.table.write(shard, values(SHARDS[shard]), failures)
            self.committed[shard] = failures

    @rule()
    def resume(self) -> None:
        for shard in self.table.missing():
            self.table.write(shard, values(SHARDS[shard]))
            self.committed[shard] = {}
        assert self.table.complete

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(shard=st.integers(0, 2))
    def another_writer_is_refused(self, shard: int) -> None:
        other = new_table(new_run(self.location))
        with self.table.claim(shard), pytest.raises(stores.StoreBusy):
            other.write(shard, values(SHARDS[shard]))

    @rule(rows=st.lists(st.integers(0, ROWS - 1), max_size=6), column=st.sampled_from(["id", "map", "score"]))
    def read(self, rows: list[int], column: str) -> None:
        table = stores.open(self.location).table("relevance/test")
        if {row // 4 for row in rows} <= self.committed.keys():
            assert np.array_equal(
                table.read(column, rows), self.expected(column)[rows], equal_nan=column != "id"
            )
        else:
            with pytest.raises(stores.Uncommitted):
                table.read(column, rows)

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def damage_check_and_repair(self, data: st.DataObject) -> None:
        shard = data.draw(st.sampled_from(sorted(self.committed)))
        column = data.draw(st.sampled_from(["id/c/", "map/c/", "score/c/", "map=scale/c/"]))
        prefix = f"relevance/test/{column}{shard}"
        floor = stores.open(self.location).floor
        [key] = [key for key in floor.sizes("relevance/test") if key.startswith(prefix)]
        sound = floor.read(key)
        assert sound is not None
        floor.put(key, self.broken(data, sound))
        problems = stores.check(self.location, repair=True)
        damages = [(it.unit, it.kind) for it in problems if it.kind != "incomplete"]
        assert damages == [(f"relevance/test/{shard}", "bytes")]
        del self.committed[shard]
        self.start()

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def damage_a_commit(self, data: st.DataObject) -> None:
        shard = data.draw(st.sampled_from(sorted(self.committed)))
        key = f"ledger/commits/relevance/test/{shard}.json"
        floor = stores.open(self.location).floor
        floor.put(key, self.broken(data, floor.read(key) or b""))
        with pytest.raises((stores.Damaged, stores.UnknownVersion)):  # a flipped bit may make another version
            stores.open(self.location).table("relevance/test").read("score", [SHARDS[shard].start])
        with contextlib.suppress(stores.UnknownVersion):
            problems = stores.check(self.location, repair=True)
            assert f"relevance/test/{shard}" in {it.unit for it in problems if it.kind == "commit"}
        floor.delete(key)
        del self.committed[shard]
        self.start()

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def damage_a_document(self, data: st.DataObject) -> None:
        column = data.draw(st.sampled_from(["id", "map", "score", "map=scale"]))
        key = f"relevance/test/{column}/zarr.json"
        floor = stores.open(self.location).floor
        sound = floor.read(key) or b""
        altered = self.broken(data, sound)
        floor.put(key, altered)
        meant = True
        with contextlib.suppress(ValueError):
            meant = json.loads(altered) != json.loads(sound)  # a bit of white space says nothing
        if meant:
            with pytest.raises(stores.Damaged):
                row = SHARDS[min(self.committed)].start
                stores.open(self.location).table("relevance/test").read(column.partition("=")[0], [row])
            problems = stores.check(self.location, repair=True)
            assert [it.unit for it in problems if it.kind == "metadata"] == [key.removesuffix("/zarr.json")]
        else:
            floor.put(key, sound)
        assert floor.read(key) == sound

    @staticmethod
    def broken(data: st.DataObject, sound: bytes) -> bytes:
        position = data.draw(st.integers(0, len(sound) - 1))
        flipped = bytearray(sound)
        flipped[position] ^= 1 << data.draw(st.integers(0, 7))
        return data.draw(st.sampled_from([bytes(flipped), sound[:position], b""]))

    @invariant()
    def only_committed_rows_count(self) -> None:
        table = stores.open(self.location).table("relevance/test")
        expected = np.zeros(ROWS, bool)
        for shard, failures in self.committed.items():
            expected[SHARDS[shard]] = True
            expected[list(failures)] = False
        assert np.array_equal(table.ok, expected)
        assert table.missing() == [shard for shard in range(3) if shard not in self.committed]
        assert list(table.failures) == sorted(row for failures in self.committed.values() for row in failures)

    def expected(self, column: str) -> np.ndarray:
        truth = np.array(TRUTH[column], object if column == "id" else None)
        for failures in self.committed.values():
            for row in failures if column != "id" else ():
                truth[row] = np.nan
        return truth


class CrashingMachine(StoreMachine):
    """On local disk, where a process can also die at any call that changes the disk."""

    folder: Path
    numbers = itertools.count()

    def new_location(self) -> Path:
        return self.folder / f"{next(self.numbers)}.zarr"

    def start(self) -> None:
        self.monkeypatch.setattr(floor_module, "os", FaultyOs())
        super().start()

    @rule(shard=st.integers(0, 2), at=st.integers(0, 60), half=st.booleans())
    def write_and_crash(self, shard: int, at: int, half: bool) -> None:
        if self.committed.get(shard):
            return
        crash = crash_half_way if half else crash_before
        self.monkeypatch.setattr(floor_module, "os", FaultyOs(at, crash))
        try:
            self.table.write(shard, values(SHARDS[shard]))
            self.committed[shard] = {}
        except Crash:
            self.start()
            if shard not in self.table.missing():  # the crash came after the commit
                self.committed[shard] = {}
        self.monkeypatch.setattr(floor_module, "os", FaultyOs())

    def teardown(self) -> None:
        self.start()
        gaps = stores.check(self.location)
        assert {it.kind for it in gaps} <= {"incomplete"}
        missing = {row for it in gaps for row in range(*(it.rows or (0, 0)))}
        assert missing >= {row for shard in self.table.missing() for row in SHARDS[shard]}
        assert bool(missing) == bool(self.table.missing())
        assert not [key for key in contents(Path(self.location)) if "/tmp/" in key or "/leases/" in key]
        shutil.rmtree(self.location)


class RemoteMachine(StoreMachine):
    """On S3, where a put is all or nothing and a process can die between any two."""

    bucket: str
    numbers = itertools.count()

    def new_location(self) -> str:
        return f"{self.bucket}/{next(self.numbers)}/run.zarr"

    @rule(shard=st.integers(0, 2), at=st.integers(0, 8))
    def write_and_crash(self, shard: int, at: int) -> None:
        if self.committed.get(shard):
            return
        with self.dying_after(at):
            self.table.write(shard, values(SHARDS[shard]))
        self.start()
        if shard not in self.table.missing():
            self.committed[shard] = {}

    @contextlib.contextmanager
    def dying_after(self, changes: int) -> Iterator[None]:
        left = itertools.count(changes, -1)

        def dying(actual: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                if next(left) <= 0:
                    raise Crash
                return actual(*arguments, **options)

            return call

        with self.monkeypatch.context() as patches, contextlib.suppress(Crash):
            for name in ("put", "create", "delete"):
                patches.setattr(ObjectFloor, name, dying(getattr(ObjectFloor, name)))
            yield


def settled(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
    )


def run_machine(machine: type[StoreMachine], examples: int) -> None:
    case = machine.TestCase
    case.settings = settled(examples)
    case("runTest").runTest()


def test_local_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = type("Machine", (CrashingMachine,), {"monkeypatch": monkeypatch, "folder": Path(folder)})
        run_machine(machine, 25)


def test_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as bucket:
        machine = type("Machine", (RemoteMachine,), {"monkeypatch": monkeypatch, "bucket": bucket})
        run_machine(machine, 5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_local_disk_at_length(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = type("Machine", (CrashingMachine,), {"monkeypatch": monkeypatch, "folder": Path(folder)})
        run_machine(machine, 500)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_s3_at_length(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as bucket:
        machine = type("Machine", (RemoteMachine,), {"monkeypatch": monkeypatch, "bucket": bucket})
        run_machine(machine, 100)
