"""Samples that failed, and can be read by now, are computed anew; all else stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit_tools import MODEL, TOML, Images, contents, draw_pictures, spray, tiny_model
from click.testing import CliRunner

import stores
from spray.attribution import Attribution, attribute_dataset
from spray.attribution.quarantine import POISON, Quarantine
from spray.attribution.stage import UNEXPLAINABLE
from spray.cli import main
from spray.data import as_audit_data
from stores.tables import Table

STEP = Attribution(block=4, grid=4, thumbnails=8)
OTHER = replace(STEP, composite="gradient_x_input")
AWAY = OSError("Stale file handle")


def attribute(out: Path, *failing: int, step: Attribution = STEP, retry_failed: bool = True) -> stores.Run:
    data = Images(items=dict.fromkeys(failing, AWAY))
    return attribute_dataset(tiny_model(), data, out, step, retry_failed=retry_failed)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which nothing ever failed."""
    out = tmp_path_factory.mktemp("sound") / "run.zarr"
    attribute(out)
    attribute(out, step=OTHER)
    return out


def test_what_was_away_for_a_while_is_computed_anew_and_nothing_else(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    attribute(out, 1, 9, 18)
    assert list(attribute(out, retry_failed=False).samples.failures) == [1, 9, 18]
    before = {key: (out / key).stat().st_mtime_ns for key in contents(out) if key.startswith("ledger/")}
    run = attribute(out, 9)  # that one is away still
    assert list(run.samples.failures) == [9]
    kept = {key for key, then in before.items() if (out / key).stat().st_mtime_ns == then}
    anew = {key.rpartition("/")[2] for key in before.keys() - kept}
    assert anew == {f"{shard}.json" for shard, rows in enumerate(run.samples.shards) if {1, 18} & {*rows}}
    attribute(out)
    attribute(out, step=OTHER)
    assert contents(out) == contents(sound)


def test_relevance_by_other_composites_is_taken_back_with_its_samples(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    attribute(out, 6)
    attribute(out, 6, step=OTHER)
    run = attribute(out)
    assert run.table("relevance/gradient_x_input").missing() == [1]
    assert [problem.kind for problem in stores.check(out)] == ["incomplete"]
    attribute(out, step=OTHER, retry_failed=False)
    assert contents(out) == contents(sound)


@pytest.mark.parametrize("calls", [1, 2])
def test_an_interrupted_retry_leaves_a_store_to_go_on_with(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    out, actual, left = tmp_path / "run.zarr", Table.take_back, iter(range(calls))
    attribute(out, 6)
    attribute(out, 6, step=OTHER)

    def interrupted(table: Table, shard: int) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        actual(table, shard)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "take_back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attribute(out)
    for step in (STEP, OTHER):
        assert attribute(out, step=step, retry_failed=False).table(f"relevance/{step.composite}").complete
    assert list(stores.open(out).samples.failures) == [6]
    attribute(out)
    attribute(out, step=OTHER)
    assert contents(out) == contents(sound)


def test_what_the_model_cannot_explain_is_not_tried_again(tmp_path: Path) -> None:
    """It can be read, and would be refused again, whenever it is asked for."""
    data, out, model = (
        Images(items={5: (torch.full((1, 8, 8), 3e38), 0)}),
        tmp_path / "run.zarr",
        tiny_model(),
    )
    with torch.no_grad():
        model[0].weight.mul_(10)  # these inputs overflow
    for _ in range(2):
        run = attribute_dataset(model, data, out, STEP, retry_failed=True)
        assert run.samples.failures == {5: UNEXPLAINABLE}
    logs = [path.read_text() for path in sorted(tmp_path.glob("run.zarr.log/*"))]
    assert len(logs) == 2 and '"shards": 0, "rows": 0' in logs[1] and '"retried": []' in logs[1]


def test_a_loader_that_ends_the_process_costs_its_row_only(tmp_path: Path) -> None:
    data = Images(items={5: SystemExit(3)})
    run = attribute_dataset(tiny_model(), data, tmp_path / "run.zarr", STEP)
    assert run.samples.failures == {5: "SystemExit: 3"}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    Path("audit.toml").write_text(TOML)
    draw_pictures(tmp_path / "images", ("a", "b"), 12)
    picture = tmp_path / "images" / "b" / "03.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:40])
    spray("attribute", "audit.toml", "--out", "run.zarr")
    picture.write_bytes(whole)
    spray("attribute", "audit.toml", "--out", "run.zarr")
    assert len(stores.open("run.zarr").samples.failures) == 1
    spray("attribute", "audit.toml", "--out", "run.zarr", "--retry-failed")
    assert not stores.open("run.zarr").samples.failures and stores.check("run.zarr") == []
    result = CliRunner().invoke(main, ["attribute", "audit.toml", "--retry-failed", "--shards", "0::2"])
    assert result.exit_code == 1 and "give it without --shards" in result.output


def test_relevance_that_failed_beside_good_samples_is_computed_anew(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    attribute(out)
    attribute(out, 1, 2, 18, step=OTHER)
    before = {key: (out / key).stat().st_mtime_ns for key in contents(out)}
    run = attribute(out, 2, 18, step=OTHER)
    assert list(run.table("relevance/gradient_x_input").failures) == [2, 18]
    anew = {key for key, then in before.items() if (out / key).stat().st_mtime_ns != then}
    shard = [1 in rows for rows in run.samples.shards].index(True)
    assert anew and all(
        key.startswith(("relevance/gradient_x_input/", "ledger/commits/relevance/gradient_x_input/"))
        and f"/{shard}" in key
        for key in anew
    )
    attribute(out, step=OTHER)
    assert contents(out) == contents(sound)


def test_a_picture_that_was_another_for_a_while_gets_its_relevance_once_it_is_back(
    sound: Path, tmp_path: Path
) -> None:
    out, data = tmp_path / "run.zarr", Images()
    attribute(out)
    then = data.images[7].clone()
    data.images[7] = 1 - then
    for _ in range(2):  # it is another one still
        run = attribute_dataset(tiny_model(), data, out, OTHER, retry_failed=True)
        assert list(run.table("relevance/gradient_x_input").failures) == [7]
    assert stores.check(out) == []
    data.images[7] = then
    attribute_dataset(tiny_model(), data, out, OTHER, retry_failed=True)
    assert contents(out) == contents(sound)


@pytest.mark.parametrize(("first", "second"), [((2,), ()), ((), (2,))])
def test_pictures_are_shown_as_they_were_whichever_samples_can_be_read(
    tmp_path: Path, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    """Without mean and std the range of the first samples decides."""
    out = tmp_path / "run.zarr"
    for failing in (first, second):
        data = Images(items=dict.fromkeys(failing, AWAY))
        data.images[2] *= 3
        run = attribute_dataset(tiny_model(), data, out, STEP, retry_failed=True)
        run.samples.take_back(4)
        run.table("relevance/epsilon_plus_flat").take_back(4)
    assert list(attribute_dataset(tiny_model(), data, out, STEP).samples.failures) == []


def test_a_sample_that_cannot_be_read_any_more_costs_itself_only(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    run = attribute(out)
    for table in (run.samples, run.table("relevance/epsilon_plus_flat")):
        table.take_back(4)
    run = attribute(out, 1, step=OTHER)
    assert list(run.table("relevance/gradient_x_input").failures) == [1]
    attribute(out, 1, retry_failed=False)
    attribute(out, step=OTHER)
    assert contents(out) == contents(sound)


def test_samples_that_end_processes_are_not_read_again(tmp_path: Path) -> None:
    out, deadly = tmp_path / "run.zarr", Images(items={1: KeyboardInterrupt()})
    known = Quarantine(as_audit_data(Images()), frozenset({1}))
    attribute_dataset(tiny_model(), known, out, STEP)
    for step in (STEP, OTHER):
        run = attribute_dataset(tiny_model(), deadly, out, step, retry_failed=True)
        assert run.samples.failures == {1: f"Poisonous: {POISON}"}
        assert run.table(f"relevance/{step.composite}").failures == run.samples.failures
    assert stores.check(out) == []
