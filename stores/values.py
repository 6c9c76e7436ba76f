"""Values on their way into a shard: checked against their column, unusable rows failed with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from stores.errors import StoreError
from stores.schema import Column


def clean(
    columns: Sequence[Column], rows: range, values: Mapping[str, Any], failed: dict[int, str], table: str
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Arrays ready to be encoded, by column, and why rows failed, by row number.

    Failed rows hold the column's fill, unless it keeps their values. A row with a non-finite number where the
    column allows none is failed.

    Raises:
        StoreError: a column is missing, unknown, of the wrong shape or type; or a failed row is not of the
            shard.
    """
    _check_names(columns, values, table)
    _check_failed(rows, failed, table)
    arrays = {column.name: _array(column, values[column.name], rows, table) for column in columns}
    reasons = dict(failed)
    for column in columns:
        for index in np.flatnonzero(_unusable(column, arrays[column.name])).tolist():
            reasons.setdefault(rows[index], f"{column.name} is not finite")
    indices = [row - rows.start for row in reasons]
    for column in columns:
        if indices and not column.keep:
            arrays[column.name] = np.array(arrays[column.name])  # it may be the caller's
            arrays[column.name][indices] = column.fill
    return arrays, dict(sorted(reasons.items()))


def _check_names(columns: Sequence[Column], values: Mapping[str, Any], table: str) -> None:
    expected = [column.name for column in columns]
    missing = [name for name in expected if name not in values]
    unknown = [name for name in values if name not in expected]
    if missing or unknown:
        raise StoreError(
            f"{table!r}: a shard is written with all columns at once. Missing: {missing or 'none'}; unknown: "
            f"{unknown or 'none'}; the table's columns are {', '.join(expected)}."
        )


def _check_failed(rows: range, failed: Mapping[int, str], table: str) -> None:
    for row, reason in failed.items():
        if row not in rows or not reason:
            raise StoreError(
                f"{table!r}: failed rows are given as row number of the store → reason, and this shard has "
                f"rows {rows.start} to {rows.stop - 1}; got {row!r}: {reason!r}."
            )


def _array(column: Column, values: Any, rows: range, table: str) -> np.ndarray:
    """An array of the column's dtype; the very one that was given, where it is."""
    where = f"{table!r}, column {column.name!r}"
    if column.dtype == "str":
        return _texts(values, rows, where)
    array = np.asarray(values)
    if array.shape != (len(rows), *column.shape):
        raise StoreError(
            f"{where}: expected shape {(len(rows), *column.shape)} for rows {rows.start} to "
            f"{rows.stop - 1}, got {array.shape}."
        )
    target = np.dtype(column.dtype)
    kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[target.kind]
    if array.dtype.kind not in kinds:
        raise StoreError(f"{where}: holds {target}, got {array.dtype}; convert it first.")
    if target.kind in "iu" and array.size and array.dtype != target:
        bounds = np.iinfo(target)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise StoreError(f"{where}: holds {target}, got values from {array.min()} to {array.max()}.")
    with np.errstate(over="ignore"):  # too large for the dtype becomes infinite, and so a failed row
        return array.astype(target, copy=False)


def _texts(values: Any, rows: range, where: str) -> np.ndarray:
    texts = list(values)
    if len(texts) != len(rows):
        raise StoreError(f"{where}: expected {len(rows)} texts, got {len(texts)}.")
    if not set(map(type, texts)) <= {str}:
        for text in texts:
            if not isinstance(text, str):
                raise StoreError(
                    f"{where}: holds text, got {text!r} of type {type(text).__name__}; use str(…)."
                )
        texts = [*map(str, texts)]
    return np.array([*texts, None], dtype=object)[:-1]


def _unusable(column: Column, array: np.ndarray) -> Bool[np.ndarray, " n"]:
    if not column.dtype.startswith("float") or column.missing or surely_finite(array):
        return np.zeros(len(array), bool)
    return np.asarray(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))


def surely_finite(values: np.ndarray) -> bool:
    """Whether there is no NaN or infinity, by a sum, which either would spoil; one that overflows says no, too."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()))
