"""Analyses in files of CoRelAy: categories with an index, embeddings and clusters, as groups of an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stores.analysis import ALL_CLASSES, Clustering, GroupAnalysis
from stores.errors import StoreError
from stores.exchange import hdf5
from stores.provenance import Json, Provenance
from stores.run import Run


def import_analysis(
    run: Run,
    path: str | Path,
    method: str,
    grid: int,
    numbers: Mapping[str, int],
    where: Mapping[int, int],
    place: int | None = None,
) -> None:
    """Write one file's analysis into a run.

    Args:
        place: of this file among those that are imported, where another has its name: each is an analysis of its own.
        numbers, where: as for ``groups``.
    """
    table = f"relevance/{method}"
    cells = list(run.table(table).columns["input.place"].shape)
    facts = {
        "relevance": table,
        "column": "input.place",
        "group_by": "label",
        "grid": cells,
        "imported": True,
    }
    step: dict[str, Json] = {"name": "import", "format": "virelay", "file": Path(path).name, "grid": grid}
    if place is not None:
        step["place"] = place
    provenance = Provenance((step,), (run.table(table).provenance.id,))
    with hdf5.opened(path) as file:
        planned = _categories(path, file, numbers, len(run.classes))
    handle = run.create_analysis(provenance, facts=facts, groups=planned)
    for group in groups(path, numbers, where, len(run.classes)):
        handle.write(group)


def groups(
    path: str | Path, numbers: Mapping[str, int], where: Mapping[int, int], classes: int
) -> Iterator[GroupAnalysis]:
    """The categories of a file, one after the other.

    Args:
        path: the file.
        numbers: the class of each WordNet id.
        where: the row of each sample of an index.
        classes: how many there are.

    Raises:
        StoreError: a category is of no class, or of one that another is of; a sample is not known; or what is there is
            not what CoRelAy writes.
    """
    with hdf5.opened(path) as file:
        for number, category in _categories(path, file, numbers, classes).items():
            yield _group(hdf5.member(file, category, path), number, where, f"{path}: {category}")


def _categories(path: str | Path, file: Any, numbers: Mapping[str, int], classes: int) -> dict[int, str]:
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


def _group(category: Any, number: int, where: Mapping[int, int], source: str) -> GroupAnalysis:
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


def _number(category: str, numbers: Mapping[str, int], path: str | Path) -> int:
    if category in numbers:
        return numbers[category]
    if category == "all":
        return ALL_CLASSES
    if category.isdecimal():
        return int(category)
    raise StoreError(f"{path}: category {category!r} is no class number, and the label map does not know it.")
