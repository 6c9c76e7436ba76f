"""Verdicts and findings, joined and handed on: who condemned what, lists, masks, split and weights."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from store_tools import with_twins
from torch import nn
from torch.utils.data import TensorDataset

import stores
from spray.attribution import Attribution, attribute_dataset
from spray.cli import main
from spray.data import as_audit_data
from spray.findings.regions import pixel_mask
from stores import Run, Verdict
from stores.condemned import condemned
from stores.exchange import export_feedback
from stores.exchange.feedback import region_mask
from stores.judged_rows import JudgedRows
from stores.judgements import balanced_weights, judgements
from stores.schema import element

IDS = ["=cmd|' /C calc'!A0", "+1", "@x", "-1", "\t<script>", "../../etc/passwd", '名\udc80,\n"']


@pytest.fixture
def run(tmp_path: Path) -> Run:
    ids = [IDS[row % len(IDS)] + str(row) for row in range(90)]
    return stores.synthetic.make(
        tmp_path / "run.zarr", samples=90, ids=ids, names=["=1+1", "b", "c"], failures=2
    )


def ids_of(run: Run, rows: object) -> tuple[str, ...]:
    return tuple(str(name) for name in run.samples.read("id", np.asarray(rows)))


def say(
    run: Run,
    word: str,
    members: tuple[str, ...],
    *,
    by: str = "ada",
    second: int = 0,
    key: str = "",
    subject: str = "finding",
) -> Verdict:
    verdict = Verdict(
        subject, "old", key or "c9.f9", word, "", by, f"2026-01-01T00:00:{second:02d}Z", members
    )
    run.add_verdict(verdict)
    return verdict


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_verdicts_are_joined_by_members_whatever_they_were_called(run: Run) -> None:
    first, second, *_ = run.analysis().findings()
    own = ids_of(run, first.rows)
    say(run, "clever_hans", own, key="another name")
    say(run, "valid", ids_of(run, second.rows[:-1]))  # an earlier analysis had one member less
    gone = say(run, "clever_hans", ids_of(run, first.rows[:3]), second=1)
    found = {
        it.finding.name if it.finding else it.verdicts[0].digest: it for it in judgements(run, run.analysis())
    }
    assert found[first.name].word == "clever_hans" and not found[first.name].inherited
    assert found[second.name].word == "valid" and found[second.name].inherited
    assert found[second.name].overlap == pytest.approx((len(second.rows) - 1) / len(second.rows))
    assert found[gone.digest].finding is None and found[gone.digest].word == "clever_hans"
    assert len(found) == len(run.analysis().findings()) + 1


def test_of_two_findings_with_the_same_members_the_one_named_is_meant(run: Run) -> None:
    again = with_twins(run)
    first, second, _ = again.findings()
    own = ids_of(run, first.rows)
    for key, word in (("twin.f1", "clever_hans"), ("twin.f0", "valid")):
        second_of = dataclasses.replace(
            say(run, word, own, key=key), analysis=again.id, time="2026-01-02T00:00:00Z"
        )
        run.add_verdict(second_of)
    found = judgements(run, again)
    words = {it.finding.name: it.word for it in found if it.finding}
    assert words == {"twin.f0": "valid", "twin.f1": "clever_hans", "twin.half": ""}
    assert len(found) == 3 and first.name != second.name


def test_a_verdict_that_names_one_sample_condemns_no_other(run: Run) -> None:
    named, other = ids_of(run, [0, 1])
    forged = dataclasses.asdict(say(run, "clever_hans", (named,), key=named, subject="sample"))
    forged |= {"members": [other], "digest": "", "annotator": "eve"}
    run.floor.create("verdicts/00000077.json", json.dumps(element("verdict", forged)).encode())
    found = condemned(run, judgements(run, run.analysis()))
    assert np.flatnonzero(found.mask).tolist() == [0] and list(found.reasons) == [0]


def test_the_last_word_of_a_person_counts_and_disagreement_condemns_nothing(run: Run) -> None:
    first = run.analysis().findings()[0]
    own = ids_of(run, first.rows)
    say(run, "clever_hans", own, second=0)
    say(run, "valid", own, second=1)
    (judged,) = [it for it in judgements(run, run.analysis()) if it.verdicts]
    assert judged.word == "valid"
    say(run, "clever_hans", own, by="grace", second=2)
    found = judgements(run, run.analysis())
    assert found[0].word == "conflict" and not condemned(run, found).mask.any()
    assert not condemned(run, found, flagged=True).mask[first.rows].any()


def test_people_condemn_the_samples_they_saw_and_machines_only_when_asked(run: Run) -> None:
    handle = run.analysis()
    flagged = [finding for finding in handle.findings() if finding.flagged]
    assert flagged, "the synthetic run has a flagged finding"
    assert not condemned(run, judgements(run, handle)).mask.any()
    found = condemned(run, judgements(run, handle), flagged=True)
    assert np.flatnonzero(found.mask).tolist() == sorted({row for it in flagged for row in it.rows.tolist()})
    assert set(found.reasons.values()) == {f"flagged: {it.name}" for it in flagged}
    seen = flagged[0].rows[:-1]
    say(run, "clever_hans", ids_of(run, seen))
    found = condemned(run, judgements(run, handle))
    assert np.flatnonzero(found.mask).tolist() == seen.tolist()
    assert found.reasons[int(seen[0])] == f"clever_hans: {flagged[0].name} (ada)"
    say(run, "clever_hans", ids_of(run, [0]), key=ids_of(run, [0])[0], subject="sample")
    assert condemned(run, judgements(run, handle)).mask[0]


def test_weights_keep_what_each_class_weighs() -> None:
    labels, usable = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([1, 1, 1, 1, 1, 0, 1], bool)
    down = np.array([1, 0, 0, 0, 0, 0, 1], bool)
    weights = balanced_weights(labels, usable, down, 0.1)
    assert weights.tolist() == pytest.approx([0.1, 1.3, 1.3, 1.3, 1, 0, 0.1])
    assert balanced_weights(labels, usable, down & False, 0).tolist() == usable.astype(float).tolist()


def test_the_mask_is_that_of_the_interventions() -> None:
    region = np.random.default_rng(0).random((7, 5)) > 0.5
    for size in ((28, 28), (30, 17), (3, 2)):
        assert np.array_equal(region_mask(region, *size), pixel_mask(region, *size))


def test_the_folder_holds_all_of_it(run: Run, tmp_path: Path) -> None:
    first = run.analysis().findings()[0]
    say(run, "clever_hans", ids_of(run, first.rows))
    told = export_feedback(run, tmp_path / "out")
    folder = told.folder
    assert told.condemned == len(first.rows) and told.by_people == 1 and told.by_machine == 0
    assert told.kept == int(run.samples.ok.sum()) - len(first.rows)
    split = rows_of(folder / "split.csv")
    assert [
        int(row["row"]) for row in split if row["keep"] == "False" and "clever_hans" in row["reason"]
    ] == (first.rows.tolist())
    assert sum(row["keep"] == "False" for row in split) == len(first.rows) + 2  # and the failed ones
    listed = rows_of(folder / "lists" / f"{first.name}.csv")
    assert [int(row["row"]) for row in listed] == first.rows.tolist() and listed[0][
        "verdict"
    ] == "clever_hans"
    for path in folder.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in "=+@\t" and cell]
        assert not [
            cell for cell in cells if cell.startswith("-") and not cell[1:].replace(".", "").isdigit()
        ]
    told_findings = rows_of(folder / "findings.csv")
    assert told_findings[0]["overlap"] == "1.0" and told_findings[1]["overlap"] == ""
    weights = rows_of(folder / "weights.csv")
    assert sum(float(row["weight"]) for row in weights) == pytest.approx(run.samples.ok.sum())
    mask = np.load(folder / "masks" / f"{first.name}.npy", allow_pickle=False)
    assert mask.shape == (28, 28) and mask.any() and not mask.all()
    with Image.open(folder / "masks" / f"{first.name}.png") as picture:
        assert np.array_equal(np.asarray(picture) > 0, mask)
    assert {path.suffix for path in (folder / "lists").iterdir()} == {".csv"}


def test_json_and_parquet_are_exact(run: Run, tmp_path: Path) -> None:
    export_feedback(run, tmp_path / "json", "json", parts=["split"])
    records = json.loads((tmp_path / "json" / "split.json").read_text())
    assert [record["id"] for record in records] == [str(name) for name in run.samples.read("id")]
    assert {path.name for path in (tmp_path / "json").iterdir()} == {"split.json", "summary.json"}
    parquet = pytest.importorskip("pyarrow.parquet")
    export_feedback(run, tmp_path / "parquet", "parquet", parts=["split"])
    table = parquet.read_table(tmp_path / "parquet" / "split.parquet").to_pydict()
    export_feedback(run, tmp_path / "all", "parquet")
    joined = parquet.read_table(tmp_path / "all" / "findings.parquet").to_pydict()
    assert joined["overlap"] == [None] * len(joined["name"])
    assert table["id"][0] == records[0]["id"] and table["keep"] == [record["keep"] for record in records]


def test_nothing_is_overwritten_and_nothing_half_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_feedback(run, out)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(stores.StoreError, match="there already"):
        export_feedback(run, out)
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with pytest.raises(stores.StoreError, match="not written by this export"):
        export_feedback(run, precious, force=True)
    (precious / "summary.json").write_text('{"findings": []}')
    with pytest.raises(stores.StoreError, match=r"no summary\.json of its"):
        export_feedback(run, precious, force=True)
    shutil.copy(out / "summary.json", precious)
    with pytest.raises(stores.StoreError, match=r"it holds 'thesis\.tex'"):
        export_feedback(run, precious, force=True)
    with pytest.raises(stores.StoreError, match="not written by this export"):
        export_feedback(run, tmp_path, force=True)  # which holds the store
    (out / "lists/mine").mkdir()
    with pytest.raises(stores.StoreError, match="it holds 'lists/mine'"):
        export_feedback(run, out, force=True)
    (out / "lists/mine").rmdir()
    monkeypatch.setattr("stores.exchange.feedback.balanced_weights", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_feedback(run, out, force=True)
    assert sorted(path.name for path in out.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run.zarr", "thesis"]
    monkeypatch.undo()
    export_feedback(run, out, parts=["weights"], force=True)
    assert sorted(path.name for path in out.iterdir()) == ["summary.json", "weights.csv"]
    for bad in ({"to": "xlsx"}, {"parts": ["magic"]}, {"weight": 1.0}, {"parts": []}):
        with pytest.raises(stores.StoreError):
            export_feedback(run, tmp_path / "bad", **bad)
    assert not (tmp_path / "bad").exists()


def test_the_command_says_loudly_what_the_machine_condemns_alone(run: Run, tmp_path: Path) -> None:
    second = run.analysis().findings()[1]
    say(run, "clever_hans", ids_of(run, second.rows[:-1]))
    plain = CliRunner().invoke(main, ["feedback", str(run.path), str(tmp_path / "a")])
    assert plain.exit_code == 0, plain.output
    assert "condemned by 1 verdicts" in plain.output and "WARNING" not in plain.output
    assert f"please confirm: {second.name}" in plain.output
    loud = CliRunner().invoke(main, ["feedback", str(run.path), str(tmp_path / "b"), "--flagged"])
    assert "WARNING" in loud.output and "machine alone" in loud.output
    told = CliRunner().invoke(
        main, ["feedback", str(run.path), str(tmp_path / "c"), "--json", "--only", "split"]
    )
    assert json.loads(told.output)["condemned"] == len(second.rows) - 1
    again = CliRunner().invoke(main, ["feedback", str(run.path), str(tmp_path / "c")])
    assert again.exit_code == 1 and "--force" in again.output


def test_ids_are_compared_to_the_letter_and_one_that_stands_twice_condemns_none_that_was_not_judged(
    tmp_path: Path,
) -> None:
    ids = ["a", "a\0", "a\0\0", "b", "b"] + [f"c{row}" for row in range(55)]
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60, ids=ids)
    say(run, "clever_hans", ("a\0",), subject="sample", key="a\0")
    assert np.flatnonzero(condemned(run, judgements(run, run.analysis())).mask).tolist() == [1]
    say(run, "clever_hans", ("b", "c0", "gone"))
    found = condemned(run, judgements(run, run.analysis()))
    assert np.flatnonzero(found.mask).tolist() == [1, 5] and found.unclear == ("c9.f9",)
    told = export_feedback(run, tmp_path / "feedback")
    assert (told.condemned, told.unclear) == (2, ("c9.f9",))
    said = CliRunner().invoke(main, ["feedback", str(run.path), str(tmp_path / "again")])
    assert "Give every sample an id of its own" in said.output


def test_of_rows_with_one_id_those_of_the_very_finding_or_cluster_are_judged(tmp_path: Path) -> None:
    """Half of the rows have the ids of the other half."""
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=90, ids=[f"i{row % 45}" for row in range(90)])
    handle = run.analysis()
    finding = handle.findings()[0]
    verdict = say(run, "clever_hans", ids_of(run, finding.rows), key=finding.name)
    judged = JudgedRows(run)
    assert judged.of(verdict).unclear  # of another analysis: nothing tells
    own = dataclasses.replace(verdict, analysis=handle.id)
    assert judged.of(own).rows.tolist() == finding.rows.tolist() and not judged.of(own).unclear
    run.add_verdict(dataclasses.replace(own, annotator="bob"))
    assert {it.finding.name: it.word for it in judgements(run, handle) if it.finding and it.word} == {
        finding.name: "clever_hans"
    }
    assert np.flatnonzero(condemned(run, judgements(run, handle)).mask).tolist() == finding.rows.tolist()
    group = handle.read(handle.groups[0])
    name, clustering = next(iter(group.clusterings.items()))
    rows = group.rows[clustering.labels == clustering.labels[0]]
    key = f"c{group.group}.{name}.{clustering.labels[0]}"
    of_cluster = dataclasses.replace(own, subject="cluster", key=key, members=ids_of(run, rows), digest="")
    assert judged.of(of_cluster).rows.tolist() == rows.tolist()


def test_rows_with_one_id_are_one_sample_where_they_are_one_picture(tmp_path: Path) -> None:
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images[1] = images[0]
    data = as_audit_data(
        TensorDataset(images, torch.arange(6) % 2), classes=["x", "y"], ids=["b", "b", "c", "c", "d", "e"]
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    run = attribute_dataset(model, data, tmp_path / "run.zarr", Attribution(composite="gradient_x_input"))
    judged = JudgedRows(stores.open(run.path, "r+"))
    alone, either = (
        judged.of(say(judged.run, "clever_hans", (name,), subject="sample", key=name)) for name in ("b", "c")
    )
    assert alone.rows.tolist() == [0, 1] and not alone.unclear
    assert either.rows.tolist() == [] and either.unclear == ("c",)


def test_a_word_on_the_sample_itself_outdoes_those_on_what_it_is_part_of(run: Run, tmp_path: Path) -> None:
    first = run.analysis().findings()[0]
    own = ids_of(run, first.rows)
    say(run, "clever_hans", own)
    say(run, "valid", (own[0],), subject="sample", key=own[0], by="bob", second=1)
    say(run, "unsure", (own[1],), subject="sample", key=own[1], second=2)
    say(run, "valid", own[2:5], key="c7.f7", second=3)  # another finding, with three of its samples
    say(run, "unsure", own[5:7], key="c7.f8", second=4)
    say(run, "clever_hans", (own[3],), subject="sample", key=own[3], second=5)
    found = condemned(run, judgements(run, run.analysis()), flagged=True)
    kept = first.rows[[0, 1, 2, 4]].tolist()
    assert sorted(found.contested) == kept
    assert found.mask[first.rows].sum() == len(first.rows) - 4 and not found.mask[kept].any()
    assert "clever_hans" in found.contested[kept[0]] and f"valid: {own[0]} (bob)" in found.contested[kept[0]]
    told = export_feedback(run, tmp_path / "feedback")
    assert told.contested == 4
    split = rows_of(tmp_path / "feedback" / "split.csv")
    assert split[kept[0]]["keep"] == "True" and "judged differently" in split[kept[0]]["reason"]
    said = CliRunner().invoke(main, ["feedback", str(run.path), str(tmp_path / "again")])
    assert "4 samples are kept since words on them differ" in said.output
