"""A crash at every call that changes the disk: what was committed is exact, the rest is redone, no trace remains."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_tools import (
    PROVENANCE,
    Crash,
    FaultyOs,
    be_reborn,
    contents,
    crash_before,
    crash_half_way,
    fill,
    new_run,
    new_table,
    values,
)

import stores
from stores import floor as floor_module
from stores.errors import NoHardLinks
from stores.ledger import create_once

VERDICT = stores.Verdict("sample", "", "ü/1", "unsure", "", "me", "2026-01-01T00:00:00Z", ("ü/1",))


def group(number: int) -> stores.GroupAnalysis:
    rows = np.arange(3) + 3 * number
    none = np.zeros(0, np.int64)
    return stores.GroupAnalysis(
        number, "ok", rows, none, none, np.zeros(2), np.ones((3, 2)), 1, 1, {}, {}, {}
    )


FINDING = stores.Finding("c0.f0", 0, "kmeans", (0,), np.arange(3), 0.5, True, {}, None, np.ones((2, 2)))


def _nothing(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)


def _run(path: Path) -> None:
    new_run(path)


def _table(path: Path) -> None:
    new_table(new_run(path))


def _two_shards(path: Path) -> None:
    table = new_table(new_run(path))
    for shard in (0, 2):
        table.write(shard, values(table.shards[shard]))


def _analysis(path: Path) -> None:
    stores.open(path, "r+").create_analysis(PROVENANCE, facts={}).write(group(0))


def _run_and_analysis(path: Path) -> None:
    _run(path)
    _analysis(path)


def _findings(path: Path) -> None:
    stores.open(path, "r+").analysis().write_findings([FINDING], PROVENANCE)


def _verdict(path: Path) -> None:
    run = stores.open(path, "r+")
    if not run.verdicts():
        run.add_verdict(VERDICT)


STEPS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "create a run": (_nothing, _run),
    "create a table": (_run, _table),
    "write a shard": (_two_shards, lambda path: fill(stores.open(path, "r+").table("relevance/test"))),
    "write an analysis": (_run, _analysis),
    "write findings": (_run_and_analysis, _findings),
    "give a verdict": (_run, _verdict),
}
"""What is there before, and the step that crashes."""


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FaultyOs]:
    def install(kind: type[FaultyOs] = FaultyOs, *arguments: Any) -> FaultyOs:
        faulty = kind(*arguments)
        monkeypatch.setattr(floor_module, "os", faulty)
        return faulty

    return install


@pytest.mark.parametrize("fault", [crash_before, crash_half_way])
@pytest.mark.parametrize("step", STEPS)
def test_crash_at_every_call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: Callable[..., FaultyOs],
    step: str,
    fault: Callable[..., Any],
) -> None:
    prepare, act = STEPS[step]
    base, expected = tmp_path / "base", tmp_path / "expected"
    prepare(base)
    if base.exists():
        shutil.copytree(base, expected)
    calls = disk()
    act(expected)
    assert calls.calls >= 10
    points = [n for n, name in enumerate(calls.log) if fault is crash_before or name == "write"]
    for point in points:
        path = tmp_path / str(point)
        if base.exists():
            shutil.copytree(base, path)
        be_reborn(monkeypatch)
        disk(FaultyOs, point, fault)
        with pytest.raises(Crash):
            act(path)
        be_reborn(monkeypatch)
        disk()
        act(path)
        if step == "give a verdict":  # its record may be missing, as in stores of early releases
            assert stores.check(path) == stores.check(path, repair=True) == []
        assert contents(path) == contents(expected), f"after a crash at call {point}, {calls.log[point]}"
        assert [it for it in stores.check(path) if it.kind != "incomplete"] == []
        shutil.rmtree(path)


def test_only_what_was_not_committed_is_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Callable[..., FaultyOs]
) -> None:
    _table(tmp_path / "base")
    calls = disk()
    shutil.copytree(tmp_path / "base", tmp_path / "whole")
    fill(stores.open(tmp_path / "whole", "r+").table("relevance/test"))
    for point in range(0, calls.calls, 7):
        path = tmp_path / str(point)
        shutil.copytree(tmp_path / "base", path)
        be_reborn(monkeypatch)
        disk(FaultyOs, point, crash_before)
        with pytest.raises(Crash):
            fill(stores.open(path, "r+").table("relevance/test"))
        be_reborn(monkeypatch)
        disk()
        table = stores.open(path, "r+").table("relevance/test")
        committed = np.flatnonzero(table.ok)
        assert np.array_equal(table.read("map", committed), values(range(10))["map"][committed])
        before = {key: (path / key).stat().st_mtime_ns for key in contents(path) if "/c/" in key}
        done = [shard for shard in range(3) if shard not in table.missing()]
        fill(table)
        after = {key: (path / key).stat().st_mtime_ns for key in before}
        for key in before:
            if key.split("/c/")[1].split("/")[0] in map(str, done):
                assert after[key] == before[key], f"{key} was written again after a crash at call {point}"


class PowerLoss(FaultyOs):
    """Remembers what an unkind disk would still have after the power failed: only what was fsynced.

    A file's bytes last from its fsync on, and a name (of a file or folder) from the fsync of its folder on. With
    ``names_last`` names are kept at once, so that a file without fsync is there but empty.
    """

    def __init__(self, root: Path, at: int, names_last: bool) -> None:
        super().__init__(at, crash_before)
        self.root, self.names_last = root, names_last
        self.inodes: dict[int, bytes] = {}
        self.names: dict[Path, int] = {}
        self.durable: set[Path] = set()
        self.open_files: dict[int, Path] = {}
        for path in [root, *root.rglob("*")]:
            self.durable.add(path)
            if path.is_file():
                self.names[path] = path.stat().st_ino
                self.inodes[path.stat().st_ino] = path.read_bytes()
        self.lasting = dict(self.names)

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)
        if name not in self.CHANGES:
            return call

        def remembered(*arguments: Any) -> Any:
            result = call(*arguments)
            self._remember(name, arguments, result)
            return result

        return remembered

    def _remember(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "open":
            self.open_files[result] = Path(arguments[0])
            if arguments[1] & os.O_CREAT:
                self.names[Path(arguments[0])] = os.fstat(result).st_ino
                self.inodes.setdefault(os.fstat(result).st_ino, b"")
        elif name == "fsync":
            path = self.open_files[arguments[0]]
            if path.is_dir():
                self._folder_lasts(path)
            else:
                self.inodes[os.fstat(arguments[0]).st_ino] = path.read_bytes()
        elif name in ("link", "replace"):
            self.names[Path(arguments[1])] = Path(arguments[1]).stat().st_ino
            if name == "replace":
                self.names.pop(Path(arguments[0]), None)
        elif name == "unlink":
            self.names.pop(Path(arguments[0]), None)

    def _folder_lasts(self, folder: Path) -> None:
        for path in [path for path in self.lasting if path.parent == folder and path not in self.names]:
            del self.lasting[path]
        self.lasting.update({path: inode for path, inode in self.names.items() if path.parent == folder})
        self.durable.update(path for path in folder.iterdir() if path.is_dir())

    def pull_the_plug(self) -> None:
        """Leave on the disk what lasts."""
        kept = self.names if self.names_last else self.lasting
        files = {path: self.inodes[inode] for path, inode in kept.items()}
        folders = [path for path in self.root.rglob("*") if path.is_dir()]
        shutil.rmtree(self.root)
        lasting = [path for path in folders if self.names_last or path in self.durable]
        self.root.mkdir()
        for path in sorted(lasting):
            if path.parent.exists():
                path.mkdir()
        for path, data in files.items():
            if path.parent.exists():
                path.write_bytes(data)


@pytest.mark.parametrize("names_last", [False, True])
def test_power_failure_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Callable[..., FaultyOs], names_last: bool
) -> None:
    base, expected = tmp_path / "base", tmp_path / "expected"
    _table(base)
    shutil.copytree(base, expected)
    calls = disk()
    new_table(new_run(expected)).write(0, values(range(4)))
    for point in range(calls.calls + 1):
        path = tmp_path / str(point)
        shutil.copytree(base, path)
        be_reborn(monkeypatch)
        power = disk(PowerLoss, path, point, names_last)
        returned = False
        try:
            new_table(new_run(path)).write(0, values(range(4)))
            returned = True
        except Crash:
            pass
        assert isinstance(power, PowerLoss)
        power.pull_the_plug()
        be_reborn(monkeypatch)
        disk()
        table = new_table(new_run(path))
        committed = np.flatnonzero(table.ok)
        assert len(committed) == 4 or not returned, "a write that returned was lost"
        assert np.array_equal(table.read("map", committed), values(range(10))["map"][committed])
        table.write(0, values(range(4)))
        assert contents(path) == contents(expected), f"after power failed at call {point}"
        shutil.rmtree(path)


REAL = """
import os, shutil, sys
sys.path.insert(0, {tests!r})
import store_tools, stores, stores.floor
from pathlib import Path
root = Path({root!r})
points = 0
while True:
    path = root / "run"
    shutil.copytree(root / "base", path)
    pid = os.fork()
    if pid == 0:
        stores.floor.os = store_tools.FaultyOs(points, lambda disk, perform: os._exit(9))
        store_tools.fill(stores.open(path, "r+").table("relevance/test"))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        break
    assert code == 9, code
    shutil.move(path, root / "crashed" / str(points))
    points += 1
