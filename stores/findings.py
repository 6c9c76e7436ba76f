"""Findings as files of a store and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stores.analysis import Finding
from stores.encoding import decode_group, encode_group
from stores.errors import Damaged, StoreError
from stores.provenance import Json, Provenance, to_json
from stores.schema import content_of, element

_ARRAYS = {"rows": np.int64, "region": np.bool_, "mean_map": np.float32}


def encode_findings(findings: Sequence[Finding], provenance: Provenance) -> dict[str, bytes]:
    """The files of a ranked list: one document, and the arrays of all findings laid end to end.

    Raises:
        StoreError: two findings have one name, or a figure is NaN or infinite.
    """
    names = [finding.name for finding in findings]
    if len(set(names)) != len(names):
        raise StoreError(
            f"two findings of one analysis have the same name; the names are {', '.join(names)}."
        )
    arrays = {
        name: _joined([getattr(finding, name) for finding in findings], dtype)
        for name, dtype in _ARRAYS.items()
    }
    content: dict[str, Json] = {
        "findings": [_record(finding) for finding in findings],
        "provenance": provenance.to_json(),
    }
    return encode_group(element("findings", content), arrays)


def decode_findings(files: Mapping[str, bytes], where: str) -> tuple[list[Finding], Provenance]:
    """The inverse of ``encode_findings``."""
    attributes, arrays = decode_group(files)
    content = content_of(attributes, "findings", where)
    if content is None:
        raise Damaged(f"{where}: these are not findings.")
    taken = dict.fromkeys(_ARRAYS, 0)
    findings = []
    for record in content["findings"]:
        values: dict[str, Any] = {}
        for name, shape in record.pop("shapes").items():
            length = math.prod(shape) if shape is not None else 0
            piece = arrays[name][taken[name] : taken[name] + length]
            values[name] = None if shape is None else piece.reshape(shape)
            taken[name] += length
        record["clusters"], record["notes"] = tuple(record["clusters"]), tuple(record["notes"])
        findings.append(Finding(**record, **values))
    return findings, Provenance.from_json(content["provenance"])


def _record(finding: Finding) -> dict[str, Json]:
    shapes: dict[str, Json] = {}
    for name in _ARRAYS:
        values = getattr(finding, name)
        shapes[name] = None if values is None else list(np.shape(values))
    return {
        "name": finding.name,
        "group": int(finding.group),
        "clustering": finding.clustering,
        "clusters": [int(cluster) for cluster in finding.clusters],
        "score": float(finding.score),
        "flagged": bool(finding.flagged),
        "parts": to_json(dict(finding.parts)),
        "evidence": to_json(dict(finding.evidence)),
        "summary": finding.summary,
        "notes": list(finding.notes),
        "shapes": shapes,
    }


def _joined(arrays: Sequence[Any], dtype: type) -> np.ndarray:
    flat: list[np.ndarray] = [np.asarray(values, dtype).ravel() for values in arrays if values is not None]
    return np.concatenate([np.zeros(0, dtype), *flat])
