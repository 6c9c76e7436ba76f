"""Maps computed elsewhere that lie in files: arrays, with ids and labels beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from stores.errors import StoreError
from stores.exchange.axes import CHANNELS
from stores.exchange.maps import Report, check_maps, import_maps, load_array
from stores.places import Location
from stores.run import Run

LARGEST = 2**31 - 1
"""No class, sample or cluster has a higher number."""
MOST_NUMBERED = 100_000
"""So many classes at most have numbers for names; a label far beyond is a mistake, or an identity."""


def import_arrays(
    out: Location,
    maps: str | Path,
    *,
    key: str | None = None,
    ids: str | Path | None = None,
    labels: str | Path | None = None,
    classes: str | Path | None = None,
    logits: str | Path | None = None,
    inputs: str | Path | None = None,
    method: str = "imported",
    axes: str | None = None,
    report: Report = lambda done, total, what: None,
) -> Run:
    """Write a run from arrays (``.npy``, ``.npz`` or Zarr) and lists (text, one entry a line).

    Args:
        out: path or URL of the run.
        maps: array (n, y, x), (n, channel, y, x), or (n, y, x, channel) where only the last axis can be colours.
        key: which array of a ``.npz`` or Zarr group the maps are.
        ids: names of the samples; their numbers if left out.
        labels: an array or a list of class indices, or a list of class names; unknown if left out.
        classes: a list of the classes' names; numbered if left out.
        logits: array (n, class).
        inputs: uint8 array (n, y, x) or (n, y, x, channel), for thumbnails.
        method: the table is called "relevance/<method>".
        axes: "channels-first" or "channels-last", where the shape of the maps alone does not tell.
        report: told how far it has come.

    Raises:
        StoreError: a file cannot be read, or the files do not fit together.
    """
    array = load_array(maps, key)
    n = check_maps(array, axes)[0]
    names = [] if classes is None else _lines(classes)
    indices = np.full(n, -1) if labels is None else _labels(labels, names)
    scores = None if logits is None else _logits(logits)
    return import_maps(
        out,
        array,
        ids=list(map(str, range(n))) if ids is None else _lines(ids),
        labels=indices,
        classes=names or _numbered(indices, scores),
        logits=scores,
        thumbnails=None if inputs is None else _pictures(inputs),
        method=method,
        source={"format": "arrays", "maps": Path(maps).name},
        axes=axes,
        report=report,
    )


def _lines(path: str | Path) -> list[str]:
    """Entries between line feeds alone: names may hold what else Unicode calls a line's end."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read as a list, one entry a line ({error}).") from error
    ended = [line.removesuffix("\r") for line in lines]
    return ended[:-1] if ended[-1] == "" else ended


def _numbered(indices: Int[np.ndarray, " n"], scores: Any) -> list[str]:
    """Names of classes that have none: as many as there are logits, or up to the highest label."""
    count = int(indices.max(initial=-1)) + 1 if scores is None else scores.shape[1]
    if count > MOST_NUMBERED:
        raise StoreError(
            f"The highest label is {count - 1}: that would be {count:,} classes. Labels count from 0; where that many "
            "are meant, name them in a list of classes."
        )
    return [str(number) for number in range(max(count, 1))]


def _labels(path: str | Path, names: Sequence[str]) -> Int[np.ndarray, " n"]:
    if Path(path).suffix in (".npy", ".npz") or Path(path).is_dir():
        indices = np.asarray(load_array(path))
        if indices.dtype.kind not in "iu" or indices.ndim != 1 or indices.max(initial=0) > LARGEST:
            raise StoreError(
                f"{path}: expected one class index per sample, got {indices.dtype} of shape {indices.shape}"
                + (f" up to {indices.max()}." if indices.dtype.kind == "u" and indices.size else ".")
            )
        return indices.astype(np.int64)
    known: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        known.setdefault(name, []).append(number)
    return np.array([_label(text, known, path) for text in _lines(path)], np.int64)


def _label(text: str, known: Mapping[str, Sequence[int]], path: str | Path) -> int:
    """The class that a label names, by its name or its number; refused where that may be several."""
    meant = known.get(text, ())
    # As a number is written: int() also takes "1_1" and " 3", which may be names.
    number = int(text) if re.fullmatch(r"-1|[0-9]+", text) else None
    if meant and number is not None and 0 <= number < sum(map(len, known.values())):
        meant = sorted({*meant, number})
    if len(meant) > 1:
        raise StoreError(
            f"{path}: the label {text!r} may be any of the classes {', '.join(map(str, meant))}, by name or by number. "
            "Give labels as an array of numbers (.npy)."
        )
    if meant:
        return meant[0]
    if number is not None and number <= LARGEST:
        return number
    raise StoreError(
        f"{path}: the label {text!r} is no class's number and none of the {len(known)} classes. Name the classes "
        "in the order of their numbers, or give numbers; -1 is unknown."
    )


def _logits(path: str | Path) -> Any:
    scores = load_array(path)
    if len(scores.shape) != 2 or scores.shape[1] == 0 or np.dtype(scores.dtype).kind not in "fiu":
        raise StoreError(
            f"{path}: expected logits, numbers of shape (n, class), got {scores.dtype} of shape {tuple(scores.shape)}."
        )
    return scores


def _pictures(path: str | Path) -> Any:
    pictures = load_array(path)
    shape = tuple(pictures.shape)
    if (
        pictures.dtype != np.uint8
        or len(shape) not in (3, 4)
        or (len(shape) == 4 and shape[3] not in CHANNELS)
    ):
        channels_first = len(shape) == 4 and shape[1] in CHANNELS
        raise StoreError(
            f"{path}: expected uint8 pictures (n, y, x) or (n, y, x, channel) with 1, 3 or 4 channels, got "
            f"{pictures.dtype} of shape {shape}."
            + (" Put the channels last: array.transpose(0, 2, 3, 1)." if channels_first else "")
        )
    return np.asarray(pictures)[..., None] if len(shape) == 3 else pictures
