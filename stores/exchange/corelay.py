"""CoRelAy and ViRelAy files (HDF5) into a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores.analysis import ALL_CLASSES, Clustering, GroupAnalysis
from stores.errors import StoreError
from stores.exchange.maps import import_maps
from stores.exchange.virelay import UNKNOWN, h5py_module
from stores.provenance import Provenance
from stores.run import Location, Run

DEEPEST = 4
"""Groups within groups: category/embedding/name, and one to spare. Hard links can make endless ones."""


def import_virelay(
    out: Location,
    attribution: str | Path,
    *,
    inputs: str | Path | None = None,
    analyses: Sequence[str | Path] = (),
    label_map: str | Path | None = None,
    method: str = "imported",
    grid: int = 28,
) -> Run:
    """Write a run from the files of a ViRelAy project, or from what CoRelAy wrote.

    Data sets and groups of single maps are read, single labels and boolean (multi-label) ones; of several
    labels none is taken for *the* label (−1), and all stand in the metadata column "labels".

    Args:
        out: path or URL of the run.
        attribution: file with ``attribution``, ``label``, ``prediction`` and maybe ``index``.
        inputs: file with ``data``, for thumbnails.
        analyses: files with ``<category>/index``, ``embedding`` and ``cluster``; each becomes an analysis.
        label_map: JSON list of {index, word_net_id, name}.
        method: the table is called "relevance/<method>".
        grid: pooled maps have at most this many cells a side.

    Raises:
        StoreError: a file is not HDF5, lacks a data set, or the files do not fit together.
    """
    with _opened(attribution) as file:
        return _import(out, file, attribution, inputs, analyses, label_map, method, grid)


def _import(
    out: Location,
    file: Any,
    attribution: str | Path,
    inputs: str | Path | None,
    analyses: Sequence[str | Path],
    label_map: str | Path | None,
    method: str,
    grid: int,
) -> Run:
    names = _names(label_map)
    maps = _member(file, "attribution", attribution)
    maps = maps if hasattr(maps, "dtype") else _rows(maps)  # a data set is read block by block
    labels, all_labels = _labels(_rows(_member(file, "label", attribution)))
    logits = _rows(file["prediction"]) if "prediction" in file else None
    index = np.asarray(file["index"], np.int64) if "index" in file else np.arange(len(maps))
    thumbnails = None
    if inputs is not None:
        with _opened(inputs) as pictures:
            thumbnails = _pictures(_rows(_member(pictures, "data", inputs)))
    n = len(index) if thumbnails is None else len(thumbnails)
    place = index if thumbnails is not None else np.arange(n)
    outside = place.size and (place.min() < 0 or place.max() >= n)
    if len(index) != len(maps) or len(labels) != len(maps) or outside:
        raise StoreError(
            f"{attribution}: {len(maps)} maps, {len(labels)} labels and {len(index)} indices ({place.min(initial=0)} "
            f"to {place.max(initial=-1)}) do not fit together, or to {n} samples."
        )
    numbers, times = np.unique(index, return_counts=True)
    if (times > 1).any():
        raise StoreError(
            f"{attribution}: sample {numbers[times > 1][0]} has {times.max()} maps; a run has one of each sample. "
            "Import each attribution of the same samples by itself."
        )
    count = (
        max(1 + max(names, default=-1), 1 + int(labels.max(initial=-1)))
        if logits is None
        else logits.shape[1]
    )
    unknown = [number for number, name in names.items() if number >= count and name == UNKNOWN]
    labels = np.where(np.isin(labels, unknown), -1, labels)
    classes = [names.get(number, f"{number:08d}") for number in range(count)]
    absent = sorted(set(range(n)) - set(place.tolist()))
    run = import_maps(
        out,
        _Placed(maps, place, n),
        ids=[str(number) for number in (index if thumbnails is None else range(n))],
        labels=_spread(labels, place, n, -1),
        classes=classes,
        logits=None if logits is None else _spread(logits, place, n),
        thumbnails=thumbnails,
        method=method,
        grid=grid,
        source={"format": "virelay", "attribution": Path(attribution).name},
        missing=dict.fromkeys(absent, "no attribution in the file"),
        metadata={"labels": [", ".join(map(str, it)) for it in _spread_lists(all_labels, place, n)]},
    )
    word_nets = {key: number for number, key in _word_nets(label_map).items()}
    where = {int(number): int(row) for number, row in zip(index, place, strict=True)}
    for path in analyses:
        _import_analysis(run, path, method, grid, word_nets, where)
    return run


class _Placed:
    """Maps at their place among n samples, zero where a sample has none; read slice by slice."""

    def __init__(self, maps: Any, place: np.ndarray, n: int) -> None:
        self.maps, self.dtype, self.shape = maps, maps.dtype, (n, *maps.shape[1:])
        self.source = np.full(n, -1)
        self.source[place] = np.arange(len(place))

    def __getitem__(self, rows: slice) -> np.ndarray:
        source = self.source[rows]
        present = np.flatnonzero(source >= 0)
        values = np.zeros((len(source), *self.shape[1:]), self.dtype)
        order = present[np.argsort(source[present])]  # HDF5 wants its rows ascending
        if len(order):
            values[order] = self.maps[source[order]]
        return values


def _import_analysis(
    run: Run, path: str | Path, method: str, grid: int, numbers: dict[str, int], where: dict[int, int]
) -> None:
    table = f"relevance/{method}"
    cells = list(run.table(table).columns["input.place"].shape)
    facts = {
        "relevance": table,
        "column": "input.place",
        "group_by": "label",
        "grid": cells,
        "imported": True,
    }
    provenance = Provenance(
        ({"name": "import", "format": "virelay", "file": Path(path).name, "grid": grid},),
        (run.table(table).provenance.id,),
    )
    handle = run.create_analysis(provenance, facts=facts)
    with _opened(path) as file:
        for category in file:
            number = _number(category, numbers, path)
            if number >= len(run.classes):
                raise StoreError(
                    f"{path}: category {category!r} is class {number}, and there are {len(run.classes)} classes."
                )
            handle.write(_group(file[category], number, where, f"{path}: {category}"))


def _group(category: Any, number: int, where: dict[int, int], source: str) -> GroupAnalysis:
    index = np.asarray(_member(category, "index", source), np.int64)
    unknown = [int(row) for row in index if int(row) not in where]
    if unknown:
        raise StoreError(f"{source}: sample {unknown[0]} is not among the attributions.")
    rows = np.array([where[int(row)] for row in index], np.int64)
    order = np.argsort(rows, kind="stable")
    eigenvalues, vectors = np.zeros(0), np.zeros((len(rows), 0))
    pictures = {}
    for name, embedding in category.get("embedding", {}).items():
        values = _of_samples(embedding, len(rows), f"{source}/embedding/{name}")[order]
        if "eigenvalue" in embedding.attrs:
            found = np.asarray(embedding.attrs["eigenvalue"], np.float64)
            descending = bool((np.diff(found) <= 0).all())  # as it should be: reversed, ties stay in place
            ascending = np.arange(len(found))[::-1] if descending else np.argsort(found, kind="stable")
            eigenvalues, vectors = found[ascending], values[:, ascending]
        elif values.ndim == 2 and values.shape[1] >= 2:
            pictures[name] = values[:, :2].astype(np.float32)
    clusterings = {
        name: Clustering(_of_samples(labels, len(rows), f"{source}/cluster/{name}")[order].astype(np.int64))
        for name, labels in category.get("cluster", {}).items()
    }
    none = np.zeros(0, np.int64)
    gaps = np.diff(eigenvalues)
    k = int(gaps.argmax()) + 1 if len(gaps) else 1
    return GroupAnalysis(
        number, "ok" if len(rows) > 1 else "single", rows[order], none, none, eigenvalues, vectors,
        int((eigenvalues < 1e-9).sum()), k, {}, clusterings, pictures, {"imported": True},
    )  # fmt: skip


def _of_samples(data: Any, count: int, source: str) -> np.ndarray:
    values = np.asarray(data)
    if values.shape[:1] != (count,):
        raise StoreError(f"{source}: has shape {values.shape}, and the index names {count} samples.")
    return values


def _number(category: str, numbers: dict[str, int], path: str | Path) -> int:
    if category in numbers:
        return numbers[category]
    if category == "all":
        return ALL_CLASSES
    if category.isdecimal():
        return int(category)
    raise StoreError(f"{path}: category {category!r} is no class number, and the label map does not know it.")


def _opened(path: str | Path) -> Any:
    try:
        file = h5py_module().File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} cannot be opened as HDF5: {error}") from error
    try:
        _refuse_other_files(file, path)
    except StoreError:
        file.close()
        raise
    return file


def _refuse_other_files(group: Any, path: str | Path, depth: int = 0) -> None:
    """A file from a stranger may name any other file of this machine as a part of itself."""
    h5py = h5py_module()
    for name in group:
        link = group.get(name, getlink=True)
        where = f"{path}: {group.name.rstrip('/')}/{name}"
        if isinstance(link, h5py.ExternalLink):
            raise StoreError(f"{where} is a link to another file; copy the data into this one.")
        if isinstance(link, h5py.SoftLink):
            continue  # what it points at is looked at in its own place
        member = group[name]
        if isinstance(member, h5py.Group):
            if depth >= DEEPEST:
                raise StoreError(f"{where} lies deeper than any file of ViRelAy or CoRelAy has groups.")
            _refuse_other_files(member, path, depth + 1)
        elif isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
            raise StoreError(f"{where} lies in another file; copy the data into the file.")


def _member(file: Any, name: str, source: str | Path) -> Any:
    if name not in file:
        raise StoreError(f"{source}: has no {name!r}; it has {', '.join(file) or 'nothing'}.")
    return file[name]


def _rows(data: Any) -> np.ndarray:
    """A data set, or a group of one data set per sample (in the order of its keys), as one array."""
    if hasattr(data, "dtype"):
        values = np.asarray(data)
    else:
        pieces = [np.asarray(data[key]) for key in data]
        shapes = sorted({piece.shape for piece in pieces})
        if len(shapes) > 1:
            raise StoreError(
                f"{data.name}: entries of different shapes ({shapes[0]}, {shapes[1]}, …) have no common "
                "map; bring them to one size first."
            )
        values = np.stack(pieces) if pieces else np.zeros(0)
    if values.dtype.kind not in "fiub":
        raise StoreError(f"{data.name}: expected numbers, got {values.dtype}.")
    return values


def _labels(labels: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """The label of each sample (−1 where it has none or several), and all of them."""
    if labels.dtype == bool or labels.ndim == 2:
        every = [np.flatnonzero(row).tolist() for row in labels]
    else:
        every = [[int(label)] for label in labels]
    return np.array([row[0] if len(row) == 1 else -1 for row in every], np.int64), every


def _pictures(data: np.ndarray) -> np.ndarray:
    """Thumbnails (n, y, x, channel) of 8 bits; floating-point images are in [0, 1], [−1, 1] or [0, 255]."""
    images = data.transpose(0, 2, 3, 1)
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    scale, shift = (127.5, 1.0) if low < 0 else (255.0, 0.0) if high <= 1 else (1.0, 0.0)
    return np.clip(np.round((images + shift) * scale), 0, 255).astype(np.uint8)


def _spread(values: np.ndarray, place: np.ndarray, n: int, empty: float = 0) -> np.ndarray:
    if len(values) == n and np.array_equal(place, np.arange(n)):
        return values
    spread = np.full((n, *values.shape[1:]), empty, values.dtype)
    spread[place] = values
    return spread


def _spread_lists(lists: list[list[int]], place: np.ndarray, n: int) -> list[list[int]]:
    found = {int(row): entry for row, entry in zip(place, lists, strict=True)}
    return [found.get(row, []) for row in range(n)]


def _label_entries(label_map: str | Path | None) -> list[dict[str, Any]]:
    if label_map is None:
        return []
    try:
        entries = json.loads(Path(label_map).read_text(encoding="utf-8"))
        return [
            {"index": int(it["index"]), "id": str(it["word_net_id"]), "name": str(it["name"])}
            for it in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{label_map} is no label map (a list of index, word_net_id, name): {error!r}"
        ) from error


def _names(label_map: str | Path | None) -> dict[int, str]:
    return {entry["index"]: entry["name"] for entry in _label_entries(label_map)}


def _word_nets(label_map: str | Path | None) -> dict[int, str]:
    return {entry["index"]: entry["id"] for entry in _label_entries(label_map)}
