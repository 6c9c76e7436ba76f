"""Runs, analyses, findings and verdicts: round trips, refusals with the next move, versions."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_tools import PROVENANCE, contents, new_run, new_table

import stores
from stores.schema import element

HOSTILE = [
    "</script><script>alert(1)</script>",
    "../../etc/passwd",
    "名\udcff\x00",
    "",
    "a\\u0041",
    "x" * 5000,
]


@pytest.fixture
def run(tmp_path: Path) -> stores.Run:
    return new_run(tmp_path / "run.zarr")


def test_a_run_says_what_it_is(tmp_path: Path) -> None:
    provenance = {"model": {"file": "net.py", "sha256": "0" * 64}, "sizes": [1, 2.5, None]}
    stores.create(tmp_path / "run", classes=HOSTILE, samples=7, provenance=provenance)
    run = stores.open(tmp_path / "run")
    assert (run.classes, run.n, run.provenance, run.version) == (tuple(HOSTILE), 7, provenance, 1)
    assert (
        run.path == tmp_path / "run" and run.tables() == [] and run.analyses() == [] and run.verdicts() == []
    )
    assert stores.open(f"file://{tmp_path}/run").path == tmp_path / "run"


def test_creating_it_again_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    before = contents(tmp_path)
    new_run(tmp_path / "run")
    for change in ({"classes": ["cat"]}, {"samples": 11}, {"provenance": {"model": "other"}}):
        options: dict[str, Any] = {"classes": ["cat", "dog"], "samples": 10, "provenance": {"model": "none"}}
        with pytest.raises(stores.StoreError, match=f"another run: it differs in {next(iter(change))}"):
            stores.create(tmp_path / "run", **{**options, **change})
    assert contents(tmp_path) == before


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "zarr").mkdir()
    (tmp_path / "zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    before = contents(tmp_path)
    for name, message in {
        "nothing": "there is nothing",
        "file": "it is a file",
        "file/below": "there is nothing",
        "folder": "it holds photo.jpg",
        "empty": "it is empty",
        "zarr": "it holds zarr.json",
    }.items():
        with pytest.raises(stores.NotAStore, match=message):
            stores.open(tmp_path / name, "r+")
    for name in ("file", "folder", "zarr"):
        with pytest.raises(stores.NotAStore, match="no run store"):
            new_run(tmp_path / name)
    assert contents(tmp_path) == before
    new_run(tmp_path / "empty")


def test_bad_ways_to_open(run: stores.Run) -> None:
    with pytest.raises(stores.StoreError, match="mode is 'r' or 'r\\+'"):
        stores.open(run.path, "w")  # type: ignore[arg-type]
    with pytest.raises(stores.StoreError, match="became a Path"):
        stores.open(Path("s3://bucket/run"))
    with pytest.raises(stores.StoreError, match="no credentials") as caught:
        stores.open("s3://key:secret@bucket/run")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, 999, "1", None])
def test_an_unknown_version_is_refused_and_left_untouched(run: stores.Run, version: Any) -> None:
    path = Path(run.path) / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["spray"]["version"] = version
    path.write_text(json.dumps(document))
    before = contents(Path(run.path))
    for call in (
        lambda: stores.open(run.path),
        lambda: stores.open(run.path, "r+"),
        lambda: new_run(run.path),
        lambda: stores.check(run.path, repair=True),
    ):
        with pytest.raises(stores.UnknownVersion, match="upgrade spray-audit"):
            call()
    assert contents(Path(run.path)) == before


def test_an_element_of_an_unknown_version_is_refused_and_left_untouched(run: stores.Run) -> None:
    new_table(run)
    path = Path(run.path) / "relevance" / "test" / "zarr.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    before = contents(Path(run.path))
    for call in (lambda: run.tables(), lambda: stores.check(run.path, repair=True)):
        with pytest.raises(stores.UnknownVersion, match="table has format version 2"):
            call()
    assert contents(Path(run.path)) == before


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1]", b'{"attributes": 3}'])
def test_a_root_that_cannot_be_read(run: stores.Run, text: bytes) -> None:
    (Path(run.path) / "zarr.json").write_bytes(text)
    with pytest.raises((stores.Damaged, stores.NotAStore)):
        stores.open(run.path)


def analysed(group: int, **changes: Any) -> stores.GroupAnalysis:
    rng = np.random.default_rng(group + 1)
    clusterings = {
        "kmeans": stores.Clustering(np.array([0, 1, 0]), None, {"k": 2, "inits": [1, 2]}),
        "<b>/../": stores.Clustering(np.array([-1, 0, 0]), rng.random(3)),
    }
    fields: dict[str, Any] = {
        "group": group, "status": "ok", "rows": np.array([1, 4, 6]), "zero_rows": np.array([2]),
        "invalid_rows": np.zeros(0, np.int64), "eigenvalues": np.array([0.0, 0.5]), "vectors": rng.random((3, 2)),
        "components": 1, "strategies": 2, "eigengap": {"k": 2, "gap": 0.5, "runners_up": [], "null": None},
        "clusterings": clusterings, "pictures": {"umap": rng.random((3, 2)).astype(np.float32)},
        "facts": {"recall": 1.0},
    }  # fmt: skip
    return stores.GroupAnalysis(**{**fields, **changes})


def assert_same(one: Any, other: Any) -> None:
    """Equality of dataclasses that hold arrays."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


