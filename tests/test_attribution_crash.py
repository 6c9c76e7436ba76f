"""An attribution that dies at any call that changes the disk goes on to the bytes of one that did not."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_tools import Images, contents, tiny_model
from store_tools import Crash, FaultyOs, be_reborn, crash_before, crash_half_way

import stores
from spray.attribution import Attribution, attribute_dataset
from stores import floor as floor_module

STEP = Attribution("gradient_x_input", target=("label", "label-other"), block=4, grid=5, thumbnails=0)
DATA = Images(8, items={5: ValueError("torn")})


def attribute(path: Path, passes: list[int] | None = None) -> None:
    model = tiny_model()
    model.register_forward_hook(lambda *_: None if passes is None else passes.append(1))
    attribute_dataset(model, DATA, path, STEP)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", [crash_before, crash_half_way])
def test_a_crash_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    expected = tmp_path / "expected"
    calls = FaultyOs()
    monkeypatch.setattr(floor_module, "os", calls)
    whole: list[int] = []
    attribute(expected, whole)
    assert len(whole) == 1 + 2  # the probe and two blocks
    points = [n for n, name in enumerate(calls.log) if fault is crash_before or name == "write"]
    for point in points:
        path = tmp_path / str(point)
        be_reborn(monkeypatch)
        monkeypatch.setattr(floor_module, "os", FaultyOs(point, fault))
        with pytest.raises(Crash):
            attribute(path)
        be_reborn(monkeypatch)
        monkeypatch.setattr(floor_module, "os", FaultyOs())
        done, there = committed_shards(path), good_samples(path)
        passes: list[int] = []
        attribute(path, passes)
        assert contents(path) == contents(expected), f"after a crash at call {point}, {calls.log[point]}"
        # Only what was not committed is computed again; each logit that is there tells whether the model is the same.
        assert len(passes) == 1 + 2 - done + there
        assert stores.check(path) == []
        shutil.rmtree(path)


def test_a_disk_that_is_full_half_way(tmp_path: Path) -> None:
    """On a small file system of its own, the log beside the store on the same one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        attribute(tmp_path / "expected")
        ballast = small / "ballast"
        used = sum(4096 * -(-len(data) // 4096) for data in contents(tmp_path / "expected").values())
        for part in (0.1, 0.4, 0.7):
            ballast.write_bytes(bytes(4 * 2**20 - int(part * used) // 4096 * 4096))
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "The run log"
                )  # which may be the first to find the disk full
                with pytest.raises(
                    stores.StoreError, match=r"No space left on device\. What is committed is safe"
                ):
                    attribute(small / "run.zarr")
            ballast.unlink()
        assert {it.kind for it in stores.check(small / "run.zarr")} <= {
            "metadata",
            "incomplete",
        }  # begun, and not damaged
        attribute(small / "run.zarr")
        assert contents(small / "run.zarr") == contents(tmp_path / "expected")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def good_samples(path: Path) -> int:
    """How many samples are committed, and did not fail."""
    try:
        return int(stores.open(path).samples.ok.sum())
    except (stores.NotAStore, KeyError):
        return 0


def committed_shards(path: Path) -> int:
    """How many shards are whole, in every table."""
    try:
        run = stores.open(path)
        missing = {shard for name in run.tables() for shard in run.table(name).missing()}
    except stores.NotAStore:
        return 0
    return 2 - len(missing) if len(run.tables()) == 3 else 0
