"""The command line: from a folder of images to a report, from flags or a file, interrupted and resumed."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from audit_tools import MODEL, TOML, contents, draw_pictures
from click.testing import CliRunner

import stores
from spray.cli import main

DATA = """
import os, signal, torch
from pathlib import Path

FLAG = Path(__file__).parent / "interrupt"

class Noise:
    classes = ["cat", "dog"]

    def __len__(self):
        return 24

    def __getitem__(self, row):
        if row == 13 and FLAG.exists():
            number = int(FLAG.read_text())
            FLAG.unlink()
            os.killpg(os.getpgid(0), number)
        return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(row)), row % 2

def load():
    return Noise()

def stream():
    return iter([])
"""


def spray(*arguments):
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def spray_json(*arguments):
    quiet = [] if arguments[0] in ("info", "check", "report") else ["--quiet"]
    code, out, err = spray(*arguments, "--json", *quiet)
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A model, a configuration, a data module, and a folder of 2 × 16 images, one of which is torn."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in (("model.py", MODEL), ("data.py", DATA), ("audit.toml", TOML)):
        (folder / name).write_text(text)
    draw_pictures(folder / "images", ("cat", "[bold]dog"), 32)
    (folder / "images" / "cat" / "04.png").write_bytes(b"torn")
    return folder


@pytest.fixture(scope="module")
def audited(project):
    """What `spray audit audit.toml --json` printed."""
    return spray_json("audit", project / "audit.toml")


@pytest.fixture
def store(audited, tmp_path):
    """A copy of the audit's store."""
    return shutil.copytree(audited["store"], tmp_path / "run.zarr")


def test_an_audit_from_a_file_ends_in_a_report(project, audited):
    assert audited["store"] == str(project / "audit.zarr")
    assert audited["report"] == str(project / "report.html")
    page = Path(audited["report"]).read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") or page.lstrip().lower().startswith("<!doctype html>")
    run = stores.open(audited["store"])
    assert run.classes == ("[bold]dog", "cat")
    assert list(run.samples.failures.values()) == ["ValueError: unreadable image: no known format"]
    (torn,) = run.samples.failures
    assert run.samples.read("id", [torn]).tolist() == ["cat/04.png"]
    assert run.samples.read("label", [torn]).tolist() == [1]
    assert run.analysis().read(1).invalid_rows.tolist() == [torn]
    assert run.analyses() == [audited["analysis"]]
    assert audited["findings"] == [
        {
            "name": finding.name,
            "class": run.classes[finding.group],
            "samples": len(finding.rows),
            "score": finding.score,
            "flagged": finding.flagged,
            "parts": dict(finding.parts),
            "evidence": dict(finding.evidence),
            "summary": finding.summary,
        }
        for finding in run.analysis().findings()
    ]


