"""Commands around a finished audit: verdicts merged and stored, tables written, other tools' files read."""

import csv
import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import stores
import stores.synthetic
from reports import VerdictFile, read_file, write_file
from reports.verdicts import store_identity
from spray.cli import main
from stores import Run, Verdict


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return stores.synthetic.make(tmp_path / "run.zarr", samples=90)


def verdict(run: Run, word: str, annotator: str, second: int) -> Verdict:
    handle = run.analysis()
    finding = handle.findings()[0]
    ids = run.samples.read("id", finding.rows)
    return Verdict(
        subject="finding",
        analysis=handle.id,
        key=finding.name,
        verdict=word,
        note="",
        annotator=annotator,
        time=f"2026-01-01T00:00:{second:02d}Z",
        members=tuple(str(name) for name in ids),
    )


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_verdicts_of_two_people_are_merged_shown_and_stored(run: Run, tmp_path: Path) -> None:
    files = []
    for second, (name, word) in enumerate({"ada": "clever_hans", "grace": "valid"}.items()):
        file = VerdictFile(store_identity(run), "", (verdict(run, word, name, second),))
        files.append(write_file(tmp_path / f"{name}.json", file))
    out = tmp_path / "all.json"
    assert "2 verdicts, 1 conflicts" in invoke("verdicts", "merge", *files, "--out", out)
    told = json.loads(invoke("verdicts", "merge", *files, "--out", out, "--json"))
    assert told["verdicts"] == 2 and "ada" in told["conflicts"][0] and "grace" in told["conflicts"][0]
    before = len(run.verdicts())
    assert "2 verdicts added" in invoke("verdicts", "add", run.path, out)
    assert "0 verdicts added" in invoke("verdicts", "add", run.path, out)
    assert len(stores.open(run.path).verdicts()) == before + 2


def test_merging_without_a_file_writes_to_standard_output(run: Run, tmp_path: Path) -> None:
    given = dataclasses.replace(verdict(run, "valid", "b", 1), annotator="b\x1b]0;owned\x07\u202e")
    said = (verdict(run, "clever_hans", "a", 0), given)
    files = [
        str(write_file(tmp_path / f"{place}.json", VerdictFile(store_identity(run), "", (one,))))
        for place, one in enumerate(said)
    ]
    result = CliRunner().invoke(main, ["verdicts", "merge", *files])
    assert result.exit_code == 0, result.output
    (tmp_path / "all.json").write_text(result.stdout, encoding="utf-8")
    assert read_file(tmp_path / "all.json").verdicts == said
    assert "conflict: finding" in result.stderr and "2 verdicts, 1 conflicts" in result.stderr
    assert not set("\x1b\x07\u202e") & set(result.stderr) and "\\x1b" in result.stderr


def test_verdicts_about_another_store_are_refused(run: Run, tmp_path: Path) -> None:
    other = stores.synthetic.make(tmp_path / "other.zarr", samples=90, seed=1)
    file = write_file(
        tmp_path / "a.json", VerdictFile(store_identity(other), "", (verdict(other, "valid", "a", 0),))
    )
    result = CliRunner().invoke(main, ["verdicts", "add", str(run.path), str(file)])
    assert result.exit_code == 1 and "another store" in result.output


def test_export_of_tables(run: Run, tmp_path: Path) -> None:
    printed = invoke("export", run.path, tmp_path / "tables", "--to", "csv", "--quiet").split()
    assert {Path(path).name for path in printed} == {
        "samples.csv",
        "verdicts.csv",
        "clusters.csv",
        "findings.csv",
    }
    with (tmp_path / "tables" / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(name) for name in run.samples.read("id")]


