"""What a reader of an analysis is told beside its results: what it lacks, and on what it was computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_tools import Images, contents, spray, tiny_model
from click.testing import CliRunner

import stores
from reports.model import ReportModel
from spray.analysis import Analysis, analyze
from spray.analysis.null import GaussianNull
from spray.analysis.stability import Stability
from spray.attribution import Attribution, attribute_dataset, attribute_share
from spray.cli import main
from spray.findings import find
from stores.circumstances import circumstances, shortfalls

STEP = Attribution(block=4, grid=4, thumbnails=8)
QUICK = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")
AWAY = OSError("Stale file handle")


def attribute(out: Path, *failing: int) -> stores.Run:
    data = Images(items=dict.fromkeys(failing, AWAY))
    return attribute_dataset(tiny_model(), data, out, STEP, retry_failed=True)


@pytest.fixture
def run(tmp_path: Path) -> stores.Run:
    return stores.synthetic.make(tmp_path / "run.zarr", samples=120, classes=3)


def told(run: stores.Run, kind: str) -> list[str]:
    return [f"{it.unit}: {it.detail}" for it in stores.check(run.path) if it.kind == kind]


def test_samples_that_come_back_make_another_analysis(tmp_path: Path) -> None:
    run = attribute(tmp_path / "run.zarr", 1, 9)
    first = analyze(run, QUICK)
    before = contents(tmp_path / "run.zarr/analyses")
    assert circumstances(run, first) == [] and analyze(run, QUICK).id == first.id
    run = attribute(tmp_path / "run.zarr")
    (sentence,) = shortfalls(run, first)
    assert sentence.startswith("Made when 2 samples had failed, and others have now (0)")
    assert told(run, "note") == [f"analyses/{first.id}: {sentence}"]
    second = analyze(run, QUICK)
    assert second.id != first.id and shortfalls(run, second) == []
    now = contents(tmp_path / "run.zarr/analyses")
    assert all(now[key] == data for key, data in before.items())
    never = analyze(attribute(tmp_path / "sound.zarr"), QUICK)
    assert never.id == second.id and never.read(0).rows.tolist() == second.read(0).rows.tolist()


def test_tables_of_an_analysis_that_nobody_searched_are_not_handed_over_without_a_word(
    tmp_path: Path,
) -> None:
    run = attribute(tmp_path / "run.zarr")
    handle = analyze(run, QUICK)
    asked = [
        ["export", str(run.path), str(tmp_path / "tables"), "--to", "csv"],
        ["feedback", str(run.path), str(tmp_path / "f")],
    ]
    for command in asked:
        assert "Not searched for findings yet" in CliRunner().invoke(main, command).stderr
    find(run, handle)
    assert "WARNING" not in CliRunner().invoke(main, [*asked[0], "--force"]).stderr


def test_groups_of_samples_as_they_were_are_waited_for_by_nobody(tmp_path: Path) -> None:
    """No command makes them: what is named as the next move would be done for ever."""
    run = attribute(tmp_path / "run.zarr", 1, 9)
    begun = analyze(run, QUICK, groups=[0, 1, 2])
    (tmp_path / f"run.zarr/ledger/commits/analyses/{begun.id}/c1.json").unlink()
    assert any("c1" in gap for gap in told(run, "incomplete"))
    run = attribute(tmp_path / "run.zarr")
    assert told(run, "incomplete") == []
    assert any("c1" in note for note in told(run, "note"))
    shutil.rmtree(tmp_path / f"run.zarr/analyses/{begun.id}/c1")
    assert told(run, "incomplete") == []
    assert any(
        "1 of 3 groups are not written, and their samples are not those of then" in it
        for it in told(run, "note")
    )
    assert any(it.startswith("Never written: 1 group") for it in shortfalls(run, run.analysis(begun.id)))


def test_classes_that_are_analysed_after_a_search_are_searched_by_the_next(run: stores.Run) -> None:
    early = analyze(run, QUICK, groups=[2])
    assert {finding.group for finding in find(run, early)} <= {2}
    assert early.unsearched == [] and shortfalls(run, early) == []
    late = analyze(run, QUICK)
    assert late.id == early.id and late.planned == [0, 1, 2] and late.unsearched == [0, 1]
    (sentence,) = shortfalls(run, late)
    assert f"2 groups ({run.classes[0]}, {run.classes[1]})" in sentence
    assert told(run, "incomplete") == [f"analyses/{late.id}/findings: {sentence}"]
    whole = find(run, late)
    assert {finding.group for finding in whole} == {0, 1, 2}
    assert late.unsearched == [] and told(run, "incomplete") == []
    assert [finding.name for finding in find(run, late)] == [finding.name for finding in whole]


def test_a_search_that_stopped_before_its_end_is_told(run: stores.Run) -> None:
    handle = analyze(run, QUICK)
    unit = f"analyses/{handle.id}/findings"
    assert told(run, "incomplete") == [f"{unit}: Not searched for findings yet."]
    assert "Not searched for findings yet" in spray("info", run.path)
    first = find(run, handle)
    assert told(run, "incomplete") == []
    of_class = [finding for finding in first if finding.group == 1]
    handle.write_tested(1, of_class, stores.Provenance(({"name": "interventions", "done": True},)))
    (gap,) = told(run, "incomplete")
    assert gap == f"{unit}: Tests of the findings were begun, and are not done (1 of 3 groups)."
    handle.write_findings(first, stores.Provenance(({"name": "interventions", "done": True},)))
    assert told(run, "incomplete") == []


def test_an_analysis_of_further_classes_is_to_be_completed_with_these(
    run: stores.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = analyze(run, QUICK, groups=[2])
    monkeypatch.setattr(stores.AnalysisHandle, "write", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        analyze(run, QUICK, groups=[0, 2])
    assert run.analysis(handle.id).planned == [0, 2]
    (gap,) = told(run, "incomplete")
    assert "1 of 2 groups are not written yet (c0)" in gap
    assert "Not written yet: 1 group (" in shortfalls(run, run.analysis(handle.id))[0]


def test_commands_say_so(run: stores.Run) -> None:
    handle = analyze(run, QUICK, groups=[2])
    find(run, handle)
    handle = analyze(run, QUICK)
    told = spray("info", run.path)
    assert "Not searched for findings: 2 groups (" in told
    find(run, handle)
    assert "Not searched" not in spray("info", run.path)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_store_goes_on_with_the_threads_that_it_was_begun_with(
    tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    torch.set_num_threads(1)
    attribute(tmp_path / "whole.zarr")
    attribute_share(tiny_model(), Images(), tmp_path / "run.zarr", STEP, share=0, of=2)
    torch.set_num_threads(2)
    run = attribute(tmp_path / "run.zarr")
    assert torch.get_num_threads() == 2 and run.samples.complete
    assert contents(tmp_path / "run.zarr") == contents(tmp_path / "whole.zarr")


def test_fewer_cores_than_it_was_begun_with_are_told(
    tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    attribute_share(tiny_model(), Images(), tmp_path / "run.zarr", STEP, share=0, of=2)
    torch.set_num_threads(1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    run = attribute(tmp_path / "run.zarr")
    told_of = told(run, "note")
    assert len(told_of) == 2 and all("differ in threads (stored " in sentence for sentence in told_of)
    assert circumstances(run, analyze(run, QUICK))[0].startswith(
        "relevance/epsilon_plus_flat was computed on 2 kinds"
    )


def test_batches_that_memory_halved_are_told(run: stores.Run) -> None:
    made = stores.Provenance(({"name": "test"},))
    table = run.create_table(
        "relevance/x", [stores.Column("sum", "float64")], rows_per_shard=40, provenance=made
    )
    for shard, facts in enumerate(({}, {"batch": 8}, {"batch": 2})):
        table.write(shard, {"sum": np.zeros(40)}, facts=facts)
    sentence = "ran out of memory in 2 shards, which were computed in batches of 2, 8"
    assert told(run, "note") == [f"relevance/x: {sentence}"]
    assert f"relevance/x {sentence}" in spray("info", run.path)


def test_an_analysis_that_was_only_begun_takes_no_other_s_place(run: stores.Run, tmp_path: Path) -> None:
    whole = run.analysis()
    begun = run.create_analysis(
        stores.Provenance(({"name": "begun"},)), facts=whole.facts, groups=whole.groups
    )
    begun.write(whole.read(0))
    assert run.analysis().id == begun.id and run.shown_analysis().id == whole.id
    assert run.shown_analysis(begun.id[:6]).id == begun.id
    assert ReportModel.from_run(run).analysis == whole.id
    for command in (("export", run.path, tmp_path / "sheets"), ("feedback", run.path, tmp_path / "back")):
        told = CliRunner().invoke(main, [str(word) for word in command])
        assert told.exit_code == 0 and "WARNING" not in told.stderr
        told = CliRunner().invoke(main, [*map(str, command), "--analysis", begun.id, "--force"])
        assert "WARNING: Not written yet: 2 groups (" in told.stderr
    written = json.loads((tmp_path / "back/summary.json").read_text())
    assert written["analysis"] == begun.id
