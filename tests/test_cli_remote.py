"""Every command that takes a store, on S3: nothing needs a folder, and no credential is ever written."""

import json
from pathlib import Path

import numpy as np
import pytest
from audit_tools import MODEL, contents, draw_pictures, spray
from store_tools import s3_server

import reports
import stores
from reports.verdicts import store_identity
from stores.places import floor_at


def everything(url: str) -> dict[str, bytes]:
    floor = floor_at(url)
    return {key: floor.read(key) or b"" for key in floor.sizes("")}


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A model and 2 × 16 pictures."""
    (tmp_path / "model.py").write_text(MODEL)
    draw_pictures(tmp_path / "images", ("cat", "dog"), 32)
    folder = [
        "--data",
        str(tmp_path / "images"),
        "--resize",
        "8",
        "--crop",
        "8",
        "--mean",
        "0.5",
        "--std",
        "0.25",
    ]
    return ["--model", f"{tmp_path / 'model.py'}:load", *folder, "--device", "cpu", "--quiet"]


def test_every_command_works_on_a_remote_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    step = ["--block", "8", "--composite", "epsilon_plus"]
    quick = ["--neighbours", "3", "--picture", "none", "--quiet"]
    few = ["--members", "6", "--budget", "60"]
    with s3_server(monkeypatch) as bucket:
        url = f"{bucket}/audits/run.zarr"
        for place in (url, tmp_path / "here.zarr"):
            spray("attribute", *options, *step, "--out", place)
            spray("analyze", place, *quick)
            spray("verify", place, *options, *few)
        assert everything(url) == contents(tmp_path / "here.zarr")
        told = json.loads(spray("info", url, "--json"))
        assert told["store"] == url and told["samples"] == 32 and told["analyses"][0]["groups"] == 2
        assert "Sound" in spray("check", url)
        page = tmp_path / "report.html"
        spray("report", url, "--out", page)
        assert page.stat().st_size > 10_000
        spray("export", url, tmp_path / "tables", "--to", "csv")
        assert (tmp_path / "tables" / "samples.csv").read_text().count("\n") == 33
        key = next(key for key in everything(url) if key.startswith("relevance/") and "/c/" in key)
        floor, sound = floor_at(url), everything(url)
        floor.put(key, sound[key][:-1])
        assert "taken back and done again" in spray("check", url, "--repair", *options, *step)
        assert everything(url) == sound
        verdicts_of(url, tmp_path / "mine.json")
        assert "1 verdicts added" in spray("verdicts", "add", url, tmp_path / "mine.json")
        spray("audit", *options, *step, *quick[:-1], *few, "--out", url, "--report", page)
        written = [page.read_bytes(), *everything(url).values(), *everything(f"{url}.log").values()]
        assert not [data for data in written if b"test-secret" in data or b"test-key-id" in data]


def verdicts_of(url: str, path: Path) -> None:
    run = stores.open(url)
    handle = run.analysis()
    ids = tuple(str(name) for name in run.samples.read("id", [0, 1]))
    about = {"analysis": handle.id, "key": "c0.kmeans.0", "members": ids}
    verdict = stores.Verdict(
        "cluster", verdict="unsure", note="", annotator="ada", time="2026-01-01T00:00:00Z", **about
    )
    reports.write_file(path, reports.VerdictFile(store_identity(run), "", (verdict,)))


def test_import_to_a_remote_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "maps.npy", rng.normal(size=(12, 8, 8)).astype(np.float32))
    with s3_server(monkeypatch) as bucket:
        url = f"{bucket}/imported.zarr"
        spray("import", tmp_path / "maps.npy", "--out", url)
        assert stores.open(url).n == 12 and stores.check(url) == []
