"""The model as text for the browser: one JSON for the page, then blocks: the samples of a class, their pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8

from reports.images import Atlas, atlas, packed, quantise
from reports.model import Group, ReportModel, Subject, spectral_unit
from reports.theme import CLUSTER_COLOURS, COLOUR_MAPS, LEVELS
from reports.verdicts import INHERITED_FROM, overlaps
from stores import Finding, Run, Verdict

SURROGATE = re.compile("[\ud800-\udfff]")
EIGENVALUES = 30
VECTORS = 8
"""Eigenvectors that travel, as int8, so that the page can measure distances in the spectral embedding."""
PAGE = 1024
"""Samples per block of pictures."""
FRONT = 384
"""About so many pictures travel with a class that has several pages: those that are looked at first."""
CODED = 2**16
"""A column of metadata with fewer values than this travels as codes."""
FULL = "input.full"
STEP = 4
"""Levels between two codes of a sample's map."""
MAPS = "input.place"
"""The column that is drawn, whatever layer or channel was analysed."""


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
        "analyses": [{**analysis_payload(model), "overlaps": overlaps(model, verdicts)} for model in models],
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
        "palette": CLUSTER_COLOURS,
        "levels": LEVELS,
        "inherited_from": INHERITED_FROM,
        "maps": {
            name: {"title": entry.title, "table": packed(entry.table())["data"]}
            for name, entry in COLOUR_MAPS.items()
        },
    }
    plain: dict[str, Any] = finite(content)
    return {**plain, "figures": figures}


def analysis_payload(model: ReportModel) -> dict[str, Any]:
    """One analysis: its facts, and its classes without their samples."""
    return {
        "analysis": model.analysis,
        "name": model.name,
        "groups": [group_payload(group) for group in model.groups],
        "ranking": model.ranking,
        "facts": dict(model.facts),
        "configuration": dict(model.configuration),
    }


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
        "vectors": packed(quantise(spectral_unit(group.analysis)[:, :VECTORS][:, None])[0][:, 0]),
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
    """Mean map of each cluster, every member's map first scaled to its own largest |R|."""
    class_scale: float
    """98th percentile of the samples' largest |R|: the scale of the class as a whole."""
    front: Mapping[str, Any] | None = None
    """Positions that are looked at first, and a page of their pictures."""


def front_positions(group: Group) -> Int[np.ndarray, " k"]:
    """The most and the least central members of every finding and cluster: about ``FRONT`` in all, ascending."""
    each = FRONT // max(1, len(group.subjects))
    inner, outer = max(12, each * 2 // 3), max(6, each // 3)
    ends = [np.r_[subject.members[:inner], subject.members[-outer:]] for subject in group.subjects]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *ends]))


def mean_maps(
    group: Group, codes: Iterable[tuple[int, Int8[np.ndarray, "n y x"]]]
) -> dict[str, Int8[np.ndarray, "y x"]]:
    """Mean map of every cluster from (first position, codes) of consecutive pages; findings bring their own."""
    clusters = [subject for subject in group.subjects if subject.kind == "cluster"]
    sums: dict[str, np.ndarray] = {}
    for start, page in codes:
        for subject in clusters:
            inside = subject.members[(subject.members >= start) & (subject.members < start + len(page))]
            total = page[inside - start].sum(axis=0, dtype=np.int64)
            sums[subject.key] = sums.get(subject.key, 0) + total
    return {key: quantise(total[None].astype(np.float64))[0][0] for key, total in sums.items()}


def relevance_codes(
    run: Run, model: ReportModel, rows: Int[np.ndarray, " n"], *, full: bool = False
) -> tuple[Int8[np.ndarray, "n y x"], Float[np.ndarray, " n"]] | None:
    """Relevance by place of some rows as ``quantise`` gives it; None where the store has none.

    ``full`` takes it at the input's resolution, summed over channels, where the store keeps that.
    """
    table = run.table(str(model.facts["relevance"]))
    if full and FULL in table.columns:
        return quantise(np.asarray(table.read(FULL, rows), dtype=np.float64).sum(axis=1), STEP)
    return quantise(np.asarray(table.read(MAPS, rows)), STEP) if MAPS in table.columns else None