EMPTY = {
    "status": "empty", "rows": np.zeros(0, np.int64), "zero_rows": np.zeros(0, np.int64), "eigenvalues": np.zeros(0),
    "vectors": np.zeros((0, 0)), "components": 0, "strategies": 0, "eigengap": {}, "clusterings": {}, "pictures": {},
}  # fmt: skip


def test_analyses_come_back(run: stores.Run) -> None:
    facts = {"relevance": "relevance/test", "column": "input.place", "group_by": "label", "grid": [7, 7]}
    handle = run.create_analysis(PROVENANCE, facts=facts)
    groups = [analysed(1), analysed(stores.ALL_CLASSES), analysed(12, **EMPTY)]
    for group in groups:
        handle.write(group)
    again = stores.open(run.path).analysis()
    assert (again.id, again.facts, again.provenance) == (PROVENANCE.id[:12], facts, PROVENANCE)
    assert again.groups == [-1, 1, 12] and again.missing(range(3)) == [0, 2]
    for group in groups:
        assert_same(again.read(group.group), group)
    with pytest.raises(stores.Uncommitted, match=r"no group 5 yet; it has .-1, 1, 12"):
        again.read(5)


def test_analyses_by_id_and_newest(run: stores.Run) -> None:
    with pytest.raises(stores.Uncommitted, match="spray analyze"):
        run.analysis()
    made = [stores.Provenance(({"name": "spectral", "k": k},)) for k in range(3)]
    handles = [run.create_analysis(provenance, facts={}) for provenance in made]
    for handle in handles[:2]:
        handle.write(analysed(0))
    assert run.analyses() == [handle.id for handle in handles]
    assert run.analysis().id == handles[1].id, "the newest has no group yet"
    assert run.analysis(handles[2].id[:6]).id == handles[2].id
    for unknown in ("", "nope"):
        with pytest.raises(KeyError, match="whose id begins"):
            run.analysis(unknown)
    assert run.create_analysis(made[0], facts={}).groups == [0]
    with pytest.raises(stores.StoreError, match="states"):
        run.create_analysis(made[0], facts={"group_by": "all"})


