"""A table's document that was lost is written anew as it was, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit_tools import Images, contents, tiny_model
from store_tools import new_run, new_table, values

import stores
from spray.attribution import Attribution, attribute_dataset, stage

STEP = Attribution("epsilon_plus", block=4, grid=4, thumbnails=8)
FULL = replace(STEP, composite="gradient", full=True)
FOUND = replace(STEP, block=0)
"""The block is found, as by default."""
SAMPLES, MAPS = "samples/zarr.json", "relevance/epsilon_plus/zarr.json"


def attribute(out: Path, step: Attribution = STEP) -> stores.Run:
    return attribute_dataset(tiny_model(), Images(), out, step)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    attribute(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


@pytest.mark.parametrize("lost", [[SAMPLES], [MAPS], [SAMPLES, "samples/id/zarr.json"]])
def test_it_is_what_the_other_tables_say(out: Path, lost: list[str]) -> None:
    before = contents(out)
    for key in lost:
        (out / key).unlink()
    attribute(out, FOUND)
    assert contents(out) == before


def test_its_shards_have_the_rows_that_they_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run.zarr"
    monkeypatch.setattr(stage, "SHARDS_AT_LEAST", 1)
    monkeypatch.setattr(stage, "SHARD_BYTES", 4096)
    rows = attribute(out).samples.rows_per_shard
    attribute(out, FULL)
    before = contents(out)
    (out / SAMPLES).unlink()
    attribute(out, FULL)
    assert contents(out) == before
    for key in [SAMPLES, MAPS, "relevance/gradient/zarr.json"]:
        (out / key).unlink()
    assert attribute(out, FULL).samples.rows_per_shard == rows
    attribute(out)
    assert contents(out) == before


def test_another_one_is_refused(out: Path) -> None:
    before = contents(out)
    for key in (SAMPLES, MAPS):
        (out / key).unlink()
    with pytest.raises(stores.StoreError, match="another provenance"):
        attribute(out, replace(STEP, block=5))
    assert not (out / SAMPLES).exists()
    attribute(out)
    assert contents(out) == before


def test_one_of_other_rows_is_refused(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path))
    for shard, rows in enumerate(table.shards):
        table.write(shard, values(rows))
    (tmp_path / table.key / "zarr.json").unlink()
    with pytest.raises(stores.StoreError, match="other rows"):
        stores.open(tmp_path, "r+").create_table(
            table.name,
            list(table.columns.values()),
            rows_per_shard=table.rows_per_shard + 1,
            provenance=table.provenance,
        )
    assert new_table(stores.open(tmp_path, "r+")).complete


def test_commits_of_other_rows_are_told_and_not_read(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path / "run"))
    for shard, rows in enumerate(table.shards):
        table.write(shard, values(rows))
    run = new_run(tmp_path / "other")
    other = run.create_table(
        table.name,
        list(table.columns.values()),
        rows_per_shard=table.rows_per_shard + 1,
        provenance=table.provenance,
    )
    document = f"{table.key}/zarr.json"
    (tmp_path / "run" / document).write_bytes((tmp_path / "other" / document).read_bytes())
    with pytest.raises(stores.Damaged, match="other rows"):
        stores.open(tmp_path / "run").table(other.name).read("score")
    assert "other rows" in " ".join(map(str, stores.check(tmp_path / "run")))


def test_commits_tell_which_instructions_computed_them(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = stores.open(out).samples.facts(0)["processor"]
    assert told["instructions"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    again = attribute(out.with_name("again.zarr")).samples.facts(0)["processor"]
    assert again == told | {"ONEDNN_MAX_CPU_ISA": "SSE41"}
