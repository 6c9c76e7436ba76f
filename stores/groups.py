"""Groups: analyses of one class each as files of a store and back, and the groups that only hold others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from stores.analysis import ALL_CLASSES, Clustering, GroupAnalysis
from stores.encoding import decode_group, encode_group, group_document
from stores.errors import Damaged, StoreError
from stores.floor import Floor
from stores.names import safe_key
from stores.provenance import Json, to_json
from stores.schema import content_of, element

_FIELDS = ("rows", "zero_rows", "invalid_rows", "eigenvalues", "vectors")


def group_key(group: int) -> str:
    """Where a group lies in its analysis: "c0", "c1", …, or "all"."""
    return "all" if group == ALL_CLASSES else f"c{group}"


def group_number(key: str) -> int:
    """The inverse of ``group_key``."""
    return ALL_CLASSES if key == "all" else int(key.removeprefix("c"))


def is_group(key: str) -> bool:
    """Whether a key is that of a group."""
    return re.fullmatch(r"all|c(0|[1-9][0-9]*)", key) is not None


def ensure_group(floor: Floor, name: str) -> None:
    """Write the document of a group that says nothing of itself, "relevance" or "analyses", where it is not there."""
    document = group_document({})
    if floor.size(f"{name}/zarr.json") != len(document):
        floor.put(f"{name}/zarr.json", document)


def encode_group_analysis(group: GroupAnalysis) -> dict[str, bytes]:
    """The files of a group.

    Raises:
        StoreError: its arrays do not agree in length, or a figure is NaN or infinite.
    """
    arrays = {name: np.asarray(getattr(group, name)) for name in _FIELDS}
    clusterings: dict[str, Json] = {}
    for name, clustering in group.clusterings.items():
        key = safe_key(name)
        clusterings[name] = {"key": key, "parameters": to_json(dict(clustering.parameters))}
        arrays[f"labels.{key}"] = np.asarray(clustering.labels)
        if clustering.outlier is not None:
            arrays[f"outlier.{key}"] = np.asarray(clustering.outlier)
    pictures: dict[str, Json] = {name: {"key": safe_key(name)} for name in group.pictures}
    for name, picture in group.pictures.items():
        arrays[f"picture.{safe_key(name)}"] = np.asarray(picture)
    _check(group, arrays)
    content: dict[str, Json] = {
        "group": int(group.group),
        "status": group.status,
        "components": int(group.components),
        "strategies": int(group.strategies),
        "eigengap": to_json(dict(group.eigengap)),
        "clusterings": clusterings,
        "pictures": pictures,
        "facts": to_json(dict(group.facts)),
    }
    return encode_group(element("group analysis", content), arrays)


def decode_group_analysis(files: Mapping[str, bytes], where: str) -> GroupAnalysis:
    """The inverse of ``encode_group_analysis``."""
    attributes, arrays = decode_group(files)
    content = content_of(attributes, "group analysis", where)
    if content is None:
        raise Damaged(f"{where}: this is no group analysis.")
    clusterings = {
        name: Clustering(arrays[f"labels.{it['key']}"], arrays.get(f"outlier.{it['key']}"), it["parameters"])
        for name, it in content.pop("clusterings").items()
    }
    pictures = {name: arrays[f"picture.{it['key']}"] for name, it in content.pop("pictures").items()}
    fields: dict[str, Any] = {name: arrays[name] for name in _FIELDS}
    return GroupAnalysis(**content, **fields, clusterings=clusterings, pictures=pictures)


def _check(group: GroupAnalysis, arrays: Mapping[str, np.ndarray]) -> None:
    m = len(arrays["rows"])
    per_sample = [name for name in arrays if name == "vectors" or "." in name]
    wrong = {name: arrays[name].shape for name in per_sample if len(arrays[name]) != m}
    if arrays["vectors"].ndim != 2 or arrays["vectors"].shape[1:] != arrays["eigenvalues"].shape:
        wrong["vectors"] = arrays["vectors"].shape
    if wrong:
        raise StoreError(
            f"group {group.group}: {m} analysed rows and {len(arrays['eigenvalues'])} eigenvalues, but the "
            "shapes are "
            + ", ".join(f"{name} {shape}" for name, shape in wrong.items())
            + ". Every array over samples follows `rows`; vectors are (rows, eigenvalues)."
        )
    if m and (np.diff(arrays["rows"]) <= 0).any():
        raise StoreError(f"group {group.group}: row numbers must be ascending and each once.")
