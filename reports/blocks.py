"""Blocks of a report: the pictures of a class in pages, its samples, and what interventions did, each as JSON text."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8

from reports.images import Atlas, atlas, packed, quantise
from reports.model import Group, ReportModel
from reports.payload import Pictures, chunk_payload, finite, relevance_title, script_json
from stores import Finding, Run

PAGE = 1024
"""Samples per block of pictures."""
FRONT = 384
"""About so many pictures travel with a class that has several pages: those that are looked at first."""
FULL = "input.full"
STEP = 4
"""Levels between two codes of a sample's map."""
MAPS = "input.place"
"""The column that is drawn, whatever layer or channel was analysed."""


def blocks(run: Run, model: ReportModel, written: set[str]) -> Iterator[tuple[str, str]]:
    """All blocks of an analysis as (name, JSON text), a class at a time.

    Blocks of pictures are named by their content: analyses that show the same pictures share them, and names
    in ``written`` (which grows) are not made again.
    """
    own, others = str(model.facts["relevance"]), other_relevance(run, model)
    for group in model.groups:
        seen = Seen()
        yield from seen.paged(run, own, group, written)
        beside = [Seen(thumbnails=False) for _ in others]
        for pages, name in zip(beside, others, strict=True):
            yield from pages.paged(run, name, group, written)
        for number, subject in enumerate(group.subjects):
            if subject.finding is not None and subject.finding.pictures:
                block = f"proof-{model.analysis}-{group.index}-{number}"
                yield block, script_json(proof_payload(subject.finding))
        pictures = Pictures(
            seen.pages,
            mean_maps(group, seen.codes),
            class_scale(seen.scales),
            seen.front(run, own, group),
            [
                {
                    "name": relevance_title(name),
                    "pages": pages.pages,
                    "front": pages.front(run, name, group),
                    "class_scale": finite(class_scale(pages.scales)),
                }
                for pages, name in zip(beside, others, strict=True)
            ],
        )
        yield chunk_name(model, group.index), script_json(chunk_payload(group, pictures))


@dataclasses.dataclass
class Seen:
    """The pages of a class while they are made, and what is summed up from them."""

    thumbnails: bool = True
    names: list[str] = dataclasses.field(default_factory=list)
    scales: list[np.ndarray] = dataclasses.field(default_factory=list)
    codes: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)

    @property
    def pages(self) -> dict[str, Any]:
        """As the page has it."""
        return {"size": PAGE, "names": self.names}

    def paged(self, run: Run, name: str, group: Group, written: set[str]) -> Iterator[tuple[str, str]]:
        """The pages of a relevance table that were not written before."""
        for start in range(0, len(group.samples.rows), PAGE):
            rows = group.samples.rows[start : start + PAGE]
            relevance = relevance_codes(run, name, rows)
            text = script_json(picture_page(run, rows, relevance, thumbnails=self.thumbnails))
            self.names.append(f"pictures-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]}")
            if relevance is not None:
                self.scales.append(relevance[1])
                if self.thumbnails:
                    self.codes.append((start, relevance[0]))
            if self.names[-1] not in written:
                written.add(self.names[-1])
                yield self.names[-1], text

    def front(self, run: Run, name: str, group: Group) -> dict[str, Any] | None:
        """The pictures of ``front_positions``, where there are several pages."""
        if len(self.names) < 2:
            return None
        positions = front_positions(group)
        rows = group.samples.rows[positions]
        page = picture_page(run, rows, relevance_codes(run, name, rows), thumbnails=self.thumbnails)
        return {"positions": packed(positions.astype(np.uint32)), "page": page}


def front_positions(group: Group) -> Int[np.ndarray, " k"]:
    """The most and the least central members of every finding and cluster: about ``FRONT`` in all, ascending."""
    each = FRONT // max(1, len(group.subjects))
    inner, outer = max(12, each * 2 // 3), max(6, each // 3)
    ends = [np.r_[subject.members[:inner], subject.members[-outer:]] for subject in group.subjects]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *ends]))


def relevance_codes(
    run: Run, name: str, rows: Int[np.ndarray, " n"], *, full: bool = False
) -> tuple[Int8[np.ndarray, "n y x"], Float[np.ndarray, " n"]] | None:
    """Relevance by place of some rows of a table as ``quantise`` gives it; None where it has none.

    ``full`` takes it at the input's resolution, summed over channels, where the store keeps that.
    """
    table = run.table(name)
    if full and FULL in table.columns:
        return quantise(np.asarray(table.read(FULL, rows), dtype=np.float64).sum(axis=1), STEP)
    return quantise(np.asarray(table.read(MAPS, rows)), STEP) if MAPS in table.columns else None


def other_relevance(run: Run, model: ReportModel) -> list[str]:
    """Names of the store's other complete relevance tables that have maps by place: they can be looked at, too."""
    tables = [run.table(name) for name in run.tables() if name.startswith("relevance/")]
    own = str(model.facts["relevance"])
    return [
        table.name for table in tables if table.name != own and MAPS in table.columns and not table.missing()
    ]


def picture_page(
    run: Run,
    rows: Int[np.ndarray, " n"],
    relevance: tuple[Int8[np.ndarray, "n y x"], Float[np.ndarray, " n"]] | None,
    *,
    thumbnails: bool = True,
) -> dict[str, Any]:
    """Relevance (of ``relevance_codes``) and thumbnails of some rows as a block."""
    content: dict[str, Any] = {"maps": None, "scale": None, "atlas": None}
    if relevance is not None:
        codes, scale = relevance
        content["maps"] = packed(codes, compress=True)
        content["scale"] = packed(np.nan_to_num(scale))
    if thumbnails and "thumbnail" in run.samples.columns:
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


def mean_maps(
    group: Group, codes: Iterable[tuple[int, Int8[np.ndarray, "n y x"]]]
) -> dict[str, Int8[np.ndarray, "y x"]]:
    """Mean map of every subject that brings none, from (first position, codes) of consecutive pages."""
    clusters = [subject for subject in group.subjects if not subject.has_map]
    sums: dict[str, np.ndarray] = {}
    for start, page in codes:
        for subject in clusters:
            inside = subject.members[(subject.members >= start) & (subject.members < start + len(page))]
            total = page[inside - start].sum(axis=0, dtype=np.int64)
            sums[subject.key] = sums.get(subject.key, 0) + total
    return {key: quantise(total[None].astype(np.float64))[0][0] for key, total in sums.items()}


def class_scale(scales: Sequence[Float[np.ndarray, " n"]]) -> float:
    """The scale of a class: the 98th percentile of its samples' largest |R|; 0 without any."""
    known = np.concatenate([np.zeros(0), *scales])
    known = known[np.isfinite(known)]
    return float(np.quantile(known, 0.98)) if len(known) else 0.0


def chunk_name(model: ReportModel, group: int) -> str:
    """The name of the block that holds a class of an analysis."""
    return f"chunk-{model.analysis}-{group}"
