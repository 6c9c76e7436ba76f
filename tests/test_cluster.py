"""Many processes, one store: the bytes of a single process, whoever dies on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_tools import Images, contents, tiny_model

import stores
from spray.attribution import Attribution, attribute_dataset, attribute_share
from spray.attribution.cluster import POISON, attribute_on
from spray.attribution.launch import cluster
from spray.engine.errors import AttributionError

STEP = Attribution(block=4, grid=5, thumbnails=8)
TABLE = "relevance/epsilon_plus_flat"


class Deadly(Images):
    """Kills the process that reads some rows; with ``once``, only the first process that does."""

    def __init__(self, rows: tuple[int, ...], once: Path | None = None) -> None:
        super().__init__()
        self.rows, self.once = rows, once

    def __getitem__(self, row: int) -> object:
        if row in self.rows and multiprocessing.parent_process() is not None:
            if self.once is None:
                os.kill(os.getpid(), signal.SIGKILL)
            elif not self.once.exists():
                self.once.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    pytest.importorskip("distributed", reason="dask's distributed is not installed")
    with cluster("local:2") as made:
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a single process."""
    path = tmp_path_factory.mktemp("alone") / "run.zarr"
    attribute_dataset(tiny_model(), Images(), path, STEP)
    return path


def test_two_workers_write_the_store_of_one_process(client: Any, alone: Path, tmp_path: Path) -> None:
    seen = []
    run = attribute_on(
        client, tiny_model(), Images(), tmp_path / "run.zarr", STEP, report=lambda *it: seen.append(it)
    )
    assert contents(tmp_path / "run.zarr") == contents(alone)
    assert run.table(TABLE).complete and stores.check(run.path) == []
    assert [it[0] for it in seen] == sorted(it[0] for it in seen) and seen[-1][:2] == (20, 20)


def test_what_is_there_is_not_done_again(client: Any, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    attribute_share(tiny_model(), Images(), out, STEP, share=1, of=2)
    before = {key: (out / key).stat().st_mtime_ns for key in contents(out) if "/c/" in key}
    attribute_on(client, tiny_model(), Images(), out, STEP)
    assert before and all((out / key).stat().st_mtime_ns == then for key, then in before.items())
    assert contents(out) == contents(alone)


def test_a_worker_killed_half_way_loses_nothing(client: Any, alone: Path, tmp_path: Path) -> None:
    data = Deadly((13,), once=tmp_path / "died")
    attribute_on(client, tiny_model(), data, tmp_path / "run.zarr", STEP)
    assert int((tmp_path / "died").read_text()) != os.getpid()
    assert contents(tmp_path / "run.zarr") == contents(alone)


@pytest.mark.slow
def test_poisonous_images_cost_only_themselves(client: Any, alone: Path, tmp_path: Path) -> None:
    run = attribute_on(client, tiny_model(), Deadly((14,)), tmp_path / "run.zarr", STEP)
    assert run.samples.failures == run.table(TABLE).failures == {14: f"Poisonous: {POISON}"}
    assert stores.check(run.path) == [] and run.samples.read("id", [14]).tolist() == ["14"]
    rest = [row for row in range(20) if row != 14]
    expected = stores.open(alone).table(TABLE)
    for column in expected.columns:
        assert np.array_equal(run.table(TABLE).read(column, rest), expected.read(column, rest))


@pytest.mark.slow
def test_a_poisonous_image_among_the_first(client: Any, tmp_path: Path) -> None:
    run = attribute_on(client, tiny_model(), Deadly((1,)), tmp_path / "run.zarr", STEP)
    assert list(run.samples.failures) == [1] and run.samples.complete


def test_errors_of_workers_reach_the_caller(client: Any, alone: Path) -> None:
    with pytest.raises(stores.StoreError, match="another run"):
        attribute_on(client, tiny_model(seed=1), Images(), alone, STEP)


SHARE = """
import sys
sys.path.insert(0, {tests!r})
from audit_tools import Images, tiny_model
from spray.attribution import Attribution, attribute_share
step = Attribution(block=4, grid=5, thumbnails=8)
attribute_share(tiny_model(), Images(), {out!r}, step, share=int(sys.argv[1]), of=2)
"""


def test_two_processes_side_by_side_without_an_engine(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    script = SHARE.format(tests=str(Path(__file__).parent), out=str(out))
    both = [subprocess.Popen([sys.executable, "-c", script, str(share)]) for share in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert contents(out) == contents(alone)


def test_shares_split_the_shards_and_leave_what_is_claimed(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    run = attribute_share(tiny_model(), Images(), out, STEP, share=0, of=2)
    assert run.samples.missing() == run.table(TABLE).missing() == [1, 3]
    with run.table(TABLE).claim(3):
        attribute_share(tiny_model(), Images(), out, STEP, share=1, of=2)
    assert run.table(TABLE).missing() == [3]
    attribute_share(tiny_model(), Images(), out, STEP, share=0, of=1)
    assert contents(out) == contents(alone)
    for share in (-1, 2):
        with pytest.raises(AttributionError, match="shares go from 0 to 1"):
            attribute_share(tiny_model(), Images(), out, STEP, share=share, of=2)


def test_another_step_is_another_table(alone: Path) -> None:
    step = replace(STEP, composite="gradient")
    run = attribute_share(tiny_model(), Images(), alone.parent / "two.zarr", step, share=0, of=1)
    assert run.tables() == ["samples", "relevance/gradient"]


@pytest.mark.parametrize("spec", ["", "local", "local:0", "local:x", "slurm:", "http://x", "tcp:"])
def test_clusters_that_make_no_sense(spec: str) -> None:
    pytest.importorskip("distributed", reason="dask's distributed is not installed")
    with pytest.raises(AttributionError, match="expected local:NUMBER"), cluster(spec):
        pass


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    with pytest.raises(AttributionError, match="cannot be read"), cluster(f"slurm:{tmp_path}/none.toml"):
        pass
