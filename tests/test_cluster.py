"""Many processes, one store: the bytes of a single process, whoever dies on the way."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_tools import Images, contents, tiny_model
from click.testing import CliRunner
from store_tools import s3_server

import stores
from spray.attribution import Attribution, attribute_dataset, attribute_share
from spray.attribution.cluster import attribute_on
from spray.attribution.launch import cluster, slurm
from spray.attribution.quarantine import POISON
from spray.cli import main
from spray.engine.errors import AttributionError
from stores import owners

STEP = Attribution(block=4, grid=5, thumbnails=8)
TABLE = "relevance/epsilon_plus_flat"


class Deadly(Images):
    """Kills the process that reads some rows; with ``once``, only the first process that does."""

    def __init__(self, rows: tuple[int, ...], once: Path | None = None) -> None:
        super().__init__()
        self.rows, self.once = rows, once
        self.targets = self.labels  # known without reading a sample, as torchvision's data sets do

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


def test_workers_here_leave_ctrl_c_to_who_hands_out_the_work(client: Any) -> None:
    """A terminal sends it to every process; each would tell where it was."""
    assert set(client.run(lambda: signal.getsignal(signal.SIGINT)).values()) == {signal.SIG_IGN}


def test_workers_read_their_samples_themselves(client: Any, alone: Path, tmp_path: Path) -> None:
    """They are daemons, which may have no processes of their own."""
    attribute_on(client, tiny_model(), Images(), tmp_path / "run.zarr", replace(STEP, workers=1))
    assert contents(tmp_path / "run.zarr") == contents(alone)


def test_a_sample_that_kills_its_reader_is_told_with_what_sets_it_apart(tmp_path: Path) -> None:
    with pytest.raises(AttributionError, match=r"after \d+ of 20 samples.*--cluster local:1"):
        attribute_dataset(tiny_model(), Deadly((17,)), tmp_path / "run.zarr", replace(STEP, workers=1))
    assert {problem.kind for problem in stores.check(tmp_path / "run.zarr")} == {"incomplete"}


def test_data_that_cannot_travel_are_refused_in_words_once(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, logged = Images(), []
    data.lock = threading.Lock()
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", logged.append)
    monkeypatch.setattr(logging.getLogger("distributed.protocol.pickle"), "handlers", [handler])
    with pytest.raises(AttributionError, match=r"cannot pickle.*where a sample is read"):
        attribute_on(client, tiny_model(), data, tmp_path / "run.zarr", STEP)
    assert not logged
    assert not (tmp_path / "run.zarr").exists()


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
    (death,) = told(tmp_path / "run.zarr", "worker died")
    assert death["shard"] == 3 and death["times"] == 1
    assert sorted(it["shard"] for it in told(tmp_path / "run.zarr", "shard")) == [0, 1, 2, 3, 4]


class Elsewhere(Deadly):
    """The worker that reads a sample is on a machine of its own, of which others cannot tell what lives there."""

    def __getitem__(self, row: int) -> object:
        if multiprocessing.parent_process() is not None:
            on_its_own_machine()
        return super().__getitem__(row)


def on_its_own_machine() -> None:
    name = f"node{os.getpid()}"
    owners._machine = lambda: name  # type: ignore[assignment]
    owners._me.cache_clear()


@pytest.mark.parametrize(
    "failures",
    [
        pytest.param(0, id="told"),
        pytest.param(3, id="tried again by the scheduler", marks=pytest.mark.slow),
    ],
)
def test_a_worker_killed_on_another_machine_loses_nothing(alone: Path, tmp_path: Path, failures: int) -> None:
    pytest.importorskip("distributed", reason="dask's distributed is not installed")
    with cluster("local:2") as client:
        client.run(on_its_own_machine)
        client.run_on_scheduler(allow, failures=failures)
        attribute_on(
            client, tiny_model(), Elsewhere((13,), once=tmp_path / "died"), tmp_path / "run.zarr", STEP
        )
    assert contents(tmp_path / "run.zarr") == contents(alone)
    assert (tmp_path / "died").exists()


class Unlucky(Images):
    """Kills the first worker that it travels to."""

    def __init__(self, once: Path) -> None:
        super().__init__()
        self.once = once

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if multiprocessing.parent_process() is not None and not self.once.exists():
            self.once.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_killed_before_the_work_begins_loses_nothing(
    client: Any, alone: Path, tmp_path: Path
) -> None:
    attribute_on(client, tiny_model(), Unlucky(tmp_path / "died"), tmp_path / "run.zarr", STEP)
    assert (tmp_path / "died").exists()
    assert contents(tmp_path / "run.zarr") == contents(alone)


class Stumbling:
    """A client whose first workers die while they are told what there is to do."""

    def __init__(self, client: Any, times: int) -> None:
        self.client, self.times = client, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def register_plugin(self, plugin: Any) -> None:
        self.times -= 1
        if self.times >= 0:
            raise OSError("Stream is closed")
        self.client.register_plugin(plugin)


def test_workers_are_told_again_where_one_died_meanwhile(client: Any, alone: Path, tmp_path: Path) -> None:
    attribute_on(Stumbling(client, 2), tiny_model(), Images(), tmp_path / "run.zarr", STEP)
    assert contents(tmp_path / "run.zarr") == contents(alone)
    with pytest.raises(AttributionError, match=r"keep dying .*Stream is closed.* Nothing was written"):
        attribute_on(Stumbling(client, 9), tiny_model(), Images(), tmp_path / "none.zarr", STEP)
    assert not (tmp_path / "none.zarr").exists()


def test_a_scheduler_that_goes_away_is_told(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = import_module("distributed.client").FutureCancelledError("_prepare-1", "scheduler-connection-lost")

    def gone(*_: object) -> None:
        raise lost

    monkeypatch.setattr("spray.attribution.cluster._Driver.run", gone)
    with pytest.raises(AttributionError, match=r"scheduler went away .*committed is safe"):
        attribute_on(client, tiny_model(), Images(), tmp_path / "run.zarr", STEP)


def allow(dask_scheduler: Any, failures: int) -> None:
    dask_scheduler.allowed_failures = failures


def test_what_somebody_else_writes_is_not_taken_from_him(client: Any, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    run = attribute_share(tiny_model(), Images(), out, STEP, share=0, of=2)
    with run.table(TABLE).claim(3), pytest.raises(stores.StoreBusy, match="is being written by"):
        attribute_on(client, tiny_model(), Images(), out, STEP)


def told(store: Path | str, event: str) -> list[dict[str, Any]]:
    """The log's lines of one event."""
    lines = [line for path in Path(f"{store}.log").iterdir() for line in path.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if record["event"] == event]


