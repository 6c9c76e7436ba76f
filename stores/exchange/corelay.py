"""CoRelAy and ViRelAy files (HDF5) into a run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.analysis import ALL_CLASSES, Clustering, GroupAnalysis
from stores.errors import StoreError
from stores.exchange import hdf5
from stores.exchange.arrays import LARGEST, MOST_NUMBERED
from stores.exchange.axes import channels_last
from stores.exchange.maps import Report, import_maps
from stores.exchange.virelay import UNKNOWN
from stores.places import Location
from stores.provenance import Provenance
from stores.run import Run
from stores.schema import parsed


def import_virelay(
    out: Location,
    attribution: str | Path,
    *,
    inputs: str | Path | None = None,
    analyses: Sequence[str | Path] = (),
    label_map: str | Path | None = None,
    method: str = "imported",
    grid: int = 28,
    report: Report = lambda done, total, what: None,
) -> Run:
    """Write a run from the files of a ViRelAy project, or from what CoRelAy wrote.

    Data sets and groups of single maps are read, single labels and boolean (multi-label) ones; of several
    labels none is taken for *the* label (−1), and all stand in the metadata column "labels".

    Args:
        out: path or URL of the run.
        attribution: file with ``attribution``, ``label``, ``prediction`` and maybe ``index``.
        inputs: file with ``data``, for thumbnails, and maybe ``label``, for those without a map. Samples that have a
            data set each keep its name as their id (that of the input, or of the map where the file has no
            ``index``), and all others their number.
        analyses: files with ``<category>/index``, ``embedding`` and ``cluster``; each becomes an analysis.
        label_map: JSON list of {index, word_net_id, name}.
        method: the table is called "relevance/<method>".
        grid: pooled maps have at most this many cells a side.
        report: told how far it has come.

    Raises:
        StoreError: a file is not HDF5, lacks a data set or holds another than expected, or one that was never
            written whole; or the files do not fit together.
    """
    with hdf5.opened(attribution) as file:
        return _import(out, file, attribution, inputs, analyses, label_map, method, grid, report)


def _import(
    out: Location,
    file: Any,
    attribution: str | Path,
    inputs: str | Path | None,
    analyses: Sequence[str | Path],
    label_map: str | Path | None,
    method: str,
    grid: int,
    report: Report,
) -> Run:
    names = _names(label_map)
    maps, where = _maps(file, attribution), f"{attribution}: "
    count = int(maps.shape[0])
    labels, all_labels = _labels(
        hdf5.array(hdf5.member(file, "label", attribution), hdf5.LABELS, where + "label", count),
        where + "label",
    )
    logits = _optional(file, "prediction", hdf5.LOGITS, attribution, count)
    if logits is not None and not logits.shape[1]:
        raise StoreError(f"{where}prediction: expected a number for each class, got none.")
    found = _optional(file, "index", hdf5.INDEX, attribution, count)
    index = np.arange(count) if found is None else found.astype(np.int64)
    keys = _keys(file, attribution)
    sample_names = keys if keys and found is None else [str(number) for number in index]
    there = None if inputs is None else _Inputs.of(inputs)
    n = len(index) if there is None else len(there.thumbnails)
    place = np.arange(n) if there is None else index
    if place.max(initial=-1) >= n:
        raise StoreError(
            f"{attribution}: index names sample {place.max()}, and {inputs} holds {n}, from number 0 on."
        )
    numbers, times = np.unique(index, return_counts=True)
    if (times > 1).any():
        raise StoreError(
            f"{attribution}: sample {numbers[times > 1][0]} has {times.max()} maps; a run has one of each sample. "
            "Import each attribution of the same samples by itself."
        )
    absent = sorted(set(range(n)) - set(place.tolist()))
    labels, all_labels = _spread(labels, place, n, -1), _spread_lists(all_labels, place, n)
    if there is not None and there.labels is not None:
        for row in absent:
            labels[row], all_labels[row] = there.labels[0][row], there.labels[1][row]
    classes_there = (
        max(1 + max(names, default=-1), 1 + int(labels.max(initial=-1)))
        if logits is None
        else logits.shape[1]
    )
    if logits is None and classes_there > MOST_NUMBERED:
        raise StoreError(
            f"{where}label: the highest class is {classes_there - 1}: that would be {classes_there:,} classes. Labels "
            "count from 0; where that many are meant, the file needs 'prediction' with a column for each."
        )
    unknown = [number for number, name in names.items() if number >= classes_there and name == UNKNOWN]
    labels = np.where(np.isin(labels, unknown), -1, labels)
    if labels.max(initial=-1) >= classes_there:
        raise StoreError(
            f"{where}label: class {labels.max()} is not among the {classes_there} classes of 'prediction'."
        )
    classes = [names.get(number, f"{number:08d}") for number in range(classes_there)]
    word_nets = _word_nets(label_map)
    rows = {int(number): int(row) for number, row in zip(index, place, strict=True)}
    for path in analyses:  # all of them are looked at before anything is written
        deque(_groups(path, word_nets, rows, len(classes)), maxlen=0)
    run = import_maps(
        out,
        _Placed(maps, place, n, where + "attribution"),
        ids=sample_names if there is None else there.names,
        labels=labels,
        classes=classes,
        logits=None if logits is None else _spread(logits.astype(np.float64), place, n, np.nan),
        thumbnails=None if there is None else there.thumbnails,
        method=method,
        grid=grid,
        source={"format": "virelay", "attribution": Path(attribution).name},
        missing=dict.fromkeys(absent, "no attribution in the file"),
        metadata={"labels": [", ".join(map(str, it)) for it in all_labels]},
        report=report,
    )
    for path in analyses:
        _import_analysis(run, path, method, grid, word_nets, rows)
    return run


@dataclass(frozen=True)
class _Inputs:
    """What the file of inputs tells of every sample, of those without a map, too."""

    thumbnails: np.ndarray
    names: list[str]
    labels: tuple[np.ndarray, list[list[int]]] | None

    @classmethod
    def of(cls, path: str | Path) -> _Inputs:
        """Read whole; raises StoreError where it is not as expected."""
        with hdf5.opened(path) as file:
            data = hdf5.member(file, "data", path)
            thumbnails = _pictures(hdf5.array(data, hdf5.PICTURES, f"{path}: data"))
            labels = _optional(file, "label", hdf5.LABELS, path, len(thumbnails))
            names = hdf5.names(data) or [str(number) for number in range(len(thumbnails))]
            return cls(thumbnails, names, None if labels is None else _labels(labels, f"{path}: label"))


def _keys(file: Any, source: str | Path) -> list[str] | None:
    """What the samples are called where each has a data set of its own; None where they are rows of one.

    Raises:
        StoreError: the maps and what else is given by sample are not of the same samples.
    """
    found = hdf5.names(hdf5.member(file, "attribution", source))
    for name in ("label", "prediction", "index"):
        if found is not None and name in file:
            others = hdf5.names(hdf5.member(file, name, source))
            if others is not None and others != found:
                apart = sorted(set(found) ^ set(others))
                raise StoreError(
                    f"{source}: attribution and {name} are of different samples ({', '.join(apart[:3])}, …): "
                    "give one entry of the same name in both."
                )
    return found


def _maps(file: Any, source: str | Path) -> Any:
    """The maps: a data set as it is, to be read block by block; a group as one array."""
    where, found = f"{source}: attribution", hdf5.member(file, "attribution", source)
    if not hasattr(found, "dtype"):
        return hdf5.array(found, hdf5.MAPS, where)
    with hdf5.told(where):
        hdf5.check(found, hdf5.MAPS, where)
        hdf5.check_written(found, where)
    return found


def _optional(
    file: Any, name: str, expected: hdf5.Expected, source: str | Path, count: int
) -> np.ndarray | None:
    if file.get(name, getlink=True, default=None) is None:
        return None
    return hdf5.array(hdf5.member(file, name, source), expected, f"{source}: {name}", count)


class _Placed:
    """Maps at their place among n samples, zero where a sample has none; read slice by slice."""

    def __init__(self, maps: Any, place: np.ndarray, n: int, where: str) -> None:
        self.where = where
        self.maps, self.dtype, self.shape = maps, maps.dtype, (n, *maps.shape[1:])
        self.source = np.full(n, -1)
        self.source[place] = np.arange(len(place))

    def __getitem__(self, rows: slice) -> np.ndarray:
        source = self.source[rows]
        present = np.flatnonzero(source >= 0)
        values = np.zeros((len(source), *self.shape[1:]), self.dtype)
        order = present[np.argsort(source[present])]  # HDF5 wants its rows ascending
        if len(order):
            with hdf5.told(f"{self.where}: rows {source[order[0]]} to {source[order[-1]]}"):
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
    with hdf5.opened(path) as file:
        planned = _categories(path, file, numbers, len(run.classes))
    handle = run.create_analysis(provenance, facts=facts, groups=planned)
    for group in _groups(path, numbers, where, len(run.classes)):
        handle.write(group)


def _groups(
    path: str | Path, numbers: dict[str, int], where: dict[int, int], classes: int
) -> Iterator[GroupAnalysis]:
    """The categories of a file, one after the other."""
    with hdf5.opened(path) as file:
        for number, category in _categories(path, file, numbers, classes).items():
            yield _group(hdf5.member(file, category, path), number, where, f"{path}: {category}")


def _categories(path: str | Path, file: Any, numbers: dict[str, int], classes: int) -> dict[int, str]:
    """The categories of a file by their class, in the order of the file."""
    known: dict[int, str] = {}
    for category in file:
        number = _number(category, numbers, path)
        if number >= classes:
            raise StoreError(
                f"{path}: category {category!r} is class {number}, and there are {classes} classes."
            )
        if number in known:
            raise StoreError(
                f"{path}: categories {known[number]!r} and {category!r} are both class {number}."
            )
        known[number] = category
    return known


def _group(category: Any, number: int, where: dict[int, int], source: str) -> GroupAnalysis:
    index = hdf5.array(hdf5.member(category, "index", source), hdf5.INDEX, f"{source}: index").astype(
        np.int64
    )
    if len(np.unique(index)) < len(index):
        raise StoreError(f"{source}: index names a sample more than once.")
    unknown = [int(row) for row in index if int(row) not in where]
    if unknown:
        raise StoreError(f"{source}: sample {unknown[0]} is not among the attributions.")
    rows = np.array([where[int(row)] for row in index], np.int64)
    order = np.argsort(rows, kind="stable")
    eigenvalues, vectors = np.zeros(0), np.zeros((len(rows), 0))
    pictures = {}
    for name, embedding in _members(category, "embedding", source):
        where_it_is = f"{source}/embedding/{name}"
        values = hdf5.array(embedding, hdf5.EMBEDDING, where_it_is, len(rows))[order]
        if not np.isfinite(values).all():
            raise StoreError(f"{where_it_is}: has numbers that are not finite.")
        if "eigenvalue" in embedding.attrs:
            found = _eigenvalues(embedding, values.shape[1], where_it_is)
            descending = bool((np.diff(found) <= 0).all())  # as it should be: reversed, ties stay in place
            ascending = np.arange(len(found))[::-1] if descending else np.argsort(found, kind="stable")
            eigenvalues, vectors = found[ascending], values[:, ascending]
        elif values.shape[1] >= 2:
            with np.errstate(over="ignore"):
                pictures[name] = values[:, :2].astype(np.float32)
            if not np.isfinite(pictures[name]).all():
                raise StoreError(f"{where_it_is}: has numbers beyond single precision.")
    clusterings = {
        name: Clustering(
            hdf5.array(labels, hdf5.CLUSTERS, f"{source}/cluster/{name}", len(rows))[order].astype(np.int64)
        )
        for name, labels in _members(category, "cluster", source)
    }
    none = np.zeros(0, np.int64)
    gaps = np.diff(eigenvalues)
    k = int(gaps.argmax()) + 1 if len(gaps) else 1
    return GroupAnalysis(
        number, "ok" if len(rows) > 1 else "single", rows[order], none, none, eigenvalues, vectors,
        int((eigenvalues < 1e-9).sum()), k, {}, clusterings, pictures, {"imported": True},
    )  # fmt: skip


def _members(category: Any, name: str, source: str) -> list[tuple[str, Any]]:
    """What lies in a group of a category, which may be left out."""
    if category.get(name, getlink=True, default=None) is None:
        return []
    group = hdf5.member(category, name, source)
    if hasattr(group, "dtype"):
        raise StoreError(f"{source}: expected {name!r} to be a group of data sets, got a data set.")
    return [(key, hdf5.member(group, key, f"{source}/{name}")) for key in group]


def _eigenvalues(embedding: Any, dimensions: int, where: str) -> np.ndarray:
    with hdf5.told(f"{where}: eigenvalue"):
        found = np.asarray(embedding.attrs["eigenvalue"])
        found = found.astype(np.float64) if found.dtype.kind in "fiu" else np.zeros(0)
    if found.shape != (dimensions,) or not np.isfinite(found).all():
        raise StoreError(
            f"{where}: expected {dimensions} finite eigenvalues, one for each dimension, got "
            f"{np.array2string(found, threshold=6)}."
        )
    return found


def _number(category: str, numbers: dict[str, int], path: str | Path) -> int:
    if category in numbers:
        return numbers[category]
    if category == "all":
        return ALL_CLASSES
    if category.isdecimal():
        return int(category)
    raise StoreError(f"{path}: category {category!r} is no class number, and the label map does not know it.")


def _labels(labels: np.ndarray, where: str) -> tuple[np.ndarray, list[list[int]]]:
    """The label of each sample (−1 where it has none or several), and all of them."""
    one_each = labels.ndim == 1 and labels.dtype != bool
    if not one_each and (labels.ndim == 1 or not np.isin(labels, (0, 1)).all()):
        raise StoreError(
            f"{where}: expected {hdf5.LABELS.words}, got {labels.dtype} of shape {labels.shape}."
        )
    every = [[int(it)] if one_each else np.flatnonzero(it).tolist() for it in labels]
    return np.array([row[0] if len(row) == 1 else -1 for row in every], np.int64), every


def _pictures(data: np.ndarray) -> np.ndarray:
    """Thumbnails (n, y, x, channel) of 8 bits; floating-point images are in [0, 1], [−1, 1] or [0, 255]."""
    images = data if channels_last(data.shape) else data.transpose(0, 2, 3, 1)
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
        found = parsed(Path(label_map).read_bytes())
        entries = [
            {"index": it["index"], "id": str(it["word_net_id"]), "name": str(it["name"])} for it in found
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{label_map} is no label map (a list of index, word_net_id, name): {error!r}"
        ) from error
    for name, words in (("index", "class number"), ("id", "word_net_id")):
        values = [entry[name] for entry in entries]
        if twice := [value for value, times in Counter(map(str, values)).items() if times > 1]:
            raise StoreError(
                f"{label_map}: the {words} {twice[0]!r} is there more than once; each names one class."
            )
    for number in (entry["index"] for entry in entries):
        if type(number) is not int or not 0 <= number <= LARGEST:
            raise StoreError(f"{label_map}: index {str(number)[:60]!r} is no class number, from 0 on.")
    return entries


def _names(label_map: str | Path | None) -> dict[int, str]:
    return {entry["index"]: entry["name"] for entry in _label_entries(label_map)}


def _word_nets(label_map: str | Path | None) -> dict[str, int]:
    return {entry["id"]: entry["index"] for entry in _label_entries(label_map)}