print(points)
"""


def test_real_processes_that_exit_at_every_call(tmp_path: Path) -> None:
    """As above with true process deaths, forked from a process that has not started any thread."""
    (tmp_path / "crashed").mkdir()
    table = new_table(new_run(tmp_path / "base"))
    for shard in (0, 2):
        table.write(shard, values(table.shards[shard]))
    expected = tmp_path / "expected"
    shutil.copytree(tmp_path / "base", expected)
    fill(stores.open(expected, "r+").table("relevance/test"))
    script = REAL.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points > 40
    for point in range(points):
        path = tmp_path / "crashed" / str(point)
        table = stores.open(path, "r+").table("relevance/test")
        assert table.missing() in ([1], [])
        fill(table)
        assert contents(path) == contents(expected), f"after exit at call {point}"


class NoLinks(FaultyOs):
    """A file system without hard links."""

    def link(self, *arguments: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(new_table(new_run(tmp_path / "with")))
    monkeypatch.setattr(floor_module, "os", NoLinks())
    fill(new_table(new_run(tmp_path / "without")))
    assert contents(tmp_path / "without") == contents(tmp_path / "with")
    _two_shards(tmp_path / "base")
    calls = NoLinks()
    monkeypatch.setattr(floor_module, "os", calls)
    shutil.copytree(tmp_path / "base", tmp_path / "sound")
    fill(stores.open(tmp_path / "sound", "r+").table("relevance/test"))
    for point in range(calls.calls):
        path = tmp_path / str(point)
        shutil.copytree(tmp_path / "base", path)
        be_reborn(monkeypatch)
        monkeypatch.setattr(floor_module, "os", NoLinks(point, crash_before))
        with pytest.raises(Crash):
            fill(stores.open(path, "r+").table("relevance/test"))
        be_reborn(monkeypatch)
        monkeypatch.setattr(floor_module, "os", NoLinks())
        fill(stores.open(path, "r+").table("relevance/test"))
        assert contents(path) == contents(tmp_path / "sound"), f"after a crash at call {point}"
    floor = floor_module.LocalFloor(tmp_path / "floor")
    with pytest.raises(NoHardLinks):
        floor.create("a/b", b"0")
    assert (
        create_once(floor, "a/b", b"1") and not create_once(floor, "a/b", b"2") and floor.read("a/b") == b"1"
    )


def _verdict(run: stores.Run, word: Any = "valid") -> None:
    run.add_verdict(stores.Verdict("sample", "", "a", word, "", "me", "2026-01-01T00:00:00Z", ("a",)))


@pytest.mark.parametrize(
    "act",
    [new_run, lambda path: new_table(new_run(path)), lambda path: _verdict(new_run(path), "unsure")],
    ids=["root", "table", "verdict"],
)
def test_no_crash_leaves_an_empty_file_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    def begin(path: Path) -> None:
        if act is not new_run:
            _verdict(new_run(path))

    calls = NoLinks()
    monkeypatch.setattr(floor_module, "os", calls)
    begin(tmp_path / "sound")
    before = calls.calls
    act(tmp_path / "sound")
    points = calls.calls - before
    for point in range(points):
        path = tmp_path / str(point)
        monkeypatch.setattr(floor_module, "os", NoLinks())
        begin(path)
        monkeypatch.setattr(floor_module, "os", NoLinks(point, crash_before))
        with pytest.raises(Crash):
            act(path)
        be_reborn(monkeypatch)
        monkeypatch.setattr(floor_module, "os", NoLinks())
        assert all(data for key, data in contents(path).items() if not key.startswith("ledger/tmp/"))
        act(path)
        told, expected = (
            [it.verdict for it in stores.open(it).verdicts()] for it in (path, tmp_path / "sound")
        )
        assert told[-1:] == expected[-1:]
        assert [problem.kind for problem in stores.check(path) if problem.kind != "incomplete"] == []


def test_disk_full_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Callable[..., FaultyOs]
) -> None:
    def full(faulty: FaultyOs, perform: Callable[..., Any]) -> None:
        perform(half=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    base, expected = tmp_path / "base", tmp_path / "expected"
    _two_shards(base)
    shutil.copytree(base, expected)
    calls = disk()
    fill(stores.open(expected, "r+").table("relevance/test"))
    for point in (n for n, name in enumerate(calls.log) if name == "write"):
        path = tmp_path / str(point)
        shutil.copytree(base, path)
        disk(FaultyOs, point, full)
        table = stores.open(path, "r+").table("relevance/test")
        with pytest.raises(stores.StoreError, match=r"No space left on device\. What is committed is safe"):
            fill(table)
        disk()
        assert [it for it in stores.check(path) if it.kind != "incomplete"] == []
        fill(table)  # the same handle goes on once there is space
        assert contents(path) == contents(expected)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mount = shutil.which("mount")
    small = tmp_path / "small"
    small.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        table = new_table(new_run(small / "run.zarr"))
        table.write(0, values(range(4)))
        ballast = small / "ballast"
        with contextlib.suppress(OSError):
            ballast.write_bytes(bytes(10**6))
        with pytest.raises(stores.StoreError, match="No space left on device"):
            table.write(1, values(range(4, 8)))
        ballast.unlink()
        fill(table)
        assert stores.check(small / "run.zarr") == [] and table.complete
    finally:
        subprocess.run(["umount", str(small)], check=True)