def picture_page(
    run: Run,
    rows: Int[np.ndarray, " n"],
    relevance: tuple[Int8[np.ndarray, "n y x"], Float[np.ndarray, " n"]] | None,
) -> dict[str, Any]:
    """Relevance (of ``relevance_codes``) and thumbnails of some rows as a block."""
    content: dict[str, Any] = {"maps": None, "scale": None, "atlas": None}
    if relevance is not None:
        codes, scale = relevance
        content["maps"] = packed(codes, compress=True)
        content["scale"] = packed(np.nan_to_num(scale))
    if "thumbnail" in run.samples.columns:
        content["atlas"] = atlas_payload(atlas(np.asarray(run.samples.read("thumbnail", rows))))
    return content


def atlas_payload(sheet: Atlas | None) -> dict[str, Any] | None:
    """An atlas for the browser."""
    if sheet is None:
        return None
    return {
        "columns": sheet.columns,
        "stride": list(sheet.stride),
        "size": list(sheet.size),
        "data": packed(np.frombuffer(sheet.webp, dtype=np.uint8))["data"],
    }


def proof_payload(finding: Finding) -> dict[str, Any]:
    """Samples of a finding before and after interventions, as a block."""
    return {
        kind: {"count": len(pictures), "atlas": atlas_payload(atlas(np.asarray(pictures), quality=90))}
        for kind, pictures in finding.pictures.items()
        if len(pictures)
    }


def blocks(run: Run, model: ReportModel, written: set[str]) -> Iterator[tuple[str, str]]:
    """All blocks of an analysis as (name, JSON text), a class at a time.

    Blocks of pictures are named by their content: analyses that show the same pictures share them, and names
    in ``written`` (which grows) are not made again.
    """
    for group in model.groups:
        names: list[str] = []
        scales: list[np.ndarray] = []
        codes_seen: list[tuple[int, np.ndarray]] = []
        for start in range(0, len(group.samples.rows), PAGE):
            rows = group.samples.rows[start : start + PAGE]
            relevance = relevance_codes(run, model, rows)
            text = script_json(picture_page(run, rows, relevance))
            names.append(f"pictures-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]}")
            if relevance is not None:
                codes_seen.append((start, relevance[0]))
                scales.append(relevance[1])
            if names[-1] not in written:
                written.add(names[-1])
                yield names[-1], text
        for number, subject in enumerate(group.subjects):
            if subject.finding is not None and subject.finding.pictures:
                yield (
                    f"proof-{model.analysis}-{group.index}-{number}",
                    script_json(proof_payload(subject.finding)),
                )
        pictures = Pictures(
            {"size": PAGE, "names": names},
            mean_maps(group, codes_seen),
            class_scale(scales),
            front_payload(run, model, group) if len(names) > 1 else None,
        )
        yield chunk_name(model, group.index), script_json(chunk_payload(group, pictures))


def front_payload(run: Run, model: ReportModel, group: Group) -> dict[str, Any]:
    """The pictures of ``front_positions``."""
    positions = front_positions(group)
    rows = group.samples.rows[positions]
    return {
        "positions": packed(positions.astype(np.uint32)),
        "page": picture_page(run, rows, relevance_codes(run, model, rows)),
    }


def class_scale(scales: Sequence[Float[np.ndarray, " n"]]) -> float:
    """The scale of a class: the 98th percentile of its samples' largest |R|; 0 without any."""
    known = np.concatenate([np.zeros(0), *scales])
    known = known[np.isfinite(known)]
    return float(np.quantile(known, 0.98)) if len(known) else 0.0


def chunk_name(model: ReportModel, group: int) -> str:
    """The name of the block that holds a class of an analysis."""
    return f"chunk-{model.analysis}-{group}"
