"""Relevance maps computed elsewhere, as arrays, into a run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stores.errors import StoreError
from stores.exchange.axes import channels_last
from stores.exchange.zarrs import NO_CHUNK, Source
from stores.places import Location
from stores.provenance import Provenance
from stores.run import Run, create
from stores.schema import Column, sample_columns
from stores.tables import Table

_SHARD_BYTES = 64 * 2**20
Report = Callable[[int, int, str], object]
"""Told, while an import goes on, how many rows of how many are there, and of what."""


def import_maps(
    out: Location,
    maps: Any,
    *,
    ids: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    logits: Any = None,
    thumbnails: Any = None,
    method: str = "imported",
    grid: int = 28,
    full: bool = True,
    source: Mapping[str, Any] | None = None,
    missing: Mapping[int, str] | None = None,
    metadata: Mapping[str, Sequence[str]] | None = None,
    axes: str | None = None,
    report: Report = lambda done, total, what: None,
) -> Run:
    """Write a run from maps, read block by block: a memory map or Zarr array never fills memory.

    Args:
        out: path or URL of the run; one that is there and was made from the same is completed.
        maps: (n, channel, y, x), (n, y, x), or (n, y, x, channel) where only the last axis can be colours; anything
            that slices like an array. A row with a NaN is a failed row. One of which a Zarr ``Source`` lacks a
            chunk is one too: it may be zero, or lost.
        ids: names of the samples.
        labels: class indices, −1 where unknown.
        classes: names of the classes.
        logits: (n, class), if known; the prediction is their largest, and unknown (−1) where one is NaN.
        thumbnails: (n, y, x, channel) uint8, if there are any.
        method: the table is called "relevance/<method>".
        grid: pooled maps have at most this many cells a side.
        full: whether to keep the maps themselves too.
        source: where the maps come from, for the provenance.
        missing: rows that have no map, with the reason.
        metadata: further columns of text.
        axes: "channels-first" or "channels-last", where the shape alone does not tell (``stores.exchange.axes``).
        report: told how far it has come.

    Raises:
        StoreError: lengths, shapes or types do not fit together.
    """
    if not method:
        raise StoreError("The table of the maps needs a name: give a method, such as 'imported'.")
    n, shape = check_maps(maps, axes)
    labels = _labels(labels, len(classes))
    per_sample = {"ids": ids, "labels": labels, "logits": logits, "thumbnails": thumbnails}
    _check_lengths(n, per_sample | {f"metadata {name}": column for name, column in (metadata or {}).items()})
    run = create(
        out, classes=classes, samples=n, provenance={"imported": dict(source or {}), "method": method}
    )
    cells = (min(grid, shape[1]), min(grid, shape[2]))
    step = {"name": "import", "method": method, "grid": list(cells), **(source or {})}
    last = channels_last(maps.shape, axes)
    if last:
        step["axes"] = "n, y, x, channel"
    provenance = Provenance((step,))
    rows = max(1, _SHARD_BYTES // (4 * int(np.prod(shape))))

    columns = sample_columns(
        len(classes),
        thumbnail=None if thumbnails is None else _three(thumbnails.shape[1:]),
        metadata=dict.fromkeys(metadata or {}, "str"),
    )
    if logits is None or missing:
        unknown = Column("logits", "float32", (len(classes),), ("class",), missing=True)
        columns = [unknown if column.name == "logits" else column for column in columns]
    samples = run.create_table("samples", columns, rows_per_shard=rows, provenance=provenance)

    def of_samples(low: int, high: int) -> dict[str, Any]:
        scores = (
            np.full((high - low, len(classes)), np.nan) if logits is None else np.asarray(logits[low:high])
        )
        values: dict[str, Any] = {
            "id": list(ids[low:high]),
            "label": labels[low:high],
            "prediction": np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1)),
            "logits": scores,
        }
        if thumbnails is not None:
            values["thumbnail"] = np.asarray(thumbnails[low:high])
        return values | {f"meta.{name}": list(column[low:high]) for name, column in (metadata or {}).items()}

    absent = dict(missing or {})

    def of_maps(low: int, high: int) -> dict[str, Any]:
        block, holes = _block(maps, low, high, shape, last)
        absent.update(dict.fromkeys((low + holes).tolist(), NO_CHUNK))
        return _relevance(block, labels[low:high], cells, full)

    fill(samples, of_samples, {}, report)
    table = run.create_table(
        f"relevance/{method}",
        _relevance_columns(shape, cells, full),
        rows_per_shard=rows,
        provenance=provenance,
    )
    fill(table, of_maps, absent, report)
    return run


def load_array(path: str | Path, key: str | None = None) -> Any:
    """A ``.npy`` (memory-mapped), one array of a ``.npz``, or a Zarr array; nothing is ever unpickled.

    Raises:
        StoreError: the file cannot be read as such, holds objects, or ``key`` does not say which array.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if key is None and len(archive.files) == 1:
                    key = archive.files[0]
                if key not in archive.files:
                    raise StoreError(f"{path} holds {', '.join(archive.files)}; say which of them is meant.")
                return np.asarray(archive[key])
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        import zarr

        return Source(zarr.open_array(str(path), path=key or "", mode="r"), str(path))
    except StoreError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"{path} cannot be read as an array ({error}). Expected .npy, .npz or a Zarr array of numbers; "
            "arrays of objects are not taken, save them as numbers or text."
        ) from error


