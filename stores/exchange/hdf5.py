"""Members of HDF5 files from strangers: each one checked against what it has to be before it is believed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.errors import StoreError
from stores.exchange.arrays import LARGEST
from stores.exchange.virelay import h5py_module

DEEPEST = 4
"""Groups within groups: category/embedding/name, and one to spare. Hard links can make endless ones."""


@dataclass(frozen=True)
class Expected:
    """What a member has to be."""

    words: str
    kinds: str
    """Letters of NumPy's kinds of numbers."""
    axes: tuple[int, ...]
    """How many it may have."""
    least: int | None = None
    """Least value; the largest of these is 2³¹ − 1. None: any."""


MAPS = Expected("numbers (n, channel, y, x), (n, y, x, channel) or (n, y, x)", "fiu", (3, 4))
LABELS = Expected(
    "one class index per sample (-1 where unknown), or a table of booleans (n, class)", "biu", (1, 2), -1
)
LOGITS = Expected("numbers (n, class)", "fiu", (2,))
INDEX = Expected("one number of a sample, from 0 on, per row", "iu", (1,), 0)
PICTURES = Expected("numbers (n, channel, y, x) or (n, y, x, channel)", "fiu", (4,))
CLUSTERS = Expected("one cluster number (-1 for none) per sample of the index", "iu", (1,), -1)
EMBEDDING = Expected("numbers (sample of the index, dimension)", "fiu", (2,))


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """What h5py says of a member that is damaged, or leads nowhere, in words.

    Raises:
        StoreError: instead of whatever h5py raises.
    """
    try:
        yield
    except StoreError:
        raise
    except (KeyError, RuntimeError, OSError, TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"{where} cannot be read: the file is damaged, or this is a link to nothing ({error}). "
            "Write the file again, or copy it again from where it is whole."
        ) from error


def opened(path: str | Path) -> Any:
    """An HDF5 file, for reading, all of whose data lie in itself.

    Raises:
        StoreError: it is no HDF5, is damaged, or names other files as parts of itself.
    """
    try:
        file = h5py_module().File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} cannot be opened as HDF5: {error}") from error
    try:
        with told(str(path)):
            _refuse_other_files(file, path)
    except StoreError:
        file.close()
        raise
    return file


def member(group: Any, name: str, source: str | Path) -> Any:
    """A data set or a group.

    Raises:
        StoreError: it is not there, leads nowhere, or is neither.
    """
    h5py = h5py_module()
    if not isinstance(group, h5py.Group):
        raise StoreError(f"{source}: expected a group with {name!r} in it, got a data set.")
    with told(f"{source}: {name}"):
        if group.get(name, getlink=True, default=None) is None:
            raise StoreError(f"{source}: has no {name!r}; it has {', '.join(group) or 'nothing'}.")
        found = group[name]
        if not isinstance(found, h5py.Dataset | h5py.Group):
            raise StoreError(f"{source}: {name!r} is neither a data set nor a group, but {found!r}.")
        return found


def array(found: Any, expected: Expected, where: str, count: int | None = None) -> np.ndarray:
    """A data set, or a group of one data set per sample (in the order of its keys), as one array.

    ``count`` is the number of rows there have to be.

    Raises:
        StoreError: it is not what is expected, or was not written whole.
    """
    with told(where):
        values = _values(found, where)
    check(values, expected, where, count)
    if expected.least is not None and values.size:
        low, high = int(values.min()), int(values.max())
        if low < expected.least or high > LARGEST:
            raise StoreError(f"{where}: expected {expected.words}, got numbers from {low} to {high}.")
    return values


def names(found: Any) -> list[str] | None:
    """What a group of one data set per sample calls the samples, in their order; None of a data set."""
    return None if hasattr(found, "dtype") else list(found)


def check(data: Any, expected: Expected, where: str, count: int | None = None) -> None:
    """Kind, axes and length of an array, or of a data set that is not read yet.

    Raises:
        StoreError: they are not what is expected.
    """
    shape = data.shape
    if shape is None or data.dtype.kind not in expected.kinds or len(shape) not in expected.axes:
        raise StoreError(
            f"{where}: expected {expected.words}, got {data.dtype} of shape {'none' if shape is None else shape}."
        )
    if count is not None and shape[0] != count:
        raise StoreError(
            f"{where}: expected {count} rows, one for each map or entry of the index, got {shape[0]}."
        )


def check_written(data: Any, where: str) -> None:
    """That all of a data set was written: what never was reads as zeros.

    Raises:
        StoreError: some, or all of it, was not.
    """
    if not data.size:
        return
    if data.chunks is None:
        absent, whole = int(data.id.get_storage_size() == 0), 1
    else:
        whole = math.prod(-(-length // chunk) for length, chunk in zip(data.shape, data.chunks, strict=True))
        absent = whole - data.id.get_num_chunks()
    if absent > 0:
        raise StoreError(
            f"{where}: {absent} of {whole} chunks were never written and would read as zeros. The program that made "
            "the file did not come to its end: run it again, or cut the data set to what was written."
        )


def _values(found: Any, where: str) -> np.ndarray:
    if not hasattr(found, "dtype"):
        pieces = [_values(member(found, key, where), f"{where}/{key}") for key in found]
        shapes = sorted({piece.shape for piece in pieces})
        if len(shapes) > 1:
            raise StoreError(
                f"{where}: entries of different shapes ({shapes[0]}, {shapes[1]}, …) have no common "
                "map; bring them to one size first."
            )
        return np.stack(pieces) if pieces else np.zeros(0)
    if found.shape is None:
        raise StoreError(f"{where}: the data set is empty, without even a shape.")
    check_written(found, where)
    values = np.asarray(found)
    if values.dtype.kind not in "fiub":
        raise StoreError(f"{where}: expected numbers, got {values.dtype}.")
    return values


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
        found = group[name]
        if isinstance(found, h5py.Group):
            if depth >= DEEPEST:
                raise StoreError(f"{where} lies deeper than any file of ViRelAy or CoRelAy has groups.")
            _refuse_other_files(found, path, depth + 1)
        elif isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
            raise StoreError(f"{where} lies in another file; copy the data into the file.")
