"""The model as text for the browser: one JSON for the page, one for the samples of each class."""

from __future__ import annotations

import dataclasses
import json
import math
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from reports.images import atlas, packed, quantise
from reports.model import Group, ReportModel, Subject
from reports.theme import CLUSTER_COLOURS, COLOUR_MAPS, LEVELS

EIGENVALUES = 30


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` can close it, no line separator breaks it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate has no UTF-8 form: it travels as its escape.
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text)


def finite(value: Any) -> Any:
    """The value with NaN and infinity as null, for JSON."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def writer() -> str:
    """Which program wrote the report."""
    try:
        return f"spray-audit {version('spray-audit')}"
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "spray-audit"


def page_payload(model: ReportModel, verdicts: list[Any], figures: list[Any]) -> dict[str, Any]:
    """Everything the page knows before a class is opened."""
    content = {
        "title": model.title,
        "store": model.store,
        "analysis": model.analysis,
        "writer": writer(),
        "classes": model.classes,
        "groups": [group_payload(group) for group in model.groups],
        "ranking": model.ranking,
        "facts": dict(model.facts),
        "configuration": dict(model.configuration),
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
        "palette": CLUSTER_COLOURS,
        "levels": LEVELS,
        "maps": {
            name: {"title": entry.title, "table": packed(entry.table())["data"]}
            for name, entry in COLOUR_MAPS.items()
        },
    }
    plain: dict[str, Any] = finite(content)
    return {**plain, "figures": figures}


def group_payload(group: Group) -> dict[str, Any]:
    """One class without its samples."""
    analysis = group.analysis
    return {
        "index": group.index,
        "name": group.name,
        "n": len(analysis.rows),
        "status": analysis.status,
        "suspicion": group.suspicion,
        "flagged": group.flagged,
        "strategies": analysis.strategies,
        "components": analysis.components,
        "eigenvalues": np.round(np.asarray(analysis.eigenvalues, float)[:EIGENVALUES], 6).tolist(),
        "eigengap": dict(analysis.eigengap),
        "zero": len(analysis.zero_rows),
        "invalid": len(analysis.invalid_rows),
        "subjects": [subject_payload(subject) for subject in group.subjects],
    }


def subject_payload(subject: Subject) -> dict[str, Any]:
    """A finding or cluster without its members."""
    content: dict[str, Any] = {
        "key": subject.key,
        "kind": subject.kind,
        "name": subject.name,
        "clustering": subject.clustering,
        "n": len(subject.members),
        "digest": subject.digest,
        "accuracy": subject.accuracy,
        "confidence": subject.confidence,
        "score": subject.score,
        "flagged": subject.flagged,
    }
    finding = subject.finding
    if finding is None:
        return content
    return content | {
        "parts": dict(finding.parts),
        "evidence": dict(finding.evidence),
        "summary": finding.summary,
        "notes": list(finding.notes),
        "region": None if finding.region is None else packed(finding.region.astype(np.uint8)),
        "mean_map": None if finding.mean_map is None else packed(quantise(finding.mean_map[None])[0][0]),
    }


def chunk_payload(run: Any, model: ReportModel, group: Group) -> dict[str, Any]:
    """The samples of one class: columns, members by subject, pictures and maps."""
    samples = group.samples
    content = {
        "index": group.index,
        "n": len(samples.rows),
        "ids": list(samples.ids),
        "metadata": {name: list(values) for name, values in samples.metadata.items()},
        "rows": packed(samples.rows.astype(np.uint32)),
        "label": packed(samples.label.astype(np.int16)),
        "prediction": packed(samples.prediction.astype(np.int16)),
        "confidence": packed(samples.confidence.astype(np.float32)),
        "pictures": {
            name: packed(np.asarray(picture, dtype=np.float32))
            for name, picture in group.analysis.pictures.items()
        },
        "labels": {
            name: packed(np.asarray(result.labels, dtype=np.int16))
            for name, result in group.analysis.clusterings.items()
        },
        "members": {subject.key: packed(subject.members.astype(np.uint32)) for subject in group.subjects},
        "maps": None,
        "scale": None,
        "atlas": None,
    }
    return content | relevance_payload(run, model, group) | thumbnail_payload(run, group)


def relevance_payload(run: Any, model: ReportModel, group: Group) -> dict[str, Any]:
    """The class's relevance maps over place, as gzipped int8 with a scale each."""
    table = run.table(model.facts["relevance"])
    column = "input.place"
    if column not in table.columns or not len(group.samples.rows):
        return {}
    codes, scale = quantise(np.asarray(table.read(column, group.samples.rows)))
    return {"maps": packed(codes, compress=True), "scale": packed(np.nan_to_num(scale))}


def thumbnail_payload(run: Any, group: Group) -> dict[str, Any]:
    """The class's thumbnails as one WebP atlas."""
    if "thumbnail" not in run.samples.columns or not len(group.samples.rows):
        return {}
    sheet = atlas(np.asarray(run.samples.read("thumbnail", group.samples.rows)))
    if sheet is None:
        return {}
    return {
        "atlas": {
            "columns": sheet.columns,
            "stride": list(sheet.stride),
            "size": list(sheet.size),
            "data": packed(np.frombuffer(sheet.webp, dtype=np.uint8))["data"],
        }
    }