def pooled(maps: Float[np.ndarray, "n c y x"], cells: tuple[int, int]) -> Float[np.ndarray, "n h w"]:
    """Sums over channels and over equal cells, pixels at a border shared by their overlap: ΣR is kept."""
    vertical, horizontal = (_shares(size, count) for size, count in zip(maps.shape[2:], cells, strict=True))
    return np.asarray(vertical @ maps.sum(axis=1) @ horizontal.T)


def fill(
    table: Table, values: Callable[[int, int], dict[str, Any]], failed: Mapping[int, str], report: Report
) -> None:
    """Write every shard, each from ``values(first row, one past the last)``; those that are there are compared.

    ``values`` may add to ``failed``: it is looked at after the call.

    Raises:
        StoreError: a shard is there already, with other values: it was imported from other files.
    """
    for shard in range(len(table.shards)):
        rows = table.shards[shard]
        found = values(rows.start, rows.stop)
        table.write(shard, found, {row: why for row, why in failed.items() if row in rows})
        report(rows.stop, table.n, f"import {table.name}")


def _shares(size: int, cells: int) -> Float[np.ndarray, "cells size"]:
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None))


def _relevance(
    maps: Float[np.ndarray, "n c y x"], labels: np.ndarray, cells: tuple[int, int], full: bool
) -> dict[str, Any]:
    n = len(maps)
    exact = maps.astype(np.float64)
    values: dict[str, Any] = {
        "input.place": pooled(exact, cells),
        "start": np.full(n, np.nan),
        "sum": exact.sum(axis=(1, 2, 3)),
        "absolute": np.abs(exact).sum(axis=(1, 2, 3)),
        "absorbed": np.full(n, np.nan),
        "target": labels,
    }
    return values | ({"input.full": maps} if full else {})


def _relevance_columns(shape: tuple[int, int, int], cells: tuple[int, int], full: bool) -> list[Column]:
    columns = [Column("input.place", "float32", cells, ("y", "x"))]
    if full:
        columns.append(Column("input.full", "float32", shape, ("channel", "y", "x"), "scaled_float16"))
    unknown = [Column(name, "float64", missing=True) for name in ("start", "absorbed")]
    return [
        *columns,
        *unknown,
        Column("sum", "float64"),
        Column("absolute", "float64"),
        Column("target", "int64"),
    ]


def check_maps(maps: Any, axes: str | None = None) -> tuple[int, tuple[int, int, int]]:
    """Their number, and the shape (channel, y, x) of one.

    Raises:
        StoreError: no maps, or empty ones; or which axis their channels are on is not known.
    """
    shape, dtype = tuple(maps.shape), np.dtype(maps.dtype)
    if len(shape) not in (3, 4) or dtype.kind not in "fiu" or 0 in shape[1:]:
        raise StoreError(
            f"maps: expected numbers of shape (n, channel, y, x) or (n, y, x), got {dtype} of shape {shape}."
        )
    if channels_last(shape, axes):
        shape = (*shape[:1], shape[3], *shape[1:3])
    if not shape[0]:
        raise StoreError(f"maps: there are none, the array is of shape {shape}. Give one for each sample.")
    return shape[0], _three(shape[1:] if len(shape) == 4 else (1, *shape[1:]))


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    one, two, three = (int(length) for length in shape)
    return one, two, three


def _block(
    maps: Any, low: int, high: int, shape: tuple[int, int, int], last: bool
) -> tuple[Float[np.ndarray, "n c y x"], Int[np.ndarray, " hole"]]:
    """Maps, and which of them lack a part in the source."""
    values, absent = maps.read(slice(low, high)) if isinstance(maps, Source) else (maps[low:high], None)
    if last:
        values = np.moveaxis(np.asarray(values), 3, 1)
    with np.errstate(over="ignore"):  # what is too large for single precision is infinite, and a failed row
        block = np.asarray(values, np.float32).reshape(-1, *shape)
    holes = () if absent is None else np.flatnonzero(absent.reshape(len(absent), -1).any(axis=1))
    return np.where(np.isfinite(block), block, np.float32(np.nan)), np.asarray(holes, np.int64)


def _labels(labels: Any, classes: int) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise StoreError(
            f"labels: expected one class index per sample, got {array.dtype} of shape {array.shape}."
        )
    array = array.astype(np.int64)
    wrong = np.flatnonzero((array < -1) | (array >= classes))
    if len(wrong):
        raise StoreError(
            f"labels: {len(wrong)} are not among the {classes} classes (first: {array[wrong[0]]} at row "
            f"{wrong[0]}); use -1 for an unknown class, or name all classes."
        )
    return array


def _check_lengths(n: int, columns: Mapping[str, Any]) -> None:
    counts = {name: _count(column) for name, column in columns.items() if column is not None}
    wrong = {name: count for name, count in counts.items() if count != n}
    if wrong:
        raise StoreError(f"there are {n} maps, but of {wrong}; give one of each per map, in the same order.")


def _count(column: Any) -> int:
    """Its rows; an array of Zarr has no length."""
    return int(column.shape[0]) if hasattr(column, "shape") else len(column)
