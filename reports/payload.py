"""The model as plain values for the browser: what the page knows from the start, and the samples of a class."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Float, Int8

from reports.images import packed, quantise
from reports.model import Group, ReportModel, Subject, spectral_unit
from reports.theme import CLUSTER_COLOURS, COLOUR_MAPS, LEVELS, SCALES
from reports.verdicts import overlaps
from stores import Verdict
from stores.analysis import is_tested
from stores.judgements import INHERITED_FROM

SURROGATE = re.compile("[\ud800-\udfff]")
EIGENVALUES = 30
VECTORS = 8
"""Eigenvectors that travel, as int8, so that the page can measure distances in the spectral embedding."""
CODED = 2**16
"""A column of metadata with fewer values than this travels as codes."""


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` can close it, no line separator breaks it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate has no UTF-8 form: it travels as its escape.
    return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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


def page_payload(
    models: Sequence[ReportModel], verdicts: Sequence[Verdict], figures: list[Any]
) -> dict[str, Any]:
    """Everything the page knows before a class is opened; the first model is the one shown at first."""
    first = models[0]
    content = {
        "title": first.title,
        "store": first.store,
        "writer": writer(),
        "classes": first.classes,
        "analyses": [
            {**analysis_payload(model), "overlaps": overlap_payload(model, verdicts)} for model in models
        ],
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
        "palette": CLUSTER_COLOURS,
        "scales": SCALES,
        "levels": LEVELS,
        "inherited_from": INHERITED_FROM,
        "maps": {
            name: {"title": entry.title, "table": packed(entry.table())["data"]}
            for name, entry in COLOUR_MAPS.items()
        },
    }
    plain: dict[str, Any] = finite(content)
    return {**plain, "figures": figures}


def overlap_payload(model: ReportModel, verdicts: Sequence[Verdict]) -> dict[str, list[Any]]:
    """``overlaps`` with keys of text: what the verdict is about, a colon, its digest."""
    return {f"{kind}:{digest}": list(best) for (kind, digest), best in overlaps(model, verdicts).items()}


def analysis_payload(model: ReportModel) -> dict[str, Any]:
    """One analysis: its facts, and its classes without their samples."""
    return {
        "analysis": model.analysis,
        "name": model.name,
        "groups": [group_payload(group) for group in model.groups],
        "ranking": model.ranking,
        "facts": dict(model.facts),
        "relevance": relevance_title(str(model.facts["relevance"])),
        "configuration": dict(model.configuration),
    }


def relevance_title(name: str) -> str:
    """What a reader calls a relevance table."""
    return name.removeprefix("relevance/").replace("_", " ")


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
        "notes": [note for note in finding.notes if note not in finding.summary],
        "region": None if subject.region is None else packed(subject.region.astype(np.uint8)),
        "mean_map": None if finding.mean_map is None else packed(quantise(finding.mean_map[None])[0][0]),
        "tested": is_tested(finding),
        "pictured": bool(finding.pictures),
    }


def chunk_payload(group: Group, pictures: Pictures) -> dict[str, Any]:
    """The samples of one class: columns, members by subject, and where their pictures are."""
    samples = group.samples
    return {
        "index": group.index,
        "n": len(samples.rows),
        "ids": list(samples.ids),
        "metadata": {name: column_payload(values) for name, values in samples.metadata.items()},
        "rows": packed(samples.rows.astype(np.uint32)),
        "label": packed(samples.label.astype(np.int16)),
        "prediction": packed(samples.prediction.astype(np.int16)),
        "confidence": packed(samples.confidence.astype(np.float32)),
        "vectors": packed(np.rint(LEVELS * spectral_unit(group.analysis)[:, :VECTORS]).astype(np.int8)),
        "pictures": {name: packed(picture) for name, picture in pictures_of(group).items()},
        "labels": {
            name: packed(np.asarray(result.labels, dtype=np.int16))
            for name, result in group.analysis.clusterings.items()
        },
        "members": {subject.key: packed(subject.members.astype(np.uint32)) for subject in group.subjects},
        "means": {key: packed(mean) for key, mean in pictures.means.items()},
        "class_scale": finite(pictures.class_scale),
        "pages": pictures.pages,
        "front": pictures.front,
        "others": list(pictures.others),
    }


def column_payload(values: Sequence[str]) -> dict[str, Any]:
    """A column of text: its values, and their codes by sample where values repeat."""
    known = {value: code for code, value in enumerate(dict.fromkeys(values))}
    if len(known) >= min(CODED, max(2, len(values) // 2)):
        return {"values": list(values), "codes": None}
    codes = np.fromiter((known[value] for value in values), dtype=np.uint16, count=len(values))
    return {"values": list(known), "codes": packed(codes)}


def pictures_of(group: Group) -> dict[str, Float[np.ndarray, "m 2"]]:
    """The 2-D pictures of a class by name; the second and third eigenvectors are one too."""
    analysis = group.analysis
    found = {name: np.asarray(xy, dtype=np.float32) for name, xy in analysis.pictures.items()}
    if analysis.vectors.ndim == 2 and analysis.vectors.shape[1] >= 3:
        found["eigenvectors 2, 3"] = np.asarray(analysis.vectors[:, 1:3], dtype=np.float32)
    return found


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Where the pictures of a class are, and what was seen in passing while they were read."""

    pages: Mapping[str, Any]
    """``size`` and ``names``: blocks of so many samples, in their order; or ``picked``: the beginning of the names of
    blocks that hold whatever positions their names end with."""
    means: Mapping[str, Int8[np.ndarray, "y x"]]
    """Mean map of each subject that brings none, every member's map first scaled to its own largest |R|."""
    class_scale: float
    """98th percentile of the samples' largest |R|: the scale of the class as a whole."""
    front: Mapping[str, Any] | None = None
    """Positions that are looked at first, and a page of their pictures."""
    others: Sequence[Mapping[str, Any]] = ()
    """Other relevance of the same samples: ``name``, ``pages``, ``front`` and ``class_scale`` of each."""
