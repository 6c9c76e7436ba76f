"""A run as a ViRelAy project: HDF5 files, a label map, and the project file that names them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from stores.analyses import AnalysisHandle
from stores.analysis import GroupAnalysis
from stores.errors import StoreError
from stores.exchange.maps import Report
from stores.files import enough_space, whole_folder
from stores.groups import group_key
from stores.names import safe_key
from stores.run import Run

SMALL = 2**20
"""Bytes of all that does not grow with the samples."""
UNKNOWN = "unknown"
"""Name of the class of samples without a label; its number is the first after the others'."""


def export_virelay(
    run: Run,
    folder: str | Path,
    *,
    analysis: str | None = None,
    report: Report = lambda done, total, what: None,
) -> Path:
    """Write a project that ViRelAy opens, whole or not at all; the path of its ``project.yaml``.

    Thumbnails become the data set, full maps the attributions (pooled ones, repeated to the size of the
    thumbnails, where no full maps are kept). Rows that failed have no attribution. Eigenvalues are those of
    the normalised Laplacian, in ViRelAy's descending order. Classes are named after their number,
    ``f"{class:08d}"``.

    Raises:
        StoreError: the run keeps no thumbnails or has labels beyond 16 bits, h5py is missing, or the folder is not
            empty.
        Uncommitted: there is no analysis yet.
        OSError: the disk has less room than is needed.
    """
    h5 = h5py_module()
    handle = run.shown_analysis(analysis)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} is not an empty folder; name one that is free.")
    if "thumbnail" not in run.samples.columns:
        raise StoreError(
            f"{run.path} keeps no thumbnails, and ViRelAy shows nothing without; attribute with them."
        )
    relevance = run.table(handle.facts["relevance"])
    rows = np.flatnonzero(run.samples.ok & relevance.ok)
    labels = _label_numbers(run)
    strategy = (
        "true_label" if np.array_equal(relevance.read("target", rows), labels[rows]) else "predicted_label"
    )
    enough_space(folder, _bytes(run, handle, len(rows)))
    with whole_folder(folder) as partial:
        with h5.File(partial / "input.h5", "w") as file:
            _write_inputs(file, run, labels, report)
        with h5.File(partial / "attribution.h5", "w") as file:
            _write_attributions(file, run, handle, rows, labels, report)
        with h5.File(partial / "analysis.h5", "w") as file:
            _write_analyses(file, handle, rows)
        _write_text(partial / "label-map.json", _label_map(run))
        _write_text(partial / "project.yaml", _project(run, handle, strategy))
    return folder / "project.yaml"


def _bytes(run: Run, handle: AnalysisHandle, maps: int) -> int:
    """About as many as the files will have, and a tenth more."""
    pictures = run.n * (math.prod(run.samples.columns["thumbnail"].shape) + 4)
    of_each = 4 * (math.prod(_map_shape(run, handle)) + len(run.classes) + 2)
    analyses = sum(
        8 * group.vectors.size + 8 * len(group.rows) * (len(group.pictures) + len(group.clusterings) + 1)
        for group in map(handle.read, handle.groups)
    )
    return SMALL + int(1.1 * (pictures + maps * of_each + analyses))


def h5py_module() -> Any:
    """The h5py package.

    Raises:
        StoreError: it is not installed.
    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise StoreError("HDF5 needs h5py; install it with `pip install 'spray-audit[exchange]'`.") from error


def _write_inputs(file: Any, run: Run, labels: Int[np.ndarray, " n"], report: Report) -> None:
    height, width, channels = run.samples.columns["thumbnail"].shape
    data = file.create_dataset("data", (run.n, channels, height, width), np.uint8)
    for rows, pictures in run.samples.iterate("thumbnail"):
        data[rows[0] : rows[-1] + 1] = pictures.transpose(0, 3, 1, 2)
        report(int(rows[-1]) + 1, run.n, "export pictures")
    file["label"] = labels


def _write_attributions(
    file: Any,
    run: Run,
    handle: AnalysisHandle,
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " n"],
    report: Report,
) -> None:
    table = run.table(handle.facts["relevance"])
    full = "input.full" in table.columns
    column = "input.full" if full else "input.place"
    height, width, _ = run.samples.columns["thumbnail"].shape
    shape = _map_shape(run, handle)
    channels = table.columns[column].shape[0] if full else 1
    data = file.create_dataset("attribution", (len(rows), *shape), np.float32)
    done = 0
    for _, maps in table.iterate(column, rows):
        data[done : done + len(maps), :channels] = maps if full else _stretched(maps, height, width)[:, None]
        done += len(maps)
        report(done, len(rows), "export maps")
    file["index"] = rows.astype(np.uint32)
    file["label"] = labels[rows]
    file["prediction"] = run.samples.read("logits", rows)


def _map_shape(run: Run, handle: AnalysisHandle) -> tuple[int, ...]:
    """Channels, height and width of an exported map."""
    columns = run.table(handle.facts["relevance"]).columns
    height, width, _ = run.samples.columns["thumbnail"].shape
    channels, *places = columns["input.full"].shape if "input.full" in columns else (1, height, width)
    # Half of ViRelAy's colour maps fail on maps of one channel; it sums channels: zeros beside it change nothing.
    return (3 if channels == 1 else channels, *places)


def _stretched(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps with every cell repeated, so that they lie over the picture."""
    y = np.arange(height) * maps.shape[1] // height
    x = np.arange(width) * maps.shape[2] // width
    return np.asarray(maps[:, y][:, :, x])


