"""What a correction is made of: the samples of a finding, samples without it, and their pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spray.blocks import BlockReader, first_inputs
from spray.correction.errors import CorrectionError
from spray.data import AuditData, input_digest
from spray.findings import MismatchError
from spray.findings.regions import pixel_mask
from spray.signals import as_pictures
from stores import AnalysisHandle, Finding, Run, Verdict
from stores.judged_rows import JudgedRows
from stores.provenance import Json

Rows = Int[np.ndarray, " n"]
Batch = tuple[Rows, Float[Tensor, "b ..."], Int[Tensor, " b"]]
"""Rows, inputs, labels."""
NO_CLASS = -1
"""Of an artifact whose samples are of several classes."""
KEPT_BYTES = 2**29
"""Inputs that are looked at many times are kept in memory up to this size, and read again beyond it."""


@dataclass(frozen=True)
class Artifact:
    """What is to be unlearnt: samples that share it, their class, and where in the picture it lies."""

    name: str
    rows: Rows
    group: int
    """Class index of the samples; ``NO_CLASS`` where they are of several classes."""
    region: Bool[np.ndarray, "y x"] | None = None
    analysis: str = ""
    tested_for: int | None = None
    """Class index that the interventions were tested for, where it is known; else it is that of the samples."""

    @property
    def target(self) -> int:
        """The class that the artifact speaks for, which others with it are taken for; ``NO_CLASS`` where unknown."""
        return self.group if self.tested_for is None else self.tested_for

    def mask(self, inputs: Float[Tensor, "n ..."]) -> Bool[Tensor, "h w"] | None:
        """The region at the size of the inputs, of signals one pixel high; None without one, or for other inputs."""
        if self.region is None or not self.region.any() or inputs.ndim not in (3, 4):
            return None
        return torch.from_numpy(pixel_mask(self.region, *as_pictures(inputs).shape[-2:]))


def artifact_of(run: Run, what: str | Sequence[int], analysis: AnalysisHandle | None = None) -> Artifact:
    """The artifact of a finding (by name), of a verdict (by its key or the beginning of its digest), or of some rows.

    A verdict's own members count, whatever a later analysis groups; its region is that of the finding that shares
    most members with it. The class of a finding of all classes at once is the one that all members are labelled, else
    the one that it was tested for.

    Raises:
        CorrectionError: there is no such finding or verdict, the verdict was withdrawn or says "valid", or it has no
            members in the store.
    """
    if not isinstance(what, str):
        rows = _checked_rows(run, np.unique(np.asarray(what, dtype=np.int64)))
        return Artifact("rows", rows, _common_class(run, rows))
    handle = analysis or run.shown_analysis()
    findings = {finding.name: finding for finding in handle.findings()}
    if what in findings:
        found = findings[what]
        checked = _checked_rows(run, found.rows)
        return Artifact(what, checked, _class_of(run, found), found.region, handle.id, _target(found))
    given = sorted(run.verdicts(), key=lambda verdict: verdict.moment)
    verdicts = [
        verdict
        for verdict in given
        if what == verdict.key or (len(what) >= 8 and verdict.digest.startswith(what))
    ]
    if not verdicts:
        known = ", ".join(list(findings)[:8]) or "none"
        raise CorrectionError(
            f"{run.path} has no finding or verdict '{what}'; findings of analysis {handle.id}, the most suspicious "
            f"first: {known}."
        )
    _check_standing(given, verdicts[-1], what)
    judged = JudgedRows(run).of(verdicts[-1])
    if judged.unclear:
        raise CorrectionError(
            f"the verdict '{what}' is on samples whose ids others have, too ({', '.join(judged.unclear[:5])}), and "
            "nothing tells which of them were judged: name the finding itself, or give its row numbers."
        )
    rows = _checked_rows(run, judged.rows)
    nearest = max(findings.values(), key=lambda it: len(np.intersect1d(it.rows, rows)), default=None)
    shared = nearest is not None and len(np.intersect1d(nearest.rows, rows)) > len(rows) / 2
    group = _common_class(run, rows)
    if nearest is None or not shared:
        return Artifact(what, rows, group, None, verdicts[-1].analysis)
    group = _class_of(run, nearest) if group == NO_CLASS else group
    return Artifact(what, rows, group, nearest.region, verdicts[-1].analysis, _target(nearest))


def _checked_rows(run: Run, rows: Rows) -> Rows:
    if len(rows) == 0:
        raise CorrectionError("the finding has no members: there is nothing to correct.")
    if rows[0] < 0 or rows[-1] >= run.n:
        raise CorrectionError(f"rows go from 0 to {run.n - 1}, got {rows[0]} to {rows[-1]}.")
    return rows


def _check_standing(given: Sequence[Verdict], verdict: Verdict, what: str) -> None:
    """Refuse what nobody condemns: everybody's last word on these samples is that it is valid, or is taken back.

    ``given`` are all verdicts, the earliest first.
    """
    last = {
        said.author: said
        for said in given
        if (said.subject, said.digest) == (verdict.subject, verdict.digest)
    }
    if all(said.verdict in ("valid", "withdrawn") for said in last.values()):
        told = ", ".join(f"{said.annotator or 'unnamed'}: {said.verdict}" for said in last.values())
        raise CorrectionError(
            f"by the verdict '{what}' there is nothing to unlearn ({told}): to correct it nevertheless, name the "
            "finding itself, or give its row numbers."
        )


def _class_of(run: Run, found: Finding) -> int:
    if found.group >= 0:
        return found.group
    common, target = _common_class(run, found.rows), _target(found)
    return target if common == NO_CLASS and target is not None else common


def _target(found: Finding) -> int | None:
    target = found.evidence.get("target")
    return target if isinstance(target, int) and target >= 0 else None


def _common_class(run: Run, rows: Rows) -> int:
    labels = np.unique(run.samples.read("label", rows))
    return int(labels[0]) if len(labels) == 1 else NO_CLASS


@dataclass(frozen=True)
class Split:
    """Rows to fit on and rows to judge by, each with the artifact and without it. All have a label."""

    artifact_fit: Rows
    artifact_held: Rows
    clean_fit: Rows
    clean_held: Rows

    @property
    def fit(self) -> Rows:
        """All rows to fit on, ascending."""
        return np.union1d(self.artifact_fit, self.clean_fit)


@dataclass(frozen=True)
class Splitting:
    """A seeded share of every class, with and without the artifact, is held out.

    Args:
        held_out: share of the samples that nothing is fitted on.
        least: so many samples with and without the artifact are needed on either side.
    """

    held_out: float = 0.3
    least: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1 or self.least < 2:
            raise CorrectionError(
                f"held_out is {self.held_out}, least {self.least}; expected a share between 0 and 1, and at least 2."
            )

    def split(
        self, labels: Int[np.ndarray, " n"], usable: Bool[np.ndarray, " n"], artifact: Artifact
    ) -> Split:
        """Split the usable, labelled rows.

        Raises:
            CorrectionError: one of the four parts has fewer than ``least`` rows.
        """
        rng = np.random.default_rng([self.seed, 5])
        inside = np.zeros(len(labels), bool)
        inside[artifact.rows] = True
        known = usable & (labels >= 0)
        held = np.zeros(len(labels), bool)
        for members in (inside, ~inside):
            for label in np.unique(labels[known]):
                rows = np.flatnonzero(known & members & (labels == label))
                held[rng.permutation(rows)[: round(self.held_out * len(rows))]] = True
        parts = {
            "with the artifact, to fit on": known & inside & ~held,
            "with the artifact, held out": known & inside & held,
            "without the artifact, to fit on": known & ~inside & ~held,
            "without the artifact, held out": known & ~inside & held,
        }
        for name, part in parts.items():
            if part.sum() < self.least:
                raise CorrectionError(
                    f"'{artifact.name}': {part.sum()} labelled samples {name}; at least {self.least} are needed. "
                    "Correct a larger finding, or hold out another share."
                )
        return Split(*(np.flatnonzero(part) for part in parts.values()))


class Pixels:
    """Inputs of a data set by row, in batches; those of a store are compared with what was attributed.

    Args:
        run: the store that the data set belongs to; None for another data set, whose samples are taken as they are.
    """

    def __init__(
        self,
        data: AuditData,
        classes: int,
        device: torch.device,
        *,
        run: Run | None = None,
        batch: int = 128,
        workers: int = 0,
    ) -> None:
        self.data, self.device, self.batch = data, device, batch
        try:
            self.example = first_inputs(data, 1)[:1]
        except ValueError as error:
            raise CorrectionError(f"Nothing to correct with: {error}.") from error
        if run is not None and list(data.ids) != [str(name) for name in run.samples.read("id")]:
            raise MismatchError("The data set at hand has other ids than the store: give the same data set.")
        self._digests = None if run is None else run.samples.read("digest")
        self._classes, self._workers = classes, workers

    def batches(self, rows: Rows, size: int | None = None) -> Iterator[Batch]:
        """Rows in this order, with inputs and labels on the device; samples that cannot be read are left out.

        Raises:
            MismatchError: a sample has other pixels than when it was attributed.
        """
        size = size or self.batch
        reader = BlockReader(self.data, size, self.example[0], self._classes, self._workers)
        cut = [[int(row) for row in rows[at : at + size]] for at in range(0, len(rows), size)]
        for block in reader.read(cut):
            good = [place for place, row in enumerate(block.rows) if row not in block.failed]
            chosen = np.array([block.rows[place] for place in good], dtype=np.int64)
            inputs = block.inputs[good]
            self._check(chosen, inputs)
            if good:
                yield chosen, inputs.to(self.device), block.labels[good].to(self.device)

    def inputs(self, rows: Rows) -> Float[Tensor, "n ..."]:
        """All inputs of some rows at once, on the CPU."""
        parts = [inputs.cpu() for _, inputs, _ in self.batches(rows)]
        return torch.cat(parts) if parts else self.example[:0]

    def repeatable(self, rows: Rows) -> Iterable[Batch]:
        """Batches of some rows that can be gone through again and again."""
        if len(rows) * self.example.numel() * self.example.element_size() <= KEPT_BYTES:
            return list(self.batches(rows))
        return _Again(self, rows)

    @cached_property
    def all_rows(self) -> Rows:
        """Every row of the data set."""
        return np.arange(len(self.data.ids))

    @cached_property
    def digests(self) -> Int[np.ndarray, " n"]:
        """Of the pixels of every sample that can be read."""
        parts = [inputs for _, inputs, _ in self.batches(self.all_rows)]
        return np.array([input_digest(pixels) for part in parts for pixels in part], dtype=np.int64)

    def _check(self, rows: Rows, inputs: Float[Tensor, "b ..."]) -> None:
        if self._digests is None:
            return
        for row, pixels in zip(rows.tolist(), inputs, strict=True):
            if input_digest(pixels) != self._digests[row]:
                raise MismatchError(
                    f"Sample {self.data.ids[row]!r} has other pixels than when it was attributed. "
                    "Give the same data with the same preprocessing (no random augmentation)."
                )


@dataclass(frozen=True)
class _Again:
    """Batches read anew each time."""

    pixels: Pixels
    rows: Rows

    def __iter__(self) -> Iterator[Batch]:
        return self.pixels.batches(self.rows)


def told(artifact: Artifact, classes: Sequence[str]) -> dict[str, Json]:
    """The artifact as a record, with the names of its classes."""
    names = [None if index == NO_CLASS else classes[index] for index in (artifact.group, artifact.target)]
    return {
        "name": artifact.name,
        "analysis": artifact.analysis,
        "class": artifact.group,
        "class_name": names[0],
        "target": artifact.target,
        "target_name": names[1],
        "samples": len(artifact.rows),
        "region_cells": None if artifact.region is None else int(artifact.region.sum()),
    }