@pytest.mark.parametrize(
    "changes",
    [
        {"vectors": np.zeros((2, 2))},
        {"vectors": np.zeros((3, 3))},
        {"vectors": np.zeros(3)},
        {"pictures": {"umap": np.zeros((4, 2))}},
        {"clusterings": {"kmeans": stores.Clustering(np.zeros(2, int))}},
        {"rows": np.array([4, 1, 6])},
        {"rows": np.array([1, 1, 6])},
        {"eigengap": {"gap": float("nan")}},
        {"facts": {"what": object()}},
    ],
)
def test_an_analysis_that_does_not_hold_together_is_refused(run: stores.Run, changes: dict[str, Any]) -> None:
    handle = run.create_analysis(PROVENANCE, facts={})
    before = contents(Path(run.path))
    with pytest.raises((stores.StoreError, TypeError)):
        handle.write(analysed(0, **changes))
    assert contents(Path(run.path)) == before


def found(name: str, **changes: Any) -> stores.Finding:
    fields: dict[str, Any] = {
        "name": name, "group": 6, "clustering": "hdbscan", "clusters": (0, 3), "rows": np.array([1, 5]), "score": 0.4,
        "flagged": True, "parts": {"gap": 0.1, "causal": None}, "region": np.eye(3, dtype=bool),
        "mean_map": np.ones((3, 3), np.float32), "evidence": {"n": 3, "interval": [0.1, 0.2]},
        "summary": "members share <a corner>", "notes": ("no model at hand",),
    }  # fmt: skip
    return stores.Finding(**{**fields, **changes})


def test_findings_come_back_as_ranked_and_the_newest_counts(run: stores.Run) -> None:
    handle = run.create_analysis(PROVENANCE, facts={})
    assert handle.findings() == [] and handle.findings_provenance is None
    first = [found("b"), found("a", region=None, mean_map=None, rows=np.zeros(0, np.int64))]
    handle.write_findings(first, PROVENANCE)
    handle.write_findings(first, PROVENANCE)
    assert_same(dict(enumerate(handle.findings())), dict(enumerate(first)))
    verified = stores.Provenance(({"name": "verified"},), (PROVENANCE.id,))
    handle.write_findings(first[::-1], verified)
    again = stores.open(run.path).analysis(handle.id)
    assert [finding.name for finding in again.findings()] == ["a", "b"]
    assert again.findings_provenance == verified
    assert stores.check(run.path) == []
    handle.write_findings([], verified)
    assert handle.findings() == []


def test_bad_findings_are_refused(run: stores.Run) -> None:
    handle = run.create_analysis(PROVENANCE, facts={})
    with pytest.raises(stores.StoreError, match="same name"):
        handle.write_findings([found("a"), found("a")], PROVENANCE)
    with pytest.raises(stores.StoreError, match="NaN or infinite"):
        handle.write_findings([found("a", parts={"gap": float("inf")})], PROVENANCE)
    assert handle.findings() == []


def given(key: str, **changes: Any) -> stores.Verdict:
    fields: dict[str, Any] = {
        "subject": "cluster", "analysis": "0123456789ab", "key": key, "verdict": "clever_hans", "note": "</script>",
        "annotator": "名", "time": "2026-01-01T00:00:00Z", "members": ("b", "a\udcff"),
    }  # fmt: skip
    return stores.Verdict(**{**fields, **changes})


def test_verdicts_are_appended_in_order(run: stores.Run) -> None:
    verdicts = [given(f"c6.hdbscan.{number}") for number in range(12)]
    for verdict in verdicts:
        run.add_verdict(verdict)
    run.add_verdict(verdicts[0])
    assert stores.open(run.path).verdicts() == [*verdicts, verdicts[0]]


