"""Zarr arrays of others, read so that what is not there is told from what is zero."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import zarr

from stores.errors import StoreError

NO_CHUNK = "the source has no chunk for it"
"""Why a row of which a part is absent has failed."""


class Source:
    """A Zarr array whose absent parts can be seen.

    Zarr leaves out chunks that are all fill value (zero, unless told otherwise), so that a lost chunk looks like
    zeros. Read with two fill values, what is absent differs, inside shards also.
    """

    def __init__(self, array: zarr.Array[Any], where: str) -> None:
        self.shape, self.dtype, self.ndim, self.where = array.shape, array.dtype, array.ndim, where
        self._readings = (
            [_filled(array, value) for value in (0, 1)] if np.dtype(array.dtype).kind in "fiub" else [array]
        )

    def read(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Values, and which of them are absent.

        Raises:
            StoreError: a chunk cannot be decoded.
        """
        low, high, _ = rows.indices(self.shape[0]) if self.shape else (0, 0, 1)
        try:
            one, *other = (np.asarray(it[rows] if self.shape else it[...]) for it in self._readings)
        except (RuntimeError, ValueError, OSError, EOFError, TypeError, KeyError) as error:
            raise StoreError(
                f"{self.where}: rows {low} to {high - 1} cannot be read, a chunk is damaged ({error}). Copy the array "
                "again from where it is whole, or write it again."
            ) from error
        absent = (one == 0) & (other[0] == 1) if other else np.zeros(one.shape, bool)
        return one, absent

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Values as floats, NaN where they are absent."""
        values, absent = self.read(rows)
        return np.where(absent, np.nan, values) if absent.any() else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, as NumPy asks for it.

        Raises:
            StoreError: a part is absent, or cannot be decoded.
        """
        values, absent = self.read()
        if absent.any():
            rows = np.flatnonzero(absent.reshape(len(absent), -1).any(axis=1))
            raise StoreError(
                f"{self.where}: {len(rows)} of {len(values)} rows have no chunk (first: row {rows[0]}). They may be "
                "all zero, which Zarr leaves out, or lost. Write the array with config={'write_empty_chunks': True}, "
                "or as .npy."
            )
        return values if dtype is None else values.astype(dtype)


def _filled(array: zarr.Array[Any], value: int) -> zarr.Array[Any]:
    """The same array, as if its fill value were another."""
    scalar = np.dtype(array.dtype).type(value)
    metadata = dataclasses.replace(array.metadata, fill_value=scalar)
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path))
