"""Memory: blocks that fit into it, and batches that are halved when it runs out without losing a sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_tools import Images, contents, tiny_model
from torch import nn

import stores
from spray import memory
from spray.attribution import Attribution, attribute_dataset
from spray.engine.errors import AttributionError
from spray.memory import block_size, peak_bytes, ran_out, way_out

STEP = Attribution("epsilon_plus", block=8, grid=5, thumbnails=8, layers=("inner.3",))
CPU = torch.device("cpu")
WORDS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 18.10 GB)"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "python": MemoryError(),
}


class Small(nn.Module):
    """A model on a machine where more than ``room`` samples do not fit; from pass ``since`` to ``until``."""

    def __init__(self, room, error=WORDS["cuda"], since=0, until=10**9):
        super().__init__()
        self.inner = tiny_model()
        self.room, self.error, self.since, self.until = room, error, since, until
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.room and self.since <= len(self.batches) <= self.until:
            raise self.error
        return self.inner(x)


def attribute(out, model, data=None, **changes):
    return attribute_dataset(model.eval(), data or Images(), out, replace(STEP, **changes))


def facts(run, table="relevance/epsilon_plus"):
    table = run.table(table)
    return [table.facts(shard) for shard in range(len(table.shards))]


@pytest.mark.parametrize("words", WORDS)
def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(tmp_path, words):
    model = Small(3, WORDS[words])
    run = attribute(tmp_path / "small.zarr", model, items())
    whole = attribute(tmp_path / "whole.zarr", Small(8), items())
    assert set(model.batches) == {8, 4, 2}
    for name in run.tables():
        one, other = run.table(name), whole.table(name)
        assert one.complete and one.failures == other.failures and list(one.failures) == [5]
        for column in one.columns:
            left, right = one.read(column), other.read(column)
            if left.dtype.kind == "f":
                np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
            else:
                assert left.tolist() == right.tolist()
    assert [it["batch"] for it in facts(run)] == [it["batch"] for it in facts(run, "samples")] == [2, 2, 2]
    assert all("batch" not in it for it in facts(whole))
    found = stores.check(run.path)
    assert {problem.kind for problem in found} == {"note"}
    assert all("ran out of memory" in problem.detail for problem in found)


def items():
    return Images(items={5: ValueError("torn")})


def test_rows_that_the_engine_refuses_keep_their_place_in_a_halved_batch(tmp_path):
    huge = Images().images[6].clone().fill_(3e38)
    model = Small(2)
    with torch.no_grad():
        model.inner[0].weight.mul_(10)
    data = Images(items={6: (huge, 0)})
    data.mean, data.std = (0.5,), (0.5,)
    run = attribute(tmp_path / "a.zarr", model, data)
    assert list(run.samples.failures) == [6] and "not finite" in run.samples.failures[6]


def test_memory_that_is_free_again_is_used_again_and_the_bytes_are_those_of_a_whole_batch(tmp_path):
    model = Small(4, since=2, until=2)  # the first block after the probe
    run = attribute(tmp_path / "a.zarr", model)
    whole = attribute(tmp_path / "b.zarr", Small(8))
    assert [it.get("batch") for it in facts(run)] == [4, None, None]
    for row in (slice(8, 20),):
        np.testing.assert_array_equal(
            run.table("relevance/epsilon_plus").read("input.place", row),
            whole.table("relevance/epsilon_plus").read("input.place", row),
        )


def test_where_not_even_one_sample_fits_it_is_told(tmp_path):
    with pytest.raises(AttributionError, match="single sample does not fit into the memory of cpu"):
        attribute(tmp_path / "a.zarr", Small(0))
    assert not (tmp_path / "a.zarr").exists()


def test_other_errors_of_a_model_are_not_taken_for_memory(tmp_path):
    with pytest.raises(
        AttributionError, match=r"cannot take the data set's samples.*shapes cannot be multiplied"
    ):
        attribute(tmp_path / "a.zarr", Small(2, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    assert not ran_out(ValueError("out of memory")) and all(map(ran_out, WORDS.values()))


def test_the_peak_of_a_pass_is_what_its_tensors_hold_at_one_time():
    x = torch.zeros(1000)

    def action():
        a = x + 1  # 4000 bytes
        b = a + 1  # 8000 together
        del a
        return (b + 1).sum()  # 8000 again, then 4 more

    assert peak_bytes(action) == 8004
    kept = nn.Linear(100, 100, bias=False)
    held = peak_bytes(lambda: kept(torch.ones(50, 100)).sum().backward())
    assert held >= 4 * (50 * 100 + 100 * 100)  # the inputs and the weight's gradient


def test_a_block_is_the_largest_that_fits(monkeypatch):
    def pass_over(count):
        torch.zeros(250_000 + 250_000 * count)  # 1 MB, and 1 MB a sample

    for megabytes, sharing, expected in ((10_000, 1, 128), (66, 1, 32), (64, 1, 16), (66, 2, 8), (1, 1, 1)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=megabytes: free * 10**6)
        assert block_size(pass_over, CPU, 1000, 10**6, sharing) == expected
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert block_size(pass_over, CPU, 1000, 10**6) == 128
    assert block_size(pass_over, CPU, 1000, 20) == 32  # no larger than the data set needs
    assert block_size(pass_over, CPU, 2**23, 10**6) == 16  # nor its inputs than several blocks may take


def test_free_memory_is_known_here_and_a_containers_limit_counts(tmp_path):
    assert 10**6 < memory.free_bytes(CPU) < 10**15
    assert memory._container_memory(tmp_path) is None
    for name, text in (("max", "1000\n"), ("current", "900\n"), ("stat", "file 60\ninactive_file 50\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory._container_memory(tmp_path) == 150
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._container_memory(tmp_path) is None


def test_a_store_goes_on_with_the_block_that_it_was_made_with(tmp_path, monkeypatch):
    found = iter((16, 4))
    monkeypatch.setattr("spray.attribution.stage.block_size", lambda *_: next(found))
    attribute(tmp_path / "a.zarr", Small(100), block=0)
    before = contents(tmp_path / "a.zarr")
    run = attribute(tmp_path / "a.zarr", Small(100), block=0)
    assert contents(tmp_path / "a.zarr") == before
    attribute(tmp_path / "b.zarr", Small(100), block=16)
    assert contents(tmp_path / "b.zarr") == before  # found or given, the block is the block
    attribute(tmp_path / "a.zarr", Small(100), block=0, composite="lrp_0")
    assert run.table("relevance/lrp_0").complete and next(found) == 4
    with pytest.raises(stores.StoreError, match=r"block \(stored 16, now 8\)"):
        attribute(tmp_path / "a.zarr", Small(100), block=8)


def test_a_block_larger_than_the_data_set_goes_on_as_well(tmp_path):
    attribute(tmp_path / "a.zarr", Small(100), block=0)
    before = contents(tmp_path / "a.zarr")
    run = attribute(tmp_path / "a.zarr", Small(100), block=0)
    assert contents(tmp_path / "a.zarr") == before and run.samples.provenance.steps[1]["block"] == 32
    attribute(tmp_path / "a.zarr", Small(100), block=32, composite="lrp_0")
    assert stores.check(run.path) == []


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_gamma_box", "lrp_epsilon"])
def test_blocks_of_other_sizes_agree(tmp_path, composite):
    """Relative L2 of each sample's map below 1e-4, as ``Attribution.block`` says."""
    maps = []
    for block in (1, 3, 20):
        step = replace(STEP, composite=composite, block=block, layers=(), full=True)
        run = attribute_dataset(tiny_model(), Images(), tmp_path / f"{block}.zarr", step)
        maps.append(run.table(f"relevance/{composite}").read("input.place").reshape(20, -1))
    for other in maps[1:]:
        error = np.linalg.norm(other - maps[0], axis=1) / np.linalg.norm(maps[0], axis=1)
        assert error.max() < 1e-4


def test_the_way_out_is_another_device_only_where_there_is_one():
    assert way_out(torch.device("cuda")) == "Take --device cpu, or prepare smaller images."
    assert way_out(torch.device("mps"), "another method") == (
        "Take --device cpu, another method, or prepare smaller images."
    )
    assert way_out(CPU) == "Prepare smaller images."
    assert way_out(CPU, "another method") == "Another method, or prepare smaller images."
