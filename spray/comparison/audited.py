"""One side of a comparison, and which samples two sides have in common."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

import stores
from spray.findings.regions import unit_maps
from stores import AnalysisHandle, Finding, GroupAnalysis, Run, Uncommitted
from stores.comparison import Side

JOINT = "all classes"


class ComparisonError(ValueError):
    """Two audits that cannot be compared; the message says why and what could be."""


@dataclass(frozen=True)
class Audited:
    """One audit to be compared, with what is read of it once."""

    run: Run
    analysis: AnalysisHandle

    @classmethod
    def open(cls, place: Run | str | Path, analysis: str | None) -> Audited:
        """Raises ComparisonError where there is no analysis, or one without findings."""
        run = place if isinstance(place, Run) else stores.open(place)
        try:
            handle = run.shown_analysis(analysis)
        except Uncommitted:
            raise ComparisonError(
                f"{run.path} has no analysis yet: run `spray analyze {run.path}`, then `spray verify`, first."
            ) from None
        if not handle.searched:
            raise ComparisonError(
                f"{run.path}: analysis {handle.id} has no findings yet: run `spray verify {run.path}` first."
            )
        return cls(run, handle)

    @cached_property
    def groups(self) -> dict[str, int]:
        """Analysed classes by name; with its number, where several classes have one name."""
        many = Counter([*self.run.classes, JOINT])
        named = {}
        for group in self.analysis.groups:
            name = self.run.classes[group] if group >= 0 else JOINT
            named[name if many[name] == 1 or group < 0 else f"{name} (class {group})"] = group
        return named

    @cached_property
    def findings(self) -> list[Finding]:
        """As ranked."""
        return self.analysis.findings()

    @cached_property
    def right(self) -> Float[np.ndarray, " n"]:
        """1 where the prediction is the label, NaN where there is no label or no sample."""
        label, found = self.run.samples.read("label"), self.run.samples.read("prediction")
        return np.where((label < 0) | ~self.run.samples.ok, np.nan, (label == found).astype(np.float64))

    @property
    def tested(self) -> bool:
        """Whether interventions were made: suspicion without them is of another kind, and nothing is flagged."""
        return any("removal" in finding.evidence for finding in self.findings)

    def side(self) -> Side:
        """Counts for the head of a table."""
        name = str(self.run.path).rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr")
        return Side(
            str(self.run.path),
            name,
            self.analysis.id,
            f"{self.analysis.facts['relevance']} {self.analysis.facts['column']}",
            self.run.n,
            len(self.findings),
            sum(finding.flagged for finding in self.findings),
            mean(self.right),
        )

    def class_map(self, group: GroupAnalysis) -> Float[np.ndarray, "y x"] | None:
        """Mean unit map of a class; None where relevance has no two axes of place."""
        table = self.run.table(str(self.analysis.facts["relevance"]))
        column = str(self.analysis.facts["column"])
        if len(table.columns[column].shape) != 2 or not len(group.rows):
            return None
        total: np.ndarray = sum(unit_maps(maps).sum(0) for _, maps in table.iterate(column, group.rows))
        return np.asarray(total / len(group.rows))


@dataclass(frozen=True)
class Common:
    """Samples that both stores have: the same id, once in each, and the same pixels where both know them."""

    left: Int[np.ndarray, " k"]
    right: Int[np.ndarray, " k"]
    notes: tuple[str, ...] = ()
    sure: bool = False
    """Whether pixels were compared; otherwise only ids are the same."""

    @classmethod
    def of(cls, one: Run, other: Run) -> Common:
        """Those of two stores."""
        first, second = _unique_ids(one), _unique_ids(other)
        ids = [name for name in first if name in second]
        left, right = (np.array([rows[name] for name in ids], dtype=np.int64) for rows in (first, second))
        if not len(ids) or not all("digest" in run.samples.columns for run in (one, other)):
            return cls(left, right)
        same = one.samples.read("digest", left) == other.samples.read("digest", right)
        notes = []
        if not same.all():
            notes.append(
                f"{int((~same).sum())} of {len(ids)} common ids have other pixels, and are taken for other samples."
            )
        return cls(left[same], right[same], tuple(notes), sure=True)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.left)


def _unique_ids(run: Run) -> dict[str, int]:
    rows = np.flatnonzero(run.samples.ok)
    ids = [str(name) for name in run.samples.read("id", rows)]
    seen: dict[str, int] = {}
    twice = set()
    for name, row in zip(ids, rows.tolist(), strict=True):
        if name in seen:
            twice.add(name)
        seen[name] = row
    return {name: row for name, row in seen.items() if name not in twice}


def mean(values: Float[np.ndarray, " n"]) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