def _write_analyses(file: Any, handle: AnalysisHandle, rows: Int[np.ndarray, " m"]) -> None:
    """The groups, of the samples that have a map: of one that failed since, ViRelAy could show nothing."""
    groups = [group for group in map(handle.read, handle.groups) if group.status == "ok"]
    if not groups:
        raise StoreError(
            f"analysis {handle.id} has no class with enough samples, so there is nothing to export."
        )
    # ViRelAy takes the first category's names for those of all.
    clusterings = [name for name in groups[0].clusterings if all(name in it.clusterings for it in groups)]
    pictures = [name for name in groups[0].pictures if all(name in it.pictures for it in groups)]
    for group in groups:
        category = file.create_group(_category(group.group))
        _write_category(category, group, np.isin(group.rows, rows), clusterings, pictures)


def _write_category(
    category: Any,
    group: GroupAnalysis,
    there: Bool[np.ndarray, " m"],
    clusterings: list[str],
    pictures: list[str],
) -> None:
    category["index"] = group.rows[there].astype(np.uint32)
    embedding = category.create_group("embedding")
    spectral = embedding.create_dataset("spectral", data=group.vectors[there, ::-1].astype(np.float32))
    spectral.attrs["eigenvalue"] = group.eigenvalues[::-1].astype(np.float32)
    for name in pictures:
        picture = embedding.create_dataset(
            safe_key(name), data=group.pictures[name][there].astype(np.float32)
        )
        picture.attrs["embedding"] = "spectral"
        picture.attrs["index"] = np.array([0, 1])
    cluster = category.create_group("cluster")
    for name in clusterings:
        labels = group.clusterings[name].labels[there]
        written = cluster.create_dataset(safe_key(name), data=labels)
        written.attrs["embedding"] = "spectral"
        written.attrs["k"] = int(labels.max(initial=-1)) + 1
        written.attrs["index"] = np.arange(group.vectors.shape[1])


def _category(group: int) -> str:
    return f"{group:08d}" if group >= 0 else group_key(group)


def _label_numbers(run: Run) -> Int[np.ndarray, " n"]:
    """Labels as ViRelAy knows them, of 16 bits: unknown is a class of its own, after the others."""
    labels = run.samples.read("label")
    numbers = np.where(labels < 0, len(run.classes), labels)
    if numbers.max(initial=0) > np.iinfo(np.uint16).max:
        raise StoreError(
            f"{run.path} has labels up to {labels.max()} of {len(run.classes)} classes (samples without a label count "
            f"as one more), and a ViRelAy project numbers classes up to {np.iinfo(np.uint16).max}. Export it --to "
            "parquet, csv or npz instead."
        )
    return numbers.astype(np.uint16)


def _label_map(run: Run) -> list[dict[str, Any]]:
    names = [*run.classes, UNKNOWN]
    return [{"index": i, "word_net_id": f"{i:08d}", "name": name} for i, name in enumerate(names)]


def _project(run: Run, handle: AnalysisHandle, strategy: str) -> Mapping[str, Any]:
    height, width, _ = run.samples.columns["thumbnail"].shape
    return {
        "project": {
            "name": f"SpRAy {handle.id}",
            "model": "model",
            "label_map": "label-map.json",
            "dataset": {
                "name": "data",
                "type": "hdf5",
                "path": "input.h5",
                "input_width": width,
                "input_height": height,
                "up_sampling_method": "none",
                "down_sampling_method": "none",
            },
            "attributions": {
                "attribution_method": handle.facts["relevance"].partition("/")[2],
                "attribution_strategy": strategy,
                "sources": ["attribution.h5"],
            },
            "analyses": [{"analysis_method": "spectral", "sources": ["analysis.h5"]}],
        }
    }


def _write_text(path: Path, content: Any) -> None:
    """JSON, which is YAML too."""
    path.write_text(json.dumps(content, indent=1), encoding="ascii")
