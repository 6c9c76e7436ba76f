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
_PICTURES = "pictures"


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
    pictures = [picture for finding in findings for _, picture in sorted(finding.pictures.items())]
    if pictures:
        arrays[_PICTURES] = _joined(pictures, np.uint8)
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
    queues = {name: _Queue(values) for name, values in arrays.items()}
    findings = []
    for record in content["findings"]:
        values = {name: queues[name].take(shape) for name, shape in record.pop("shapes").items()}
        pictures = {name: queues[_PICTURES].take(shape) for name, shape in record.pop(_PICTURES, {}).items()}
        record["clusters"], record["notes"] = tuple(record["clusters"]), tuple(record["notes"])
        findings.append(Finding(**record, **values, pictures=pictures))
    return findings, Provenance.from_json(content["provenance"])


class _Queue:
    """Arrays that lie end to end in one, taken from the front."""

    def __init__(self, flat: np.ndarray) -> None:
        self.flat, self.taken = flat, 0

    def take(self, shape: Sequence[int] | None) -> Any:
        """The next one, of this shape; None takes nothing."""
        if shape is None:
            return None
        start, self.taken = self.taken, self.taken + math.prod(shape)
        return self.flat[start : self.taken].reshape(shape)


def _record(finding: Finding) -> dict[str, Json]:
    shapes: dict[str, Json] = {}
    for name in _ARRAYS:
        values = getattr(finding, name)
        shapes[name] = None if values is None else list(np.shape(values))
    pictures: dict[str, Json] = {
        name: list(np.shape(picture)) for name, picture in sorted(finding.pictures.items())
    }
    record: dict[str, Json] = {
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
    return record | {_PICTURES: pictures} if pictures else record


def _joined(arrays: Sequence[Any], dtype: type) -> np.ndarray:
    flat: list[np.ndarray] = [np.asarray(values, dtype).ravel() for values in arrays if values is not None]
    return np.concatenate([np.zeros(0, dtype), *flat])
