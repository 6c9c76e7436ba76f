"""What the tests of the stores share: a small run, a disk that fails on cue, an S3 server on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stores
from stores.owners import Owner

PROVENANCE = stores.Provenance(({"name": "test"},))
ROWS = 10
PER_SHARD = 4
COLUMNS = [
    stores.Column("id", "str", encoding="utf8", keep=True),
    stores.Column("map", "float32", (3, 3), ("y", "x"), "scaled_float16"),
    stores.Column("score", "float64"),
]


def new_run(path: Path | str) -> stores.Run:
    return stores.create(path, classes=["cat", "dog"], samples=ROWS, provenance={"model": "none"})


def new_table(run: stores.Run, name: str = "relevance/test", **changes: Any) -> stores.Table:
    options: dict[str, Any] = {"columns": COLUMNS, "rows_per_shard": PER_SHARD, "provenance": PROVENANCE}
    return run.create_table(name, **{**options, **changes})


def values(rows: range, seed: int = 0) -> dict[str, Any]:
    """Values of ``COLUMNS`` for these rows, the same each time."""
    maps = np.random.default_rng(seed).integers(-1000, 1000, (ROWS, 3, 3)) / 1024  # exact in half precision
    chosen = slice(rows.start, rows.stop)
    return {
        "id": [f"ü/{row}" for row in rows],
        "map": maps[chosen],
        "score": np.arange(ROWS)[chosen] / 7,
    }


def fill(table: stores.Table) -> None:
    for shard in table.missing():
        table.write(shard, values(table.shards[shard]))


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


class Crash(BaseException):
    """The process is gone: nothing may catch this but the test."""


class FaultyOs:
    """``os`` for ``stores.floor``: its calls that change the disk are counted, and one of them can fail.

    At call ``at`` (from 0) ``fault`` is called instead, with a function that performs the call (half of it, for a
    write, where asked to). After a crash every further call crashes as well: a dead process does nothing.
    """

    CHANGES = ("open", "write", "fsync", "replace", "link", "unlink", "mkdir")

    def __init__(
        self, at: int = -1, fault: Callable[[FaultyOs, Callable[..., Any]], Any] | None = None
    ) -> None:
        self.at, self.fault, self.calls = at, fault, 0
        self.log: list[str] = []
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        actual = getattr(os, name)
        if name not in self.CHANGES:
            return actual

        def call(*arguments: Any) -> Any:
            if self.dead:
                raise Crash
            number, self.calls = self.calls, self.calls + 1
            self.log.append(name)
            if number != self.at or self.fault is None:
                return None if name == "fsync" else actual(*arguments)  # nothing here outlives the tests

            def perform(half: bool = False) -> Any:
                if half and name == "write":
                    descriptor, data = arguments
                    return actual(descriptor, data[: len(data) // 2])
                return actual(*arguments)

            return self.fault(self, perform)

        return call


def crash_before(disk: FaultyOs, perform: Callable[..., Any]) -> None:
    disk.dead = True
    raise Crash


def crash_half_way(disk: FaultyOs, perform: Callable[..., Any]) -> None:
    disk.dead = True
    perform(half=True)
    raise Crash


_incarnations = itertools.count(2**22 + 1)  # above every process number that Linux gives


def be_reborn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as another process, so that what this one left behind counts as a dead process's."""
    me = Owner("".join(Owner.me().machine), next(_incarnations), 0, "test")
    monkeypatch.setattr(Owner, "me", classmethod(lambda cls: me))


_buckets = itertools.count()


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a server of this process; its URL. Credentials are in the environment meanwhile."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    service = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    try:
        host, port = service.get_host_and_port()
        bucket = f"bucket-{next(_buckets)}"  # all servers of a process share their buckets
        endpoint = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test-key-id",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
        }.items():
            monkeypatch.setenv(name, value)
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")):
            yield f"s3://{bucket}"
    finally:
        service.stop()


def with_twins(run: stores.Run) -> stores.AnalysisHandle:
    """A second analysis of a synthetic run: findings "twin.f0" and "twin.f1" have the same members, as findings by
    channels may, and "twin.half", the last and flagged, has half of them."""
    first = run.analysis()
    finding, *_ = first.findings()
    twin = dataclasses.replace(finding, name="twin.f0", score=0.5, flagged=False)
    same = dataclasses.replace(twin, name="twin.f1", score=0.4)
    half = dataclasses.replace(
        finding, name="twin.half", score=0.3, flagged=True, rows=finding.rows[: len(finding.rows) // 2]
    )
    made = stores.Provenance(({"name": "twins"},))
    again = run.write_analysis(made, [first.read(group) for group in first.groups], facts=dict(first.facts))
    again.write_findings([twin, same, half], made)
    return again
