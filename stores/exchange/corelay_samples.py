"""What the files of a ViRelAy project say of its samples: maps, labels, predictions and pictures, by row of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stores.errors import StoreError
from stores.exchange import hdf5
from stores.exchange.arrays import MOST_NUMBERED
from stores.exchange.axes import channels_last
from stores.exchange.virelay import UNKNOWN

Labels = tuple[Int[np.ndarray, " n"], list[list[int]]]
"""The label of each sample (−1 where it has none or several), and all of them."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of an attribution file at their rows, those without a map among them."""

    maps: Placed
    ids: list[str]
    labels: Int[np.ndarray, " n"]
    all_labels: list[list[int]]
    classes: list[str]
    logits: Float[np.ndarray, "n class"] | None
    thumbnails: NDArray[np.uint8] | None
    absent: list[int]
    """Rows without a map."""
    rows: Mapping[int, int]
    """The row of each sample of the index."""

    @classmethod
    def of(
        cls, file: Any, source: str | Path, inputs: str | Path | None, names: Mapping[int, str]
    ) -> Samples:
        """Everything but the maps, which are read later, block by block.

        Raises:
            StoreError: something is not as expected, or does not fit together.
        """
        maps = _maps(file, source)
        count = int(maps.shape[0])
        found = hdf5.array(hdf5.member(file, "label", source), hdf5.LABELS, f"{source}: label", count)
        own = _labels(found, f"{source}: label")
        logits = _optional(file, "prediction", hdf5.LOGITS, source, count)
        if logits is not None and not logits.shape[1]:
            raise StoreError(f"{source}: prediction: expected a number for each class, got none.")
        numbered = _optional(file, "index", hdf5.INDEX, source, count)
        index = np.arange(count) if numbered is None else numbered.astype(np.int64)
        there = None if inputs is None else _Inputs.of(inputs)
        n = count if there is None else len(there.thumbnails)
        place = np.arange(n) if there is None else index
        _check_index(index, place, n, source, inputs)
        absent = sorted(set(range(n)) - set(place.tolist()))
        labels, all_labels = _spread(own[0], place, n, -1), _spread_lists(own[1], place, n)
        if there is not None and there.labels is not None:
            for row in absent:
                labels[row], all_labels[row] = there.labels[0][row], there.labels[1][row]
        labels, classes = _classes(labels, names, None if logits is None else logits.shape[1], source)
        keys = _keys(file, source)
        return cls(
            Placed(maps, place, n, f"{source}: attribution"),
            there.names if there else keys if keys and numbered is None else [str(it) for it in index],
            labels,
            all_labels,
            classes,
            None if logits is None else _spread(logits.astype(np.float64), place, n, np.nan),
            there.thumbnails if there else None,
            absent,
            {int(number): int(row) for number, row in zip(index, place, strict=True)},
        )


@dataclass(frozen=True)
class _Inputs:
    """What the file of inputs tells of every sample, of those without a map, too."""

    thumbnails: np.ndarray
    names: list[str]
    labels: Labels | None

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


class Placed:
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


def _labels(labels: np.ndarray, where: str) -> Labels:
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


def _check_index(
    index: Int[np.ndarray, " m"],
    place: Int[np.ndarray, " m"],
    n: int,
    source: str | Path,
    inputs: str | Path | None,
) -> None:
    """Refuse samples that are not there, or that have several maps."""
    if place.max(initial=-1) >= n:
        raise StoreError(
            f"{source}: index names sample {place.max()}, and {inputs} holds {n}, from number 0 on."
        )
    numbers, times = np.unique(index, return_counts=True)
    if (times > 1).any():
        raise StoreError(
            f"{source}: sample {numbers[times > 1][0]} has {times.max()} maps; a run has one of each sample. "
            "Import each attribution of the same samples by itself."
        )


def _classes(
    labels: Int[np.ndarray, " n"], names: Mapping[int, str], predicted: int | None, source: str | Path
) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Labels without those of our own class of unlabelled samples, and the names of all classes."""
    count = predicted or max(1 + max(names, default=-1), 1 + int(labels.max(initial=-1)))
    if predicted is None and count > MOST_NUMBERED:
        raise StoreError(
            f"{source}: label: the highest class is {count - 1}: that would be {count:,} classes. Labels "
            "count from 0; where that many are meant, the file needs 'prediction' with a column for each."
        )
    unknown = [number for number, name in names.items() if number >= count and name == UNKNOWN]
    known = np.where(np.isin(labels, unknown), -1, labels)
    if known.max(initial=-1) >= count:
        raise StoreError(
            f"{source}: label: class {known.max()} is not among the {count} classes of 'prediction'."
        )
    return known, [names.get(number, f"{number:08d}") for number in range(count)]