def test_to_virelay_and_back(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    project = Path(invoke("export", run.path, tmp_path / "project", "--to", "virelay", "--quiet").strip())
    folder = project.parent
    files = {path.stem: path for path in folder.glob("**/*.h5")}
    attribution = next(path for name, path in files.items() if "attribution" in name)
    analysis = next(path for name, path in files.items() if "analysis" in name)
    inputs = next(path for name, path in files.items() if "input" in name)
    out = tmp_path / "back.zarr"
    invoke("import", attribution, "--out", out, "--inputs", inputs, "--analyses", analysis)
    back = stores.open(out)
    assert back.n == run.n
    assert (back.samples.read("label") == run.samples.read("label")).all()


@pytest.mark.parametrize("kind", ["npy", "npz", "zarr"])
def test_maps_computed_elsewhere_with_ids_and_labels(tmp_path: Path, kind: str) -> None:
    maps = np.random.default_rng(0).normal(size=(12, 8, 8)).astype(np.float32)
    path = tmp_path / f"maps.{kind}"
    if kind == "npy":
        np.save(path, maps)
    elif kind == "npz":
        np.savez(path, maps=maps, other=maps[:3])
    else:
        zarr.open_group(path, mode="w").create_array("maps", data=maps)
    (tmp_path / "ids.txt").write_text("".join(f"a/ü {row}.png\n" for row in range(12)), encoding="utf-8")
    (tmp_path / "labels.txt").write_text(
        "".join(f"{'cat' if row % 2 else 0}\n" for row in range(11)) + "-1\n"
    )
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    np.save(tmp_path / "logits.npy", np.eye(2)[np.arange(12) % 2])
    np.save(tmp_path / "inputs.npy", np.zeros((12, 8, 8), np.uint8))
    beside = [part for name in ("ids", "labels") for part in (f"--{name}", tmp_path / f"{name}.txt")]
    beside += ["--classes", tmp_path / "names.txt", *([] if kind == "npy" else ["--key", "maps"])]
    beside += [part for name in ("logits", "inputs") for part in (f"--{name}", tmp_path / f"{name}.npy")]
    assert "Go on with: spray analyze" in invoke("import", path, "--out", tmp_path / "a.zarr", *beside)
    run = stores.open(tmp_path / "a.zarr")
    assert run.classes == ("dog", "cat") and run.samples.read("id", [3]).tolist() == ["a/ü 3.png"]
    assert run.samples.read("label").tolist() == [*([0, 1] * 6)[:11], -1]
    assert run.samples.read("prediction").tolist() == [0, 1] * 6
    np.testing.assert_array_equal(run.table("relevance/imported").read("input.place"), maps)
    invoke("analyze", run.path, "--quiet", "--picture", "none", "--neighbours", 3, "--group-by", "all")


def test_maps_alone_are_enough_and_failed_ones_are_told(tmp_path: Path) -> None:
    maps = np.ones((6, 8, 8), np.float32)
    maps[2] = np.nan
    zarr.create_array(str(tmp_path / "maps.zarr"), data=maps)
    zarr.create_array(str(tmp_path / "logits.zarr"), data=np.eye(6, 3))
    said = invoke("import", tmp_path / "maps.zarr", "--out", tmp_path / "a.zarr")
    assert "6 samples" in said and "relevance/imported: 1 rows are failed (first: row 2, " in said
    names = ["a\u2028b", "a\x85b", "a\x0cb", "\x1c", "", "a\rb"]
    (tmp_path / "ids.txt").write_bytes("\n".join(names).encode())
    given = ("--ids", tmp_path / "ids.txt", "--logits", tmp_path / "logits.zarr")
    invoke("import", tmp_path / "maps.zarr", "--out", tmp_path / "b.zarr", *given)
    run = stores.open(tmp_path / "b.zarr")
    assert run.samples.read("id").tolist() == names and run.classes == ("0", "1", "2")


def test_a_damaged_import_is_mended_by_the_command_that_made_it(tmp_path: Path) -> None:
    maps, store = tmp_path / "maps.npy", tmp_path / "run.zarr"
    np.save(maps, np.random.default_rng(0).normal(size=(6, 8, 8)))
    result = CliRunner().invoke(main, ["import", str(maps), "--out", str(store)])
    assert result.exit_code == 0 and "import relevance/imported: 6 of 6" in result.stderr
    (store / "samples" / "label" / "c" / "0").unlink()
    told = CliRunner().invoke(main, ["check", str(store), "--repair"])
    command = shlex.join(["spray", "import", str(maps), "--out", str(store)])
    assert told.exit_code == 3
    assert re.search(r"Redo just these: \S+ (.*)", told.output)[1] == command.removeprefix("spray ")
    invoke(*shlex.split(command)[1:])
    assert stores.check(store) == []
    shutil.rmtree(f"{store}.log")
    (store / "samples" / "label" / "c" / "0").unlink()
    told = CliRunner().invoke(main, ["check", str(store), "--repair"])
    assert "spray import, as it was given" in told.output and "attribute" not in told.output


def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", np.zeros((4, 8, 8), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    (tmp_path / "three.txt").write_text("0\n1\n1\n")
    (tmp_path / "words.txt").write_text("cat\ncat\ndog\ndog\n")
    (tmp_path / "huge.txt").write_text(f"0\n1\n1\n{10**23}\n")
    (tmp_path / "many.txt").write_text("0\n1\n1\n1000000000\n")
    np.save(tmp_path / "unsigned.npy", np.full(4, 2**64 - 1, np.uint64))
    np.save(tmp_path / "one.npy", np.float32(1))
    np.save(tmp_path / "empty.npy", np.zeros((4, 1, 8, 0), np.float32))
    np.save(tmp_path / "flat.npy", np.zeros(4))
    np.save(tmp_path / "classless.npy", np.zeros((4, 0)))
    np.save(tmp_path / "channels-first.npy", np.zeros((4, 3, 8, 8), np.uint8))
    (tmp_path / "cranes.txt").write_text("crane\ncat\ncrane\n")
    (tmp_path / "a-crane.txt").write_text("cat\ncrane\ncat\ncat\n")
    (tmp_path / "digits.txt").write_text("7\n1\n0\n")
    (tmp_path / "digits4.txt").write_text("7\n1\n0\n1\n")
    (tmp_path / "folds.txt").write_text("1_1\n1\n0\n1\n")
    (tmp_path / "arabic.txt").write_text("٣\n1\n0\n1\n", encoding="utf-8")
    (tmp_path / "attribution.h5").write_bytes(b"")
    for arguments, words, code in (
        (["maps.npy", "--ids", "three.txt"], "there are 4 maps, but of {'ids': 3}", 1),
        (["maps.npy", "--labels", "three.txt"], "there are 4 maps, but of {'labels': 3}", 1),
        (["maps.npy", "--labels", "words.txt"], "the label 'cat' is no class's number", 1),
        (["maps.npy", "--labels", "folds.txt"], "the label '1_1' is no class's number", 1),
        (["maps.npy", "--labels", "arabic.txt"], "the label '٣' is no class's number", 1),
        (
            ["maps.npy", "--labels", "a-crane.txt", "--classes", "cranes.txt"],
            "may be any of the classes 0, 2",
            1,
        ),
        (
            ["maps.npy", "--labels", "digits4.txt", "--classes", "digits.txt"],
            "may be any of the classes 0, 2",
            1,
        ),
        (["maps.npy", "--inputs", "channels-first.npy"], "Put the channels last", 1),
        (["maps.npy", "--labels", "huge.txt"], f"the label '{10**23}' is no class's number", 1),
        (["maps.npy", "--labels", "many.txt"], "that would be 1,000,000,001 classes", 1),
        (["maps.npy", "--labels", "unsigned.npy"], "got uint64 of shape (4,) up to 18446744073709551615", 1),
        (["maps.npy", "--logits", "flat.npy"], "expected logits, numbers of shape (n, class)", 1),
        (["maps.npy", "--logits", "classless.npy"], "got float64 of shape (4, 0)", 1),
        (["one.npy"], "maps: expected numbers of shape (n, channel, y, x) or (n, y, x), got float32", 1),
        (["empty.npy"], "of shape (4, 1, 8, 0)", 1),
        (["objects.npy"], "arrays of objects are not taken", 1),
        (["maps.npy", "--inputs", "maps.npy"], "expected uint8 pictures", 1),
        (["maps.npy", "--label-map", "words.txt"], "--label-map: not beside an array", 2),
        (["attribution.h5", "--ids", "three.txt"], "--ids: not beside HDF5", 2),
    ):
        given = [str(tmp_path / it) if "." in it else it for it in arguments]
        result = CliRunner().invoke(main, ["import", *given, "--out", str(tmp_path / "a.zarr")])
        assert result.exit_code == code and words in " ".join(result.output.split()), result.output
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    "command", [["export", "{run}", "s3://bucket/tables"], ["feedback", "{run}", "s3://bucket/fb"]]
)
def test_tables_are_written_to_this_machine_only(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [part.format(run=run.path) for part in command])
    assert result.exit_code == 2 and "is a URL" in result.output
    assert not (tmp_path / "s3:").exists()