def test_the_same_audit_from_flags_and_again(project, audited, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    flags = [
        *("--model", "model.py:load", "--data", "images", "--resize", 8, "--crop", 8, "--mean", "0.5"),
        *("--std", "0.25", "--composite", "epsilon_plus", "--layer", "0", "--block", 8, "--device", "cpu"),
        *(
            "--neighbours",
            3,
            "--picture",
            "none",
            "--out",
            tmp_path / "a.zarr",
            "--report",
            tmp_path / "r.html",
        ),
    ]
    code, out, err = spray("audit", *flags)
    assert code == 0
    assert "attribute: 32 of 32" in err
    assert "findings" in out
    assert f"Open {tmp_path / 'r.html'} in a browser." in out.replace("\n", "")
    relevance = [
        stores.open(path).table("relevance/epsilon_plus") for path in (tmp_path / "a.zarr", audited["store"])
    ]
    np.testing.assert_array_equal(relevance[0].read("input.place"), relevance[1].read("input.place"))
    before = contents(tmp_path / "a.zarr")
    code, out, err = spray("audit", *flags)
    assert code == 0
    assert "attribute: 0 of" not in err  # nothing is computed again
    assert contents(tmp_path / "a.zarr") == before


def test_info_tells_what_a_store_holds(store):
    facts = spray_json("info", store)
    assert (facts["samples"], facts["classes"]) == (32, ["[bold]dog", "cat"])
    table = next(table for table in facts["tables"] if table["name"] == "relevance/epsilon_plus")
    assert (table["committed"], table["shards"], table["failed"]) == (4, 4, 1)
    assert list(table["failures"].values()) == ["ValueError: unreadable image: no known format"]
    code, out, _ = spray("info", store)
    assert code == 0
    assert "32 samples, 2 classes" in out
    assert "failed: ValueError: unreadable image: no known format" in out


def test_check_finds_a_changed_byte_and_a_run_mends_it(project, store):
    assert spray_json("check", store) == []
    assert "Sound" in spray("check", store)[1]
    shard = max((store / "relevance").rglob("c/*"), key=lambda path: path.is_file() and path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    code, out, _ = spray("check", store, "--json")
    assert code == 1
    assert [problem["kind"] for problem in json.loads(out)] == ["bytes"]
    assert spray("check", store, "--repair")[0] == 3
    assert "Go on: " in spray("check", store)[1]
    assert spray("attribute", project / "audit.toml", "--out", store, "--quiet")[0] == 0
    assert spray_json("check", store) == []


def damage(store, prefix):
    """Flip one bit in the largest file below a folder; returns its bytes before."""
    files = (path for path in (store / prefix).rglob("*") if path.is_file() and path.name != "zarr.json")
    path = max(files, key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    return path, data


def test_repair_names_the_command_that_redoes_just_the_damaged(project, tmp_path):
    store, config = tmp_path / "run.zarr", project / "audit.toml"
    assert spray("attribute", config, "--out", store, "--quiet")[0] == 0
    assert spray("analyze", store, "--neighbours", 3, "--picture", "none", "--quiet")[0] == 0
    sound = contents(store)
    (analysis,) = stores.open(store).analyses()
    damage(store, "relevance"), damage(store, f"analyses/{analysis}/c1")
    code, out, _ = spray("check", store)
    assert code == 1 and "Nothing was changed" in out and f"spray check {store} --repair" in out
    code, out, _ = spray("check", store, "--repair")
    assert code == 3
    assert "2 units are to be written again, all else stays as it is." in out
    redo = [line.removeprefix("Redo just these: ") for line in out.splitlines() if "Redo" in line]
    assert redo == [
        f"main attribute {config} --out {store} --quiet",
        f"main analyze {store} --neighbours 3 --picture none --quiet",
    ]
    written = {key: (store / key).stat().st_mtime_ns for key in contents(store) if "/c/" in key}
    for command in redo:
        assert spray(*shlex.split(command)[1:])[0] == 0
    assert contents(store) == sound
    again = {key for key, then in written.items() if (store / key).stat().st_mtime_ns != then}
    of_shard = {key for key in written if key.startswith("relevance/") and "/c/3" in key}
    assert again == of_shard | {key for key in written if f"{analysis}/c1/" in key}


def test_repair_redoes_at_once_what_it_is_told_how_to(project, store):
    sound = contents(store)
    shutil.copytree(f"{project / 'audit.zarr'}.log", f"{store}.log")
    (analysis,) = stores.open(store).analyses()
    for prefix in (
        "samples/logits",
        "relevance",
        f"analyses/{analysis}/c0",
        f"analyses/{analysis}/findings/1",
    ):
        damage(store, prefix)
    code, out, _ = spray("check", store, "--repair", "--config", project / "audit.toml", "--quiet")
    assert code == 0 and "4 units were taken back and done again." in out
    assert contents(store) == sound
    assert spray_json("check", store) == []
    damage(store, f"analyses/{analysis}/c0")
    options = ("--config", project / "audit.toml", "--neighbours", 4, "--quiet")
    code, out, _ = spray("check", store, "--repair", *options)
    assert code == 3 and "they were made with other settings than these" in out and "Redo just these: " in out
    assert stores.open(store).analyses() == [analysis]


def test_repair_of_a_store_that_nobody_logged_says_what_wrote_it(store):
    damage(store, "samples")
    out = spray("check", store, "--repair")[1]
    assert "spray attribute or spray audit, as it was given" in out


def test_analyze_another_column_verify_and_report(project, store, tmp_path):
    found = spray_json("analyze", store, "--column", "0.channel", "--neighbours", 3, "--picture", "none")
    assert found["analysis"] in stores.open(store).analyses()
    assert stores.open(store).analysis(found["analysis"]).facts["column"] == "0.channel"
    place = spray_json("analyze", store, "--column", "0.place", "--neighbours", 3, "--picture", "none")
    verified = spray_json(
        "verify", store, "--config", project / "audit.toml", "--analysis", place["analysis"]
    )
    assert verified["analysis"] == place["analysis"]
    page = spray_json("report", store, "--analysis", found["analysis"], "--title", "<b>Title</b>")
    assert page["report"] == str(tmp_path / "run.html")
    assert page["bytes"] == Path(page["report"]).stat().st_size
    assert "<b>Title</b>" not in Path(page["report"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "names", [("agglomerative",), ("kmeans",), ("cluster_qr", "kmeans"), ("kmeans", "hdbscan")]
)
def test_findings_are_made_of_the_clustering_that_was_asked_for(store, names):
    chosen = [word for name in names for word in ("--clustering", name)]
    quick = ("--neighbours", 3, "--picture", "none")
    found = spray_json("analyze", store, *quick, *chosen)
    assert found["findings"]
    listed = stores.open(store).analysis(found["analysis"]).findings()
    assert {finding.clustering for finding in listed} == {"hdbscan" if "hdbscan" in names else names[0]}
    assert {name for group in found["groups"] for name in group["clusterings"]} == set(names)


def test_what_was_found_in_each_class_is_told(store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    quick = ("--neighbours", 3, "--picture", "none")
    groups = spray_json("analyze", store, *quick)["groups"]
    assert [group["class"] for group in groups] == list(stores.open(store).classes)
    assert all(
        {"strategies", "components", "eigengap", "recall", "neighbour_bytes"} <= set(it) for it in groups
    )
    code, out, _ = spray("analyze", store, *quick, "--quiet")
    assert code == 0
    assert "k strategies in each of 2 groups" in out and "Neighbours: 3, exact." in out and "hdbscan" in out


def test_representations_can_be_joined_and_reduced(store):
    quick = ("--neighbours", 3, "--picture", "none", "--quiet")
    assert spray("analyze", store, "--representation", "pooled+radial", "--pca", 4, *quick)[0] == 0
    run = stores.open(store)
    step = run.analysis(run.analyses()[-1]).provenance.steps[1]
    assert [part["name"] for part in step["representation"]["parts"]] == ["pooled", "radial"]
    assert step["reduction"] == {"name": "reduced", "dimensions": 4}


def test_mistakes_end_with_code_1_one_message_and_nothing_written(project, store, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    before = contents(store)
    out = ("--out", tmp_path / "new.zarr")
    model, data = (
        ("--model", "model.py:load"),
        ("--data", "images", "--mean", "0.5", "--std", "0.25", "--crop", "8"),
    )
    for arguments, words in (
        (("audit", *out), "No model given"),
        (("audit", *model, *out), "No data set given"),
        (("audit", *model, "--data", "absent", *out), "There is no folder"),
        (("audit", *model, "--data", "data.py:stream", *out), "data.py:stream' returned cannot be audited"),
        (("audit", *model, "--data", "images", "--classes", "absent.txt", *out), "no file of class names"),
        (("audit", *model, "--data", "images", "--crop", "900", *out), "no larger than resize"),
        (("audit", *model, "--data", "images", "--mean", "1,x", *out), "expected numbers"),
        (("audit", *model, *data, "--column", "3.channel", *out), "is not kept; there will be input.place"),
        (("audit", *model, *data, "--layer", "9", *out), "no module '9'"),
        (("audit", *model, *data, "--composite", "lrp", *out), "there is no composite 'lrp'"),
        (("audit", *model, *data, "--group-by", "class", *out), "expected one of label, prediction, all"),
        (("audit", *model, *data, "--picture", "pca", *out), "unknown picture 'pca'"),
        (("audit", *model, *data, "--device", "tpu", *out), "this machine has"),
        (("audit", *model, *data, "--device", "cpu:x", *out), "this machine has"),
        (("audit", "absent.toml"), "There is no configuration"),
        (("info", tmp_path / "absent.zarr"), "is no run store"),
        (("report", project), "is no run store"),
        (("report", store, "--analysis", "zz"), "0 analyses whose id begins 'zz'"),
        (("export", store, tmp_path / "tables", "--analysis", "zz"), "0 analyses whose id begins 'zz'"),
        (("serve", store, "--analysis", "zz", "--port", 0), "0 analyses whose id begins 'zz'"),
        (("analyze", store, "--column", "9.place"), "has no column '9.place'"),
        (("analyze", store, "--relevance", "lrp"), "no relevance 'lrp'"),
        (("analyze", store, "--device", "tpu"), "got 'tpu', and this machine has"),
        (("analyze", store, "--representation", "pooled+pca"), "got 'pca', expected one of pooled"),
        (("analyze", store, "--seed", -1), "pca and seed are 0 or more"),
        (("analyze", store, "--pca", -1), "pca and seed are 0 or more"),
        (
            ("verify", store, "--config", "audit.toml", "--clustering", "agglomerative"),
            "this analysis has kmeans, hdbscan",
        ),
        (
            ("verify", store, "--model", "torchvision:resnet81", "--data", "images"),
            "no classifier 'resnet81'",
        ),
        (("verify", store, "--model", "data.py:load", *data), "expected a torch.nn.Module"),
        (("attribute", "audit.toml", "--grid", 4, "--out", store), "differs in"),
    ):
        quiet = [] if arguments[0] in ("info", "report", "export", "serve") else ["--quiet"]
        code, printed, message = spray(*arguments, *quiet)
        assert (code, printed) == (1, ""), arguments
        assert message.startswith("Error: ")
        assert words in message
        assert "Traceback" not in message
    assert contents(store) == before
    assert not (tmp_path / "new.zarr").exists()


def test_another_model_cannot_verify(project, store, tmp_path):
    (tmp_path / "other.py").write_text(MODEL.replace("manual_seed(0)", "manual_seed(1)"))
    model = ("--model", f"{tmp_path}/other.py:load")
    code, _, message = spray("verify", store, "--config", project / "audit.toml", *model, "--quiet")
    assert code == 1
    assert "give the same model and weights" in message


def test_wrong_usage_ends_with_code_2(tmp_path):
    for arguments in (("frobnicate",), ("info",), ("audit", "--frobnicate"), ("audit", "--block", "many")):
        code, _, message = spray(*arguments)
        assert code == 2
        assert "Usage: " in message


def test_defects_keep_their_traceback(monkeypatch, project):
    monkeypatch.setattr("spray.workflow.run_config", lambda *_: np.zeros(3).reshape(2, 2))
    result = CliRunner().invoke(main, ["audit", str(project / "audit.toml")])
    assert isinstance(result.exception, ValueError)
    assert "Error:" not in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/somewhere/r.html"),
            "The disk of /somewhere/r.html is full (No space left on device). ",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "The disk is full (Disk quota exceeded). What is there is whole",
        ),
        (MemoryError(), "Memory ran out. What is committed is kept"),
    ],
)
def test_a_machine_that_is_too_small_is_told_in_words(monkeypatch, project, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr("spray.workflow.run_config", fail)
    result = CliRunner().invoke(main, ["audit", str(project / "audit.toml")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {words}")
    assert result.stderr.endswith(f"audit {project / 'audit.toml'}\n")


def test_help_of_every_command_loads_nothing_heavy():
    code = """
import json, sys
from click.testing import CliRunner
from spray.cli import main
texts = {}
def visit(command, *path):
    texts[" ".join(path)] = CliRunner().invoke(main, [*path, "--help"]).stdout
    for name, child in getattr(command, "commands", {}).items():
        visit(child, *path, name)
visit(main)
heavy = [name for name in ("torch", "torchvision", "bokeh", "sklearn", "umap", "hdbscan", "numba", "scipy", "numpy",
                           "zarr", "PIL") if name in sys.modules]
print(json.dumps([texts, heavy]))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    texts, heavy = json.loads(found.stdout)
    assert heavy == []
    assert {"", "demo", "audit", "attribute", "analyze", "verify", "report", "info", "check"} <= set(texts)
    assert all(text.startswith("Usage: ") for text in texts.values())
    for name in set(texts) - {"", "demo", "info", "check", "verdicts"}:
        assert f"spray {name} " in texts[name].partition("Example")[2], name


@pytest.mark.parametrize(
    ("number", "workers", "code"),
    [(signal.SIGINT, 0, 130), (signal.SIGINT, 2, 130), (signal.SIGTERM, 0, 143), (signal.SIGHUP, 0, 129)],
)
def test_ctrl_c_leaves_a_store_that_the_same_command_completes(project, tmp_path, number, workers, code):
    (project / "interrupt").write_text(str(int(number)))
    arguments = ["attribute", "--model", f"{project}/model.py:load", "--data", f"{project}/data.py:load"]
    arguments += ["--block", "6", "--device", "cpu", "--workers", str(workers)]
    # Tests that run in the background of a shell inherit a SIGINT that is ignored, and under nohup a SIGHUP.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    script += "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    script += "from spray.cli import main; main(prog_name='spray')"
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--out", tmp_path / "a.zarr"],
        capture_output=True,
        text=True,
        start_new_session=True,  # the signal reaches the whole group, as from a terminal, but not the tests
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == code, found.stderr
    assert "the same command goes on from there" in found.stderr
    assert f"  spray {shlex.join(map(str, arguments))} --out {tmp_path / 'a.zarr'}\n" in found.stderr
    assert "Traceback" not in found.stderr
    if not workers:
        committed = [table["committed"] for table in spray_json("info", tmp_path / "a.zarr")["tables"]]
        assert committed == [2, 2]  # rows 0 to 11 of 24
        assert not list((tmp_path / "a.zarr" / "ledger" / "leases").iterdir())
        (log,) = Path(f"{tmp_path / 'a.zarr'}.log").iterdir()
        assert json.loads(log.read_text().splitlines()[-1])["event"] == "interrupted"
    assert spray(*arguments, "--out", tmp_path / "a.zarr")[0] == 0
    assert spray(*arguments, "--out", tmp_path / "b.zarr")[0] == 0
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


def test_two_kinds_of_machines_and_groups_that_are_missing_are_told(tmp_path):
    run = stores.create(tmp_path / "run.zarr", classes=["cat", "dog"], samples=8, provenance={})
    made = stores.Provenance(({"name": "test"},))
    table = run.create_table(
        "relevance/x", [stores.Column("sum", "float64")], rows_per_shard=2, provenance=made
    )
    for shard, kind in enumerate(("AVX512", "AVX512", "DEFAULT", "AVX512")):
        facts = {"threads": 1, "processor": {"instructions": kind}}
        table.write(shard, {"sum": np.zeros(2)}, facts=facts)
    (problem,) = stores.check(run.path, repair=True)
    assert (problem.unit, problem.kind, problem.repaired) == ("relevance/x", "note", False)
    told = "computed on 2 kinds of machines"
    differs = 'shards 2 differ in processor.instructions (stored "AVX512", now "DEFAULT")'
    assert told in problem.detail and differs in problem.detail
    code, out, _ = spray("check", run.path)
    assert code == 0 and told in out and "Sound" in out
    _, out, _ = spray("info", run.path)
    assert told in out and differs in out

    handle = run.create_analysis(made, facts={"relevance": "relevance/x", "column": "sum"}, groups=[0, 1])
    none = np.zeros(0, np.int64)
    rows = np.arange(3)
    handle.write(
        stores.GroupAnalysis(0, "ok", rows, none, none, np.zeros(2), np.ones((3, 2)), 1, 1, {}, {}, {})
    )
    _, out, _ = spray("info", run.path)
    assert "Not written yet: 1 group (dog), of which nothing is said here" in out


def test_a_report_of_an_analysis_that_lacks_groups_says_which(audited, tmp_path):
    shutil.copytree(audited["store"], tmp_path / "run.zarr")
    run = stores.open(tmp_path / "run.zarr")
    key = f"analyses/{run.analysis().id}/c1"
    (tmp_path / "run.zarr/ledger/commits" / f"{key}.json").unlink()
    shutil.rmtree(tmp_path / "run.zarr" / key)
    code, _, err = spray("report", tmp_path / "run.zarr")
    assert code == 0 and "WARNING: Not written yet: 1 group (" in err