def test_samples_that_could_not_be_read_are_tried_again(client: Any, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    attribute_dataset(tiny_model(), Images(items={6: OSError("Stale file handle")}), out, STEP)
    attribute_on(client, tiny_model(), Images(), out, STEP, retry_failed=True)
    assert contents(out) == contents(alone)
    assert sorted(it["retried"] for it in told(out, "plan")) == [[], [1]]
    assert sorted(it["shard"] for it in told(out, "shard")) == [0, 1, 1, 2, 3, 4]


@pytest.mark.slow
def test_poisonous_images_cost_only_themselves(client: Any, alone: Path, tmp_path: Path) -> None:
    run = attribute_on(client, tiny_model(), Deadly((14,)), tmp_path / "run.zarr", STEP)
    assert run.samples.failures == run.table(TABLE).failures == {14: f"Poisonous: {POISON}"}
    assert stores.check(run.path) == [] and run.samples.read("id", [14]).tolist() == ["14"]
    assert run.samples.read("label", [14]).tolist() == [14 % 3]
    assert {"rows": [14], "event": "quarantine"}.items() <= told(run.path, "quarantine")[0].items()
    rest = [row for row in range(20) if row != 14]
    expected = stores.open(alone).table(TABLE)
    for column in expected.columns:
        assert np.array_equal(run.table(TABLE).read(column, rest), expected.read(column, rest))


@pytest.mark.slow
@pytest.mark.timeout(900)  # every worker that it kills has to import torch again
@pytest.mark.parametrize(("given", "block"), [(0, 32), (4, 4)], ids=["found", "given"])
def test_a_poisonous_image_among_the_first(client: Any, tmp_path: Path, given: int, block: int) -> None:
    """A worker that finds the block from its memory reads more samples first than one that is told."""
    step = replace(STEP, block=given)
    run = attribute_on(client, tiny_model(), Deadly((1,)), tmp_path / "run.zarr", step)
    assert list(run.samples.failures) == [1] and run.samples.complete
    assert run.samples.provenance.steps[1]["block"] == block
    assert run.samples.read("label", [1]).tolist() == [1]


@pytest.mark.slow
def test_workers_write_to_a_remote_store(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="dask's distributed is not installed")
    with s3_server(monkeypatch) as bucket, cluster("local:2") as workers:
        run = attribute_on(workers, tiny_model(), Images(), f"{bucket}/run.zarr", STEP)
        assert {key: run.floor.read(key) for key in run.floor.sizes("")} == contents(alone)


SPEC = """
import torch
from torch import nn
from beside import Noise

class Net(nn.Sequential):
    pass

def model():
    torch.manual_seed(0)
    return Net(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)).eval()

def load():
    return Noise()
"""
BESIDE = """
import torch

class Noise:
    classes = ["cat", "dog"]

    def __len__(self):
        return 16

    def __getitem__(self, row):
        return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(row)), row % 2
"""


def test_classes_of_a_spec_file_and_of_its_neighbour_reach_the_workers(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask's distributed is not installed")
    (tmp_path / "spec.py").write_text(SPEC)
    (tmp_path / "beside.py").write_text(BESIDE)
    options = ["--model", f"{tmp_path}/spec.py:model", "--data", f"{tmp_path}/spec.py:load", "--block", "4"]
    for name, more in (("one", []), ("two", ["--cluster", "local:1"])):
        command = ["attribute", *options, "--device", "cpu", "--quiet", "--out", str(tmp_path / name), *more]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


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


def test_errors_of_workers_are_told_once(
    alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with cluster("local:1") as workers, pytest.raises(AttributionError, match="nowhere"):
        attribute_on(
            workers, tiny_model(), Images(), tmp_path / "run.zarr", replace(STEP, layers=("nowhere",))
        )
    assert "Compute Failed" not in capfd.readouterr().err


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
    with (
        run.table(TABLE).claim(1),
        pytest.raises(stores.StoreBusy, match=r"^1 of 5 shards were left .*, 1; what else"),
    ):
        attribute_share(tiny_model(), Images(), out, STEP, share=1, of=2)
    assert run.table(TABLE).missing() == [1]
    (left,) = told(out, "left")
    assert left["shards"] == [1] and "is being written by" in left["reason"]
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


PROFILE = """
jobs = 2
[cluster]
queue = "gpu"
account = "audits"
memory = "2GB"
walltime = "00:10:00"
interface = "lo"
job_extra_directives = ["--gres=gpu:1"]
job_script_prologue = ["module load cuda"]
"""


def test_a_slurm_profile_becomes_the_job_that_it_says(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    (tmp_path / "gpu.toml").write_text(PROFILE)
    made, jobs = slurm(tmp_path / "gpu.toml")
    with made:
        script = made.job_script()
    assert jobs == 2
    for line in (
        "-p gpu",
        "-A audits",
        "-t 00:10:00",
        "--gres=gpu:1",
        "--mem=2G",
        "-n 1",
        "--cpus-per-task=1",
    ):
        assert f"#SBATCH {line}\n" in script
    command = script.splitlines()[-1]
    assert "module load cuda" in script
    assert "dask" in command and "--nthreads 1" in command and "tcp://127.0.0.1:" in command


SBATCH = """#!{python}
import pathlib, shutil, subprocess, sys
folder = pathlib.Path({folder!r})
number = len(list(folder.glob("job-*.sh")))
script = folder / f"job-{{number}}.sh"
shutil.copy(sys.argv[-1], script)
with (folder / f"job-{{number}}.out").open("w") as out:
    process = subprocess.Popen(["bash", script], stdout=out, stderr=out, start_new_session=True)
(folder / f"job-{{number}}.pid").write_text(str(process.pid))
print(f"Submitted batch job {{number}}")
"""
SCANCEL = """#!{python}
import os, pathlib, signal, sys
for number in sys.argv[1:]:
    pid = int((pathlib.Path({folder!r}) / f"job-{{number}}.pid").read_text())
    try:
        os.killpg(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
"""


@pytest.mark.slow
def test_jobs_of_a_batch_system_write_the_store_of_one_process(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With commands in the place of SLURM's that run each job script on this machine."""
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = tmp_path / "bin" / name
        path.write_text(text.format(python=sys.executable, folder=str(tmp_path)))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the workers find the data set
    (tmp_path / "profile.toml").write_text(PROFILE.replace("module load cuda", "true"))
    out = tmp_path / "run.zarr"
    with cluster(f"slurm:{tmp_path / 'profile.toml'}") as client:
        attribute_on(client, tiny_model(), Images(), out, STEP)
    assert contents(out) == contents(alone)
    assert len(list(tmp_path.glob("job-*.sh"))) == 2


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("jobs = 0\n[cluster]\nmemory = '1GB'", "jobs is 0, expected a number from 1 on"),
        ("jobs = true\n[cluster]\nmemory = '1GB'", "jobs is True"),
        ("job = 2\n[cluster]\nmemory = '1GB'", "unknown entry 'job'"),
        ("jobs = 2", r"expected a table \[cluster\] with at least memory"),
        ("cluster = 3", r"expected a table \[cluster\]"),
        ("[cluster]\nqueue = 'gpu'", "at least memory"),
        ("[cluster]\nmemory = '1GB'\ncores = 'four'", "cores is 'four', expected a number"),
        ("[cluster]\nmemory = '1GB'\nqeue = 'gpu'", "refuses the entries of .cluster.: .*qeue"),
        ("[cluster]\nmemory = 'lots'", "refuses the entries of .cluster.: .*lots"),
        (
            "[cluster]\nmemory = '1GB'\ninterface = 'no-such-card'",
            "refuses the entries of .cluster.: .*no-such-card",
        ),
        ("jobs = = 2", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_profiles_that_cannot_be_followed(tmp_path: Path, profile: str, words: str) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    (tmp_path / "profile.toml").write_text(profile)
    with pytest.raises(AttributionError, match=words), cluster(f"slurm:{tmp_path / 'profile.toml'}"):
        pass