def test_two_annotators_at_once_lose_nothing(run: stores.Run) -> None:
    import threading

    def annotate(name: str) -> None:
        for number in range(10):
            run.add_verdict(given(f"{number}", annotator=name))

    threads = [threading.Thread(target=annotate, args=(name,)) for name in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [(verdict.annotator, verdict.key) for verdict in run.verdicts()]
    assert sorted(kept) == sorted(
        (name, str(number)) for name in ("ann", "bob", "eve") for number in range(10)
    )


def test_a_verdict_keeps_its_meaning() -> None:
    assert (
        given("x").digest
        == stores.members_digest(["a\udcff", "b"])
        == given("x", members=("a\udcff", "b")).digest
    )
    assert stores.members_digest(["a", "b"]) != stores.members_digest(["a\nb"])
    with pytest.raises(stores.StoreError, match="digest"):
        given("x", digest="0" * 64)
    for change in ({"subject": "class"}, {"verdict": "bad"}):
        with pytest.raises(stores.StoreError, match="a verdict is"):
            given("x", **change)


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(stores.StoreError, match="write None"):
        element("table", {"score": float("nan")})


def test_importing_the_stores_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = ("torch", "bokeh", "sklearn", "scipy", "umap", "obstore", "h5py")
    script = f"import stores, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "place",
    [
        "s3:/bucket/run.zarr",
        "memory:/run.zarr",
        "file:/tmp/x.zarr",
        "file:///tmp/run#1.zarr",
        "file:///tmp/run?2.zarr",
        "file://data/run.zarr",
        "s3://bucket/run#1.zarr",
        "s3://bucket/a/../b.zarr",
        "s3://bucket/a%2fb.zarr",
        "s3://me:secret@bucket/run.zarr",
        "s3://bucket/run.zarr?key=secret",
    ],
)
def test_places_that_others_could_be_meant_by_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(stores.StoreError) as error:
        stores.create(place, classes=["a"], samples=1, provenance={})
    assert "secret" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_file_url_is_the_path_that_it_names(tmp_path: Path) -> None:
    stores.create(f"file://{tmp_path}/a%20b.zarr", classes=["a"], samples=1, provenance={})
    assert stores.open(tmp_path / "a b.zarr").n == 1


def test_a_disk_that_cannot_be_written_is_told_in_words(
    run: stores.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnly:
        def __getattr__(self, name: str) -> Any:
            def refuse(*_: Any) -> None:
                raise OSError(errno.EROFS, "Read-only file system")

            return refuse if name in ("open", "mkdir", "unlink", "replace", "link") else getattr(os, name)

    monkeypatch.setattr("stores.floor.os", ReadOnly())
    with pytest.raises(
        stores.StoreError, match=r"cannot be written: Read-only file system\. What is committed is safe"
    ):
        run.floor.put("samples/new", b"")


def test_names_that_no_file_system_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(stores.StoreError, match=r"no store can lie at .*takes no names that long"):
        stores.create(tmp_path / ("x" * 300 + ".zarr"), classes=["a"], samples=1, provenance={})


def test_the_root_of_a_disk_is_no_store() -> None:
    with pytest.raises(stores.NotAStore, match="no run store"):
        stores.create("/", classes=["a"], samples=1, provenance={})


def test_a_document_in_the_place_of_another_is_told(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    new_table(run)
    new_table(run, "relevance/other")
    document = tmp_path / "relevance/other/zarr.json"
    document.write_bytes((tmp_path / "relevance/test/zarr.json").read_bytes())
    with pytest.raises(stores.Damaged, match="that of the table 'relevance/test'"):
        run.table("relevance/other")
    assert "relevance/other" in {problem.unit for problem in stores.check(tmp_path)}
    document.unlink()
    new_table(run, "relevance/other")
    assert run.tables() == ["relevance/other", "relevance/test"]


def test_groups_that_hold_others_are_written_once(tmp_path: Path) -> None:
    new_table(new_run(tmp_path))
    document = tmp_path / "relevance/zarr.json"
    then = document.stat().st_mtime_ns
    new_table(stores.open(tmp_path, "r+"))
    assert document.stat().st_mtime_ns == then
    document.write_bytes(b"")
    new_table(stores.open(tmp_path, "r+"))
    assert document.stat().st_size
