"""To other tools and back: ViRelAy itself opens what is exported, and nothing is unpickled on the way in."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from store_tools import contents

import stores
from spray.cli.exchange import AXES as AXES_OF_COMMAND
from stores import StoreError, exchange
from stores.exchange.axes import AXES, channels_last
from stores.exchange.evidence import evidence_columns
from stores.exchange.maps import pooled
from stores.exchange.sheets import write_sheet
from stores.files import whole, whole_folder
from stores.owners import Owner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> stores.Run:
    path = tmp_path_factory.mktemp("exchange") / "run.zarr"
    names = ["</script>", "名", "shape"]
    ids = [f"{row}\\\udc80,\n" for row in range(60)]
    made = stores.synthetic.make(path, samples=60, size=16, channels=3, failures=2, names=names, ids=ids)
    made.add_verdict(
        stores.Verdict(
            "cluster",
            made.analysis().id,
            "c0.kmeans.1",
            "valid",
            "=1+1",
            "me",
            "2026-01-01T09:30:00Z",
            ("a",),
        )
    )
    return made


@pytest.fixture(scope="module")
def project(run: stores.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("h5py")
    return exchange.export_virelay(run, tmp_path_factory.mktemp("virelay") / "project")


def test_virelay_opens_the_project(run: stores.Run, project: Path) -> None:
    model = importlib.import_module("virelay.model")
    opened = model.Project(str(project))
    try:
        good = np.flatnonzero(run.samples.ok)
        row = int(good[7])
        sample = opened.get_sample(row)
        assert np.array_equal(sample.data, run.samples.read("thumbnail", [row])[0])
        assert [label.name for label in sample.labels] == [run.classes[row % 3]]
        attribution = opened.get_attribution(row)
        table = run.table(stores.synthetic.RELEVANCE)
        assert np.allclose(attribution.data, table.read("input.full", [row])[0].transpose(1, 2, 0))
        assert np.array_equal(attribution.prediction, run.samples.read("logits", [row])[0])
        with pytest.raises(LookupError):
            opened.get_attribution(int(np.flatnonzero(~run.samples.ok)[0]))
        categories = opened.get_analysis_categories("spectral")
        assert [it.name for it in categories] == ["00000000", "00000001", "00000002"]
        assert [it.human_readable_name for it in categories] == list(run.classes)
        assert opened.get_analysis_clustering_names("spectral") == ["hdbscan", "kmeans"]
        for name in ("spectral", "umap"):
            analysis = opened.get_analysis("spectral", "00000002", "kmeans", name)
            group = run.analysis().read(2)
            assert np.array_equal(analysis.attribution_indices, group.rows)
            assert np.array_equal(analysis.clustering, group.clusterings["kmeans"].labels)
        assert np.allclose(
            opened.get_analysis("spectral", "00000002", "kmeans", "umap").embedding, group.pictures["umap"]
        )
    finally:
        opened.close()


def test_virelay_serves_the_project(run: stores.Run, project: Path) -> None:
    model = importlib.import_module("virelay.model")
    server = importlib.import_module("virelay.server")
    workspace = model.Workspace()
    workspace.add_project(str(project))
    app = server.Server(workspace).app
    client = app.test_client()
    assert client.get("/api/projects").status_code == 200
    row = int(np.flatnonzero(run.samples.ok)[0])
    for address in (
        f"dataset/{row}/image",
        f"attributions/{row}",
        "analyses/spectral?category=00000000&clustering=kmeans&embedding=umap",
    ):
        assert client.get(f"/api/projects/0/{address}").status_code == 200, address


@pytest.mark.parametrize("channels", [1, 3])
def test_virelay_shows_every_map_in_all_its_colours(channels: int, tmp_path: Path) -> None:
    model = importlib.import_module("virelay.model")
    server = importlib.import_module("virelay.server")
    made = stores.synthetic.make(tmp_path / "run.zarr", samples=30, size=16, channels=channels)
    workspace = model.Workspace()
    workspace.add_project(str(exchange.export_virelay(made, tmp_path / "project")))
    serving = server.Server(workspace)
    client = serving.app.test_client()
    for colours in serving.color_maps:
        for over in ("True", "False"):
            address = f"/api/projects/0/attributions/3/heatmap?colorMap={colours}&superimpose={over}"
            assert client.get(address).status_code == 200, address
    again = exchange.import_virelay(tmp_path / "again", tmp_path / "project" / "attribution.h5", grid=8)
    ours = made.table(stores.synthetic.RELEVANCE).read("input.full", [3]).sum(1)
    assert np.array_equal(again.table("relevance/imported").read("input.full", [3]).sum(1), ours)


def test_there_and_back(run: stores.Run, project: Path, tmp_path: Path) -> None:
    folder = project.parent
    again = exchange.import_virelay(
        tmp_path / "again",
        folder / "attribution.h5",
        inputs=folder / "input.h5",
        analyses=[folder / "analysis.h5"],
        label_map=folder / "label-map.json",
        grid=8,
    )
    assert again.classes[:3] == run.classes
    ours, theirs = run.table(stores.synthetic.RELEVANCE), again.table("relevance/imported")
    good = np.flatnonzero(ours.ok)
    assert np.array_equal(np.flatnonzero(theirs.ok), good)
    assert set(theirs.failures.values()) == {"no attribution in the file"}
    assert np.array_equal(theirs.read("input.full", good), ours.read("input.full", good))
    assert np.allclose(theirs.read("input.place", good), ours.read("input.place", good), rtol=1e-2, atol=1e-3)
    assert np.array_equal(again.samples.read("label", good), run.samples.read("label", good))
    assert np.array_equal(again.samples.read("thumbnail", good), run.samples.read("thumbnail", good))
    for number in range(3):
        one, other = run.analysis().read(number), again.analysis().read(number)
        assert np.array_equal(one.rows, other.rows)
        assert np.allclose(one.eigenvalues, other.eigenvalues, atol=1e-6)
        assert np.allclose(one.vectors[:, 4:], other.vectors[:, 4:], atol=1e-6)
        assert {name: it.labels.tolist() for name, it in one.clusterings.items()} == {
            name: it.labels.tolist() for name, it in other.clusterings.items()
        }
    assert stores.check(again.path) == []


def test_a_project_that_the_disk_cannot_hold_is_refused_before_it_is_begun(
    run: stores.Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in project.parent.iterdir())
    for free in (0, size):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(OSError, match=r"MiB are needed and .* free"):
            exchange.export_virelay(run, tmp_path / "deep" / "project")
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * size + 2**21))
    assert exchange.export_virelay(run, tmp_path / "deep" / "project").exists()


def test_grouped_and_multi_label_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for row in range(4):
            file[f"attribution/{row:04d}"] = maps[row]
            file[f"label/{row:04d}"] = np.array([row == 0, row == 1, row in (1, 2)])
            file[f"prediction/{row:04d}"] = rng.normal(size=3).astype(np.float32)
        file["index"] = np.array([10, 30, 20, 40])
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        file["n0001/index"] = np.array([40, 10, 20], np.uint32)
        file["n0001/embedding/spectral"] = np.arange(6.0).reshape(3, 2)
        file["n0001/embedding/spectral"].attrs["eigenvalue"] = np.array([0.5, 0.1])
        file["n0001/embedding/t-sne"] = np.ones((3, 2))
        file["n0001/cluster/k-means"] = np.array([1, 0, -1])
    (tmp_path / "map.json").write_text(json.dumps([{"index": 2, "word_net_id": "n0001", "name": "cat"}]))
    run = exchange.import_virelay(
        tmp_path / "run",
        tmp_path / "a.h5",
        analyses=[tmp_path / "analysis.h5"],
        label_map=tmp_path / "map.json",
    )
    assert run.samples.read("id").tolist() == ["10", "30", "20", "40"]
    assert run.samples.read("label").tolist() == [0, -1, 2, -1]
    assert run.samples.read("meta.labels").tolist() == ["0", "1, 2", "2", ""]
    assert np.allclose(run.table("relevance/imported").read("sum"), maps.sum(axis=(1, 2, 3)), atol=1e-4)
    group = run.analysis().read(2)
    assert group.rows.tolist() == [0, 2, 3] and group.eigenvalues.tolist() == [0.1, 0.5]
    assert group.vectors.tolist() == [[3.0, 2.0], [5.0, 4.0], [1.0, 0.0]]
    assert group.clusterings["k-means"].labels.tolist() == [0, -1, 1] and list(group.pictures) == ["t-sne"]


def test_samples_with_a_data_set_each_keep_their_names(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    maps = np.random.default_rng(0).normal(size=(12, 8, 8)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for row in range(12):
            file[f"attribution/img_{row}"] = maps[row]
            file[f"label/img_{row}"] = np.int64(row)
    run = exchange.import_virelay(tmp_path / "run", tmp_path / "a.h5")
    ids, labels = run.samples.read("id").tolist(), run.samples.read("label").tolist()
    assert {name: f"img_{label}" for name, label in zip(ids, labels, strict=True)} == {i: i for i in ids}
    with h5py.File(tmp_path / "in.h5", "w") as file:
        for row in range(12):
            file[f"data/photo_{row}"] = np.zeros((3, 8, 8), np.uint8)
    named = exchange.import_virelay(tmp_path / "named", tmp_path / "a.h5", inputs=tmp_path / "in.h5")
    assert named.samples.read("id").tolist() == sorted(f"photo_{row}" for row in range(12))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.move("label/img_3", "label/other")
    with pytest.raises(StoreError, match=r"attribution and label are of different samples .*img_3, other"):
        exchange.import_virelay(tmp_path / "apart", tmp_path / "a.h5")


def test_samples_without_a_map_have_no_prediction_and_keep_their_label(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"], file["label"] = np.ones((2, 3, 8, 8), np.float32), np.array([0, 1])
        file["prediction"], file["index"] = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([3, 1])
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["data"], file["label"] = np.zeros((4, 3, 8, 8), np.uint8), np.array([1, 1, 0, 0])
    run = exchange.import_virelay(tmp_path / "run", tmp_path / "a.h5", inputs=tmp_path / "in.h5")
    assert run.samples.read("label").tolist() == [1, 1, 0, 0]
    assert run.samples.read("prediction").tolist() == [-1, 1, -1, 0]
    assert np.isnan(run.samples.read("logits", [0, 2])).all()
    assert run.samples.read("logits", [1, 3]).tolist() == [[1.0, 3.0], [2.0, 1.0]]
    assert run.table("relevance/imported").ok.tolist() == [False, True, False, True]


def test_channels_may_come_last(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 12, 10, 3)).astype(np.float32)
    pictures = rng.integers(0, 256, (4, 12, 10, 3), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"], file["label"] = maps, np.zeros(4, int)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["data"] = pictures
    np.save(tmp_path / "maps.npy", maps)
    runs = [
        exchange.import_virelay(tmp_path / "one", tmp_path / "a.h5", inputs=tmp_path / "in.h5", grid=5),
        exchange.import_arrays(tmp_path / "two", tmp_path / "maps.npy"),
    ]
    for run in runs:
        table = run.table("relevance/imported")
        assert np.allclose(table.read("input.full"), maps.transpose(0, 3, 1, 2), atol=2e-3)
        assert dict(table.provenance.steps[0])["axes"] == "n, y, x, channel"
    assert runs[0].table("relevance/imported").columns["input.place"].shape == (5, 5)
    assert np.array_equal(runs[0].samples.read("thumbnail"), pictures)


@pytest.mark.parametrize(
    ("shape", "last"),
    [
        ((9, 32, 32, 3), True),
        ((9, 28, 28, 1), True),
        ((9, 3, 32, 32), False),
        ((9, 3, 28, 3), False),
        ((9, 512, 7, 7), False),
        ((9, 8, 32, 32), False),
        ((9, 512, 1, 1), False),
        ((9, 32, 32), False),
    ],
)
def test_what_can_only_be_channels_last_is(shape: tuple[int, ...], last: bool) -> None:
    assert channels_last(shape) is last


@pytest.mark.parametrize("suffix", ["npy", "h5"])
def test_many_channels_that_may_come_last_are_asked_about(tmp_path: Path, suffix: str) -> None:
    """Relevance of a layer, of a model that has its channels last: as places they would be summed in silence."""
    maps = np.random.default_rng(0).normal(size=(4, 12, 10, 6)).astype(np.float32)
    path = tmp_path / f"maps.{suffix}"
    if suffix == "npy":
        np.save(path, maps)
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["attribution"], file["label"] = maps, np.zeros(4, int)

    def imported(name: str, axes: str | None) -> stores.Table:
        one = exchange.import_arrays if suffix == "npy" else exchange.import_virelay
        return one(tmp_path / name, path, axes=axes).table("relevance/imported")

    with pytest.raises(
        stores.StoreError, match=r"6 channels of 12 × 10 places, or 12 channels of 10 × 6.*--axes"
    ):
        imported("asked", None)
    assert not (tmp_path / "asked").exists()
    with pytest.raises(stores.StoreError, match="axes are channels-first or channels-last"):
        imported("asked", "last")
    last, first = imported("last", "channels-last"), imported("first", "channels-first")
    assert np.allclose(last.read("input.full"), maps.transpose(0, 3, 1, 2), atol=2e-3)
    assert np.allclose(first.read("input.full"), maps, atol=2e-3)
    assert AXES == AXES_OF_COMMAND


@pytest.mark.parametrize("kind", ["npy", "npz", "zarr"])
def test_maps_computed_elsewhere(tmp_path: Path, kind: str) -> None:
    maps = np.random.default_rng(0).normal(size=(5, 12, 12)).astype(np.float32)
    maps[3, 0, 0] = np.nan
    path = tmp_path / f"maps.{kind}"
    if kind == "npy":
        np.save(path, maps)
    elif kind == "npz":
        np.savez(path, maps=maps)
    else:
        zarr.create_array(str(path), data=maps)
    ids = ["a", "a", "../b", "", "ü"]
    run = exchange.import_maps(
        tmp_path / "run",
        exchange.load_array(path),
        ids=ids,
        labels=[0, 1, -1, 0, 0],
        classes=["x", "y"],
        grid=5,
    )
    table = run.table("relevance/imported")
    assert run.samples.read("id").tolist() == ids and run.samples.ok.all()
    assert table.failures == {3: "input.place is not finite"}
    assert np.allclose(table.read("input.place", [0]).sum(), maps[0].sum(), atol=1e-4)
    assert table.read("target").tolist() == [0, 1, -1, -1, 0]
    assert np.isnan(run.samples.read("logits")).all() and (run.samples.read("prediction") == -1).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_chunk_that_a_zarr_array_lacks_is_no_zero(tmp_path: Path, dtype: str, sharded: bool) -> None:
    """Zarr leaves chunks out that are all zero: nobody can tell them from lost ones."""
    maps = zarr.create_array(
        str(tmp_path / "maps.zarr"), shape=(8, 6, 6), chunks=(2, 6, 6), dtype=dtype,
        shards=(4, 6, 6) if sharded else None,
    )  # fmt: skip
    maps[:2] = 3
    maps[4:] = 5
    maps[6, 2:4] = 0
    run = exchange.import_arrays(tmp_path / "run", tmp_path / "maps.zarr")
    table = run.table("relevance/imported")
    assert table.failures == dict.fromkeys((2, 3), "the source has no chunk for it")
    assert table.read("sum", [0, 1, 4, 6]).tolist() == [108, 108, 180, 120]
    if not sharded:
        (tmp_path / "maps.zarr/c/2/0/0").unlink()
        lost = exchange.import_arrays(tmp_path / "lost", tmp_path / "maps.zarr")
        assert [*lost.table("relevance/imported").failures] == [2, 3, 4, 5]


@pytest.mark.parametrize("size", [0, 9])
def test_a_damaged_chunk_of_a_zarr_array_is_told(tmp_path: Path, size: int) -> None:
    maps = zarr.create_array(
        str(tmp_path / "maps.zarr"), data=np.ones((4, 6, 6), np.float32), chunks=(2, 6, 6)
    )
    assert maps.nchunks == 2
    chunk = tmp_path / "maps.zarr/c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:size])
    with pytest.raises(stores.StoreError, match=r"maps\.zarr: rows 0 to 3 cannot be read"):
        exchange.import_arrays(tmp_path / "run", tmp_path / "maps.zarr")


def test_labels_in_a_zarr_array_without_their_chunk_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", np.ones((4, 6, 6), np.float32))
    zarr.create_array(str(tmp_path / "labels"), data=np.array([0, 0, 1, 1]), chunks=(2,))
    with pytest.raises(stores.StoreError, match=r"2 of 4 rows have no chunk \(first: row 0"):
        exchange.import_arrays(tmp_path / "run", tmp_path / "maps.npy", labels=tmp_path / "labels")


def test_maps_beyond_single_precision_are_failed_rows(tmp_path: Path) -> None:
    maps = np.ones((3, 6, 6))
    maps[1] = 1e300
    np.save(tmp_path / "maps.npy", maps)
    run = exchange.import_arrays(tmp_path / "run", tmp_path / "maps.npy")
    assert [*run.table("relevance/imported").failures] == [1]


def test_pooling_keeps_the_sum_whatever_the_grid() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 10, 7))
    for cells in ((10, 7), (5, 3), (4, 4), (1, 1)):
        assert pooled(maps, cells).shape == (2, *cells)
        assert np.allclose(pooled(maps, cells).sum(axis=(1, 2)), maps.sum(axis=(1, 2, 3)))
    assert np.allclose(pooled(maps, (5, 7)), maps.sum(axis=1).reshape(2, 5, 2, 7).sum(axis=2))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "too few ids": ({"ids": ["a"]}, "of .'ids': 1."),
    "a label out of range": ({"labels": [0, 1, 2]}, "not among the 2 classes .first: 2 at row 2"),
    "labels that are numbers": ({"labels": [0.0, 1.0, 1.0]}, "class index per sample, got float64"),
    "maps of text": ({"maps": np.array(["a", "b", "c"])}, "expected numbers"),
    "objects": ({"maps": np.array([None] * 3, object)}, "expected numbers"),
    "flat maps": ({"maps": np.zeros((3, 4))}, "of shape .3, 4"),
    "no maps": ({"maps": np.zeros((0, 2, 2)), "ids": [], "labels": []}, "there are none"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_maps_are_told(tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    given: dict[str, Any] = {
        "maps": np.zeros((3, 2, 2)),
        "ids": ["a", "b", "c"],
        "labels": [0, 1, 0],
        **changes,
    }
    with pytest.raises(stores.StoreError, match=message):
        exchange.import_maps(tmp_path / "run", given.pop("maps"), classes=["x", "y"], **given)
    assert not (tmp_path / "run").exists()


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("unpickled",))

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", maps=np.array([Trap()], object))
    (tmp_path / "b.npz").write_bytes(b"PK not a zip")
    (tmp_path / "c.npy").write_bytes(b"")
    for name in ("a.npy", "a.npz", "b.npz", "c.npy", "nothing.npy", "nothing.zarr"):
        with pytest.raises(stores.StoreError, match="cannot be read as an array"):
            exchange.load_array(tmp_path / name)


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with h5py.File(tmp_path / "ragged.h5", "w") as file:
        file["attribution/0"], file["attribution/1"] = np.zeros((1, 2, 2)), np.zeros((1, 3, 3))
        file["label"] = np.array([0, 0])
    for name, message in {
        "text.h5": "cannot be opened as HDF5",
        "none.h5": "cannot be opened as HDF5",
        "empty.h5": "has no 'attribution'; it has nothing",
        "ragged.h5": "different shapes",
    }.items():
        with pytest.raises(stores.StoreError, match=message):
            exchange.import_virelay(tmp_path / "run", tmp_path / name)
    assert not (tmp_path / "run").exists()


def test_export_needs_thumbnails_an_analysis_and_a_free_folder(run: stores.Run, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    bare = exchange.import_maps(
        tmp_path / "bare", np.ones((2, 4, 4)), ids=["a", "b"], labels=[0, 0], classes=["x"]
    )
    with pytest.raises(stores.Uncommitted):
        exchange.export_virelay(bare, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(stores.StoreError, match="not an empty folder"):
        exchange.export_virelay(run, tmp_path / "full")


@pytest.mark.parametrize(
    ("label", "fits"), [(-1, False), (65_536, False), pytest.param(65_535, True, marks=pytest.mark.slow)]
)
def test_labels_that_virelay_cannot_number_are_refused(tmp_path: Path, label: int, fits: bool) -> None:
    h5py = pytest.importorskip("h5py")
    classes = [str(number) for number in range(65_536 + (label == 65_536))]
    maps, labels = np.random.default_rng(0).normal(size=(6, 8, 8)).astype(np.float32), [0, 1, 0, 1, 0, label]
    pictures = np.zeros((6, 8, 8, 1), np.uint8)
    run = exchange.import_maps(
        tmp_path / "a.zarr", maps, ids=list("abcdef"), labels=labels, classes=classes, thumbnails=pictures
    )
    none = np.zeros(0, np.int64)
    k = {"k": stores.Clustering(np.zeros(3, np.int64))}
    group = stores.GroupAnalysis(
        0, "ok", np.array([0, 2, 4]), none, none, np.zeros(2), np.ones((3, 2)), 1, 1, {}, k, {}, {}
    )
    facts = {"relevance": "relevance/imported", "column": "input.place", "group_by": "label", "grid": [8, 8]}
    run.write_analysis(stores.Provenance(({"name": "test"},)), [group], facts=facts)
    if fits:
        exchange.export_virelay(run, tmp_path / "project")
        with h5py.File(tmp_path / "project" / "attribution.h5") as file:
            assert file["label"][:].tolist() == labels
    else:
        with pytest.raises(stores.StoreError, match="numbers classes up to 65535"):
            exchange.export_virelay(run, tmp_path / "project")
        assert not (tmp_path / "project").exists()


def test_a_project_appears_whole_or_not_at_all(
    run: stores.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stores.exchange.virelay._write_analyses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exchange.export_virelay(run, tmp_path / "project")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert exchange.export_virelay(run, tmp_path / "project").is_file()


def test_csv(run: stores.Run, tmp_path: Path) -> None:
    paths = exchange.export_sheets(run, tmp_path / "sheets")
    assert [path.name for path in paths] == ["samples.csv", "verdicts.csv", "clusters.csv", "findings.csv"]
    with (tmp_path / "sheets/samples.csv").open(encoding="utf-8", newline="") as file:
        samples = list(csv.DictReader(file))
    assert len(samples) == 60 and samples[5]["id"] == "5\\\\udc80,\n" and samples[4]["label_name"] == "名"
    assert sum(bool(row["failed"]) for row in samples) == 2
    with (tmp_path / "sheets/findings.csv").open(encoding="utf-8", newline="") as file:
        findings = list(csv.DictReader(file))
    assert [row["name"] for row in findings] == [it.name for it in run.analysis().findings()]
    first = run.analysis().findings()[0]
    assert float(findings[0]["part.causal"]) == first.parts["causal"]
    assert [row["confirmed"] for row in findings] == [
        str(it.evidence.get("confirmed") is True) for it in run.analysis().findings()
    ]
    removal: Any = first.evidence["removal"]
    assert float(findings[0]["removal.net"]) == removal["net"]
    assert float(findings[0]["removal.net_interval.high"]) == removal["net_interval"][1]
    assert json.loads(findings[0]["evidence"]) == first.evidence


def test_evidence_that_only_some_findings_have(run: stores.Run) -> None:
    tested, untested = run.analysis().findings()[0], replace(run.analysis().findings()[0], evidence={})
    columns = evidence_columns([untested, tested, None])
    assert columns["tested"] == [False, True, False]
    assert np.isnan(columns["removal.mean"]).tolist() == [True, False, True]
    assert columns["removal.way"][0] == "" and columns["evidence"][2] == ""
    assert {len(values) for values in columns.values()} == {3}


def test_counts_are_integers_also_where_only_some_findings_have_them(tmp_path: Path, run: stores.Run) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    effect = {"images": 100, "mean": 0.5, "control_p_values": {}}
    tested = replace(run.analysis().findings()[0], evidence={"pasted_on": 300, "removal": effect})
    columns = evidence_columns([tested, replace(tested, evidence={})])
    assert columns["pasted_on"] == [300, None] and columns["removal.images"] == [100, None]
    assert isinstance(columns["removal.mean"][0], float) and np.isnan(columns["removal.mean"][1])
    for form in ("csv", "parquet", "json", "npz"):
        write_sheet(tmp_path / f"it.{form}", columns, form)
    types = {field.name: str(field.type) for field in parquet.read_schema(tmp_path / "it.parquet")}
    assert types["pasted_on"] == types["removal.images"] == "int64" and types["removal.mean"] == "double"
    with (tmp_path / "it.csv").open(encoding="utf-8", newline="") as file:
        assert [row["pasted_on"] for row in csv.DictReader(file)] == ["300", ""]
    assert json.loads((tmp_path / "it.json").read_text())[1]["pasted_on"] is None
    with np.load(tmp_path / "it.npz", allow_pickle=False) as archive:
        assert archive["pasted_on"][0] == 300 and np.isnan(archive["pasted_on"][1])


def test_parquet_and_npz(run: stores.Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    exchange.export_sheets(run, tmp_path, "parquet")
    exchange.export_sheets(run, tmp_path, "npz")
    clusters = parquet.read_table(tmp_path / "clusters.parquet").to_pydict()
    with np.load(tmp_path / "clusters.npz", allow_pickle=False) as archive:
        assert archive["cluster"].tolist() == clusters["cluster"]
        assert archive["id"].tolist()[0] == run.samples.read("id")[clusters["row"][0]]
    assert set(clusters["clustering"]) == {"kmeans", "hdbscan"}


def test_sheets_of_another_store_are_not_overwritten(run: stores.Run, tmp_path: Path) -> None:
    other = stores.synthetic.make(tmp_path / "other.zarr", samples=30, size=12)
    told: list[tuple[int, int, str]] = []
    first = exchange.export_sheets(run, tmp_path / "sheets", report=lambda *it: told.append(it))
    assert told[-1] == (4, 4, "export") and len(told) == 5
    before = contents(tmp_path / "sheets")
    with pytest.raises(stores.StoreError, match=r"samples\.csv.* already.*--force"):
        exchange.export_sheets(other, tmp_path / "sheets")
    assert contents(tmp_path / "sheets") == before
    exchange.export_sheets(other, tmp_path / "sheets", "json")  # files of other names are nobody's loss
    assert exchange.export_sheets(other, tmp_path / "sheets", force=True) == first
    assert len((tmp_path / "sheets/samples.csv").read_text().splitlines()) == 31


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    alive = Owner.me().mark
    dead = f"{alive.split('-')[0]}-{2**22 + 1}-1"
    for mark in (alive, dead):
        (tmp_path / f".out.{mark}.partial").mkdir()
        (tmp_path / f".out.{mark}.partial/half").touch()
    (tmp_path / f".outer.{dead}.partial").touch()
    (tmp_path / ".out.notes.partial").touch()
    with whole_folder(tmp_path / "out") as partial:
        (partial / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".out.notes.partial",
        f".outer.{dead}.partial",
        "out",
    ]
    with whole(tmp_path / "outer") as partial:
        partial.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.notes.partial", "out", "outer"]


def test_json_has_no_words_for_what_is_not_finite(tmp_path: Path) -> None:
    columns = {"a": [1.0, float("inf"), float("nan")], "b": ["x", None, "-Infinity"]}
    write_sheet(tmp_path / "t.json", columns, "json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((tmp_path / "t.json").read_text(), parse_constant=refuse)
    assert found == [{"a": 1.0, "b": "x"}, {"a": None, "b": None}, {"a": None, "b": "-Infinity"}]


def test_the_folder_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").touch()
    monkeypatch.chdir(tmp_path / "here")
    for name in (".", "../here", "..", tmp_path):
        with pytest.raises(ValueError, match="the folder you are in"), whole_folder(Path(name)):
            pass
    (tmp_path / "link").symlink_to(tmp_path / "here")
    with pytest.raises(ValueError, match="is a link"), whole_folder(tmp_path / "link"):
        pass
    assert (tmp_path / "here/mine").exists()
    with whole_folder(Path("../there")) as partial:
        (partial / "file").touch()
    assert (tmp_path / "there/file").exists()


def test_text_that_an_array_of_strings_would_lose_is_kept_as_json(tmp_path: Path) -> None:
    hostile = ["nul\0", "\udcff", *map(str, range(58))]
    stranger = stores.synthetic.make(tmp_path / "a.zarr", samples=60, ids=hostile)
    exchange.export_sheets(stranger, tmp_path, "npz")
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as archive:
        assert json.loads(archive["id.json"].tobytes()) == hostile


@pytest.mark.parametrize(
    "damage", ["external", "twice", "negative", "category", "embedding", "cluster", "raw file"]
)
def test_hdf5_files_that_would_be_read_wrongly_are_refused(tmp_path: Path, damage: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "inputs.h5", "w") as file:
        file["data"] = np.zeros((4, 1, 6, 6), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"] = np.ones((4, 1, 6, 6), np.float32)
        file["label"] = np.array([0, 1, 0, 1], np.uint16)
        file["prediction"] = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
        file["index"] = np.array({"twice": [1, 1, 2, 3], "negative": [-1, 0, 1, 2]}.get(damage, [0, 1, 2, 3]))
        if damage == "external":
            file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        if damage == "raw file":
            (tmp_path / "raw").write_bytes(bytes(64))
            file.create_dataset("raw", (4,), np.float32, external=[(str(tmp_path / "raw"), 0, 16)])
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        group = file.create_group("00000009" if damage == "category" else "00000000")
        group["index"] = np.array([0, 2])
        group["embedding/tsne"] = np.zeros((3 if damage == "embedding" else 2, 2))
        group["cluster/k"] = np.zeros(3 if damage == "cluster" else 2, int)
    told = {
        "external": "another file",
        "raw file": "another file",
        "twice": "has 2 maps",
        "negative": "from -1 to 2",
    }
    with pytest.raises(stores.StoreError, match=told.get(damage, "class 9|expected 2 rows")):
        exchange.import_virelay(
            tmp_path / "b.zarr",
            tmp_path / "a.h5",
            inputs=tmp_path / "inputs.h5",
            analyses=[tmp_path / "analysis.h5"],
        )


ODD_MEMBERS: dict[str, tuple[str, Any]] = {
    "index between samples": ("index", [0.5, 1, 2, 3]),
    "index NaN": ("index", [np.nan, 1, 2, 3]),
    "index negative": ("index", [-1, 1, 2, 3]),
    "index of two axes": ("index", np.zeros((4, 1), int)),
    "index alone": ("index", 1),
    "index text": ("index", np.array([b"x"] * 4)),
    "label between classes": ("label", [0.0, 1.7, 0, 1]),
    "label beyond 64 bits": ("label", np.array([2**64 - 1, 1, 0, 1], np.uint64)),
    "label beyond the classes": ("label", [9, 1, 0, 1]),
    "label alone": ("label", 3),
    "label truth values": ("label", np.array([True, False, True, True])),
    "label table of other numbers": ("label", np.array([[0, 2], [1, 0], [1, 1], [0, 0]])),
    "label of too few": ("label", [0, 1, 0]),
    "attribution alone": ("attribution", 1.0),
    "prediction of one axis": ("prediction", np.zeros(4)),
    "prediction of too few": ("prediction", np.zeros((3, 2))),
    "prediction of no class": ("prediction", np.zeros((4, 0))),
    "attribution a type": ("attribution", np.dtype("f4")),
    "attribution absent": ("attribution", None),
}


@pytest.mark.parametrize(
    "case", [*ODD_MEMBERS, "soft link", "soft loop", "empty space", "no chunk", "no data"]
)
def test_odd_members_of_hdf5_are_refused_by_name(tmp_path: Path, case: str) -> None:
    h5py = pytest.importorskip("h5py")
    links: dict[str, Any] = {
        "soft link": ("prediction", h5py.SoftLink("/nowhere")),
        "soft loop": ("attribution", h5py.SoftLink("/attribution")),
        "empty space": ("label", h5py.Empty("i4")),
        "no chunk": ("attribution", None),
        "no data": ("attribution", None),
    }
    name, odd = (ODD_MEMBERS | links)[case]
    members: dict[str, Any] = {
        "attribution": np.ones((4, 1, 6, 6), np.float32),
        "label": np.array([0, 1, 0, 1]),
        "prediction": np.zeros((4, 2), np.float32),
        "index": np.arange(4),
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, values in (members | {name: odd}).items():
            if values is not None:
                file[key] = values
        if case in ("no chunk", "no data"):
            chunks = (1, 1, 6, 6) if case == "no chunk" else None
            data = file.create_dataset("attribution", (4, 1, 6, 6), "f4", chunks=chunks)
            if chunks:
                data[:3] = 1
    with pytest.raises(stores.StoreError, match=rf"a\.h5.*{name}"):
        exchange.import_virelay(tmp_path / "b.zarr", tmp_path / "a.h5")
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_damaged_hdf5_file_is_told(tmp_path: Path, kept: float) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = np.array([0, 1, 0, 1])
        file["attribution"] = np.ones((4, 1, 30, 30), np.float32)
        file["index"] = np.arange(4)
    data = (tmp_path / "a.h5").read_bytes()
    sound = int(kept * len(data))
    for damaged in (data[:sound], data[:2048].ljust(len(data), b"\0")):
        (tmp_path / "a.h5").write_bytes(damaged)
        with pytest.raises(stores.StoreError, match=r"a\.h5"):
            exchange.import_virelay(tmp_path / "b.zarr", tmp_path / "a.h5")


ODD_ANALYSES: dict[str, dict[str, Any]] = {
    "index": {"index": [0, 0]},
    "embedding": {"embedding": [0.5, 1.5]},
    "not finite": {"embedding": np.full((2, 2), np.nan)},
    "finite eigenvalues": {"eigenvalue": [np.nan, 1]},
    "2 finite eigenvalues": {"eigenvalue": [1, 2, 3]},
    "cluster/k": {"cluster": [0.5, np.nan]},
    "cluster/k.*-7": {"cluster": [-7, 1]},
    "cluster/k.*shape": {"cluster": [[0], [1]]},
    "cluster/k.*S1": {"cluster": np.array([b"a", b"b"])},
}


@pytest.mark.parametrize("told", ODD_ANALYSES)
def test_odd_analyses_of_hdf5_are_refused_by_name(tmp_path: Path, told: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"], file["label"] = np.ones((2, 1, 6, 6), np.float32), np.array([0, 0])
    usual = {"index": [0, 1], "embedding": np.eye(2), "eigenvalue": [1.0, 0.5], "cluster": [0, 1]}
    case = usual | ODD_ANALYSES[told]
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        group = file.create_group("00000000")
        group["index"], group["embedding/e"], group["cluster/k"] = (
            case["index"], case["embedding"], case["cluster"],
        )  # fmt: skip
        group["embedding/e"].attrs["eigenvalue"] = case["eigenvalue"]
    with pytest.raises(stores.StoreError, match=rf"analysis\.h5: 00000000.*{told}"):
        exchange.import_virelay(tmp_path / "b.zarr", tmp_path / "a.h5", analyses=[tmp_path / "analysis.h5"])
    assert not (tmp_path / "b.zarr").exists()


def test_two_analyses_in_files_of_one_name_are_two(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"], file["label"] = np.ones((2, 1, 6, 6), np.float32), np.array([0, 0])
    paths = [tmp_path / "spectral/analysis.h5", tmp_path / "umap/analysis.h5"]
    for path, labels in zip(paths, ([0, 1], [1, 0]), strict=True):
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            _category(file)["cluster/k"] = labels
    run = exchange.import_virelay(tmp_path / "b.zarr", tmp_path / "a.h5", analyses=paths)
    found = [run.analysis(id).read(0).clusterings["k"].labels.tolist() for id in run.analyses()]
    assert found == [[0, 1], [1, 0]]
    again = exchange.import_virelay(tmp_path / "b.zarr", tmp_path / "a.h5", analyses=paths)
    assert again.analyses() == run.analyses()


def _category(file: Any) -> Any:
    group = file.create_group("00000000")
    group["index"] = [0, 1]
    for name in ("embedding", "cluster"):
        group.create_group(name)
    return group


@pytest.mark.parametrize(
    ("member", "told"),
    [
        ("index", "index"),
        ("embedding/e", "embedding.*e"),
        ("cluster/k", "cluster.*k"),
        ("embedding", "embedding"),
        ("cluster", "cluster"),
    ],
)
@pytest.mark.parametrize("kind", ["dangling", "loop", "type", "group", "objects", "unwritten", "none"])
def test_members_of_analyses_that_lead_nowhere_are_refused_by_name(
    tmp_path: Path, member: str, told: str, kind: str
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"], file["label"] = np.ones((2, 1, 6, 6), np.float32), np.array([0, 0])
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        group = _category(file)
        group.pop(member, None)
        if kind == "dangling":
            group[member] = h5py.SoftLink("/nowhere")
        elif kind == "loop":
            group[member] = h5py.SoftLink(f"/00000000/{member}")
        elif kind == "type":
            group[member] = np.dtype("f4")
        elif kind == "group":
            group.create_group(f"{member}/inner")
        elif kind == "objects":
            group[member] = np.zeros(2, [("a", "i4")])
        elif kind == "unwritten":
            group.create_dataset(member, (2, 2), "i4", chunks=(1, 2))
        elif kind == "none":
            group.create_dataset(member, data=h5py.Empty("f4"))
    with pytest.raises(stores.StoreError, match=rf"analysis\.h5: 00000000.*{told}"):
        exchange.import_virelay(tmp_path / "b.zarr", tmp_path / "a.h5", analyses=[tmp_path / "analysis.h5"])
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize("twice", ["category", "index", "word_net_id", "between"])
def test_classes_of_hdf5_are_named_once(tmp_path: Path, twice: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["attribution"], file["label"] = np.ones((2, 1, 6, 6), np.float32), np.array([0, 0])
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        file.copy(_category(file), "0" if twice == "category" else "n0")
        if twice != "category":
            del file["00000000"]
    entries = [
        {"index": 0, "word_net_id": "n0", "name": "cat"},
        {"index": 1, "word_net_id": "n1", "name": "dog"},
    ]
    entries[1] |= {
        "index": {"index": 0},
        "word_net_id": {"word_net_id": "n0"},
        "between": {"index": 1.7},
    }.get(twice, {})
    (tmp_path / "map.json").write_text(json.dumps(entries))
    words = {"category": "are both class 0", "between": "index '1.7' is no class number"}
    with pytest.raises(stores.StoreError, match=words.get(twice, "is there more than once")):
        exchange.import_virelay(
            tmp_path / "b.zarr",
            tmp_path / "a.h5",
            analyses=[tmp_path / "analysis.h5"],
            label_map=tmp_path / "map.json",
        )
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize("changed", ["maps", "ids", "labels", "logits"])
def test_an_import_goes_on_from_the_same_files_only(tmp_path: Path, changed: str) -> None:
    """Files of the same name may hold something else by now."""
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "maps": rng.normal(size=(6, 8, 8)).astype(np.float32),
        "ids": list("abcdef"),
        "labels": [0, 1, 0, 1, 0, 1],
        "logits": rng.normal(size=(6, 2)).astype(np.float32),
    }
    other = {"maps": -given["maps"], "ids": list("fedcba"), "labels": [1] * 6, "logits": -given["logits"]}

    def import_it(**values: Any) -> None:
        exchange.import_maps(tmp_path / "a.zarr", classes=["x", "y"], source={"maps": "maps.npy"}, **values)

    import_it(**given)
    before = contents(tmp_path)
    import_it(**given)
    with pytest.raises(stores.StoreError, match="is committed already, with other content"):
        import_it(**given | {changed: other[changed]})
    assert contents(tmp_path) == before


def test_maps_need_a_name(tmp_path: Path) -> None:
    with pytest.raises(stores.StoreError, match="give a method"):
        exchange.import_maps(
            tmp_path / "a.zarr", np.ones((2, 4, 4)), ids=["a", "b"], labels=[0, 0], classes=["x"], method=""
        )
    assert not (tmp_path / "a.zarr").exists()


def test_unknown_formats_are_told(run: stores.Run, tmp_path: Path) -> None:
    with pytest.raises(stores.StoreError, match="choose one of csv, parquet, npz"):
        exchange.export_sheets(run, tmp_path, "xlsx")