def test_info_sums_up_the_checks_of_every_sample(run: Run) -> None:
    told = json.loads(invoke("info", run.path, "--json"))
    table = run.table("relevance/epsilon_plus_flat")
    checks = next(entry for entry in told["tables"] if entry["name"] == table.name)["checks"]
    rows = table.ok
    spread = table.read("absolute")[rows] / abs(table.read("sum")[rows])
    assert checks["negative_starts"] == int((table.read("start")[rows] < 0).sum())
    assert checks["median_spread"] == pytest.approx(sorted(spread)[len(spread) // 2], rel=0.05)
    assert "absorbed by biases" in invoke("info", run.path)


def test_names_reach_no_terminal_as_control_sequences(tmp_path: Path) -> None:
    hostile = "a\x1b]0;owned\x07\x1b[31mred\n\u202egnp"
    made = stores.synthetic.make(tmp_path / "run.zarr", samples=90, names=[hostile, "b", "c"])
    printed = invoke("analyze", made.path, "--quiet", "--picture", "none") + invoke("info", made.path)
    assert not set("\x1b\x07\u202e") & set(printed)
    assert "\\x1b" in printed


@pytest.mark.parametrize("place", ["s3://bucket/report.html", "s3:/bucket/report.html"])
def test_pages_are_written_to_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["report", "run.zarr", "--out", place])
    assert told.exit_code == 2 and "is a URL, and this is written to this machine only" in told.output
    assert list(tmp_path.iterdir()) == []
