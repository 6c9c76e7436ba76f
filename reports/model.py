"""What a report tells, as pure data: no browser, no bokeh, nothing that computes relevance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from stores import AnalysisHandle, Run, Table
from stores.analysis import ALL_CLASSES, Finding, GroupAnalysis, is_tested
from stores.circumstances import circumstances
from stores.provenance import Json, canonical_json
from stores.verdicts import members_digest

FINDINGS = "findings"
"""The name under which findings stand beside the clusterings."""
NOISE = -1


@dataclass(frozen=True)
class Samples:
    """Columns over the analysed samples of one class; position ``i`` everywhere means ``rows[i]``."""

    rows: Int[np.ndarray, " m"]
    ids: tuple[str, ...]
    label: Int[np.ndarray, " m"]
    """−1 where unknown."""
    prediction: Int[np.ndarray, " m"]
    confidence: Float[np.ndarray, " m"]
    """Softmax probability of the predicted class."""
    metadata: Mapping[str, tuple[str, ...]]
    """Metadata columns as text, by name."""

    @property
    def correct(self) -> Float[np.ndarray, " m"]:
        """1 where the prediction is the label, 0 where not, NaN where the label is unknown."""
        return np.where(self.label < 0, np.nan, (self.label == self.prediction).astype(np.float64))


@dataclass(frozen=True)
class Subject:
    """What a verdict can be about: a finding, or one cluster of one clustering."""

    key: str
    """Unique in its analysis: "c6.f0" of a finding, "c6.hdbscan.3" of a cluster."""
    kind: str
    """"finding" or "cluster"."""
    name: str
    clustering: str
    """``FINDINGS``, or the clustering's name."""
    members: Int[np.ndarray, " k"]
    """Positions in the class, the most central in the spectral embedding first."""
    digest: str
    """SHA-256 of the sorted member ids: what a verdict signs."""
    accuracy: float | None
    confidence: float | None
    finding: Finding | None = None

    @property
    def score(self) -> float | None:
        """The machine's suspicion; clusters have none of their own."""
        return None if self.finding is None else self.finding.score

    @property
    def has_map(self) -> bool:
        """Whether a mean map is stored with it: findings by place have one, clusters and findings by channel none."""
        return self.finding is not None and self.finding.mean_map is not None

    @property
    def region(self) -> Bool[np.ndarray, "y x"] | None:
        """The one region that its members share; None where there is none, or each member has its own."""
        finding = self.finding
        return None if finding is None or finding.evidence.get("where") == "moving" else finding.region

    @property
    def flagged(self) -> bool:
        """Whether the machine's thresholds mark it."""
        return self.finding is not None and self.finding.flagged


@dataclass(frozen=True)
class Group:
    """One class of the report: its samples, spectrum, pictures, and everything that can be judged."""

    index: int
    name: str
    analysis: GroupAnalysis
    samples: Samples
    subjects: tuple[Subject, ...]
    """Findings first, the most suspicious first, then the clusters of each clustering."""

    @property
    def findings(self) -> tuple[Subject, ...]:
        """The findings of the class, most suspicious first."""
        return tuple(subject for subject in self.subjects if subject.kind == "finding")

    @property
    def suspicion(self) -> float | None:
        """The highest score among the findings; None without findings."""
        return max((subject.score for subject in self.findings if subject.score is not None), default=None)

    @property
    def flagged(self) -> int:
        """How many findings are flagged."""
        return sum(subject.flagged for subject in self.findings)


@dataclass(frozen=True)
class ReportModel:
    """The whole report but its pictures. ``groups`` are ranked: the most suspicious first."""

    title: str
    store: str
    """Identity of the audited samples and model run: verdicts of another store are refused by it."""
    analysis: str
    classes: tuple[str, ...]
    groups: tuple[Group, ...]
    ranking: tuple[str, ...]
    """Keys of all findings: flagged ones first, then the most suspicious."""
    name: str
    """What was analysed, in short: the relevance, and the column where it is not that of the input."""
    facts: Mapping[str, Json]
    """What the header and the overview say about the run."""
    configuration: Mapping[str, Json]
    """Provenance of store, relevance, analysis and findings, as recorded."""

    @classmethod
    def from_run(cls, run: Run, analysis: str | None = None, *, title: str | None = None) -> ReportModel:
        """Read everything but the pictures from a store.

        Args:
            run: An open ``stores.Run``.
            analysis: Id of the analysis to show; where None the newest whose findings were tested by interventions,
                else the newest that was searched for findings, else the newest.
            title: Heading of the report; the store's name where None.

        Raises:
            ValueError: the store has no analysis yet.
        """
        if not run.analyses():
            raise ValueError(
                f"{run.path} has no analysis to report. Run `spray analyze {run.path}` first, then report again."
            )
        handle = run.shown_analysis(analysis)
        # Flagged ones first: where the score ranks another higher, no intervention bore that out.
        findings = tuple(sorted(handle.findings(), key=lambda finding: not finding.flagged))
        rank = {finding.name: place for place, finding in enumerate(findings)}
        analyses = [handle.read(index) for index in handle.groups]
        samples = read_samples(run, *(analysis.rows for analysis in analyses))
        groups = [
            read_group(run, analysis, entry, findings)
            for analysis, entry in zip(analyses, samples, strict=True)
        ]

        def suspicion_first(group: Group) -> tuple[int, int]:
            places = [rank[subject.key] for subject in group.findings]
            return min(places, default=len(findings)), group.index

        return cls(
            title=title or f"Audit of {name_of(run)}",
            store=store_identity(run),
            analysis=handle.id,
            classes=tuple(run.classes),
            groups=tuple(sorted(groups, key=suspicion_first)),
            ranking=tuple(rank),
            name=analysis_name(handle),
            facts=facts(run, handle, findings),
            configuration=configuration(run, handle),
        )

    def group(self, index: int) -> Group:
        """The class of that index.

        Raises:
            KeyError: the report has no such class.
        """
        for group in self.groups:
            if group.index == index:
                return group
        raise KeyError(
            f"class {index} is not in this report; it has {[group.index for group in self.groups]}"
        )


def read_group(run: Run, analysis: GroupAnalysis, samples: Samples, findings: Sequence[Finding]) -> Group:
    """One class as the report needs it."""
    mine = [finding for finding in findings if finding.group == analysis.group]
    subjects = (*finding_subjects(analysis, samples, mine), *cluster_subjects(analysis, samples))
    name = "all classes" if analysis.group == ALL_CLASSES else run.classes[analysis.group]
    return Group(analysis.group, name, analysis, samples, subjects)


def read_samples(run: Run, *rows: Int[np.ndarray, " m"]) -> list[Samples]:
    """The sample columns of several sets of rows, each column read once for all of them."""
    table = run.samples
    wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))
    names = ["id", "label", "prediction", *(name for name in table.columns if name.startswith("meta."))]
    columns = {name: table.read(name, wanted) for name in names}
    # Logits of many classes are large: a shard at a time is enough.
    shares = [top_probability(np.asarray(part, np.float64)) for _, part in table.iterate("logits", wanted)]
    columns["confidence"] = np.concatenate([np.zeros(0), *shares])
    return [_picked(columns, np.searchsorted(wanted, mine), mine) for mine in rows]


def _picked(
    columns: Mapping[str, np.ndarray], places: Int[np.ndarray, " m"], rows: Int[np.ndarray, " m"]
) -> Samples:
    return Samples(
        rows=np.asarray(rows, dtype=np.int64),
        ids=tuple(str(value) for value in columns["id"][places]),
        label=np.asarray(columns["label"][places], dtype=np.int64),
        prediction=np.asarray(columns["prediction"][places], dtype=np.int64),
        confidence=columns["confidence"][places],
        metadata={
            name.removeprefix("meta."): tuple(str(value) for value in column[places])
            for name, column in columns.items()
            if name.startswith("meta.")
        },
    )


def top_probability(logits: Float[np.ndarray, "m c"]) -> Float[np.ndarray, " m"]:
    """Softmax probability of the largest logit; NaN where a logit is not finite."""
    if logits.shape[1] == 0:
        return np.full(len(logits), np.nan)
    with np.errstate(invalid="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        return np.asarray(1.0 / np.exp(shifted).sum(axis=1))


def finding_subjects(
    analysis: GroupAnalysis, samples: Samples, findings: Sequence[Finding]
) -> Iterator[Subject]:
    """The findings of one class, in the order given, as subjects of a verdict."""
    for number, finding in enumerate(findings, start=1):
        members = np.flatnonzero(np.isin(analysis.rows, finding.rows))
        yield subject(
            analysis,
            samples,
            members,
            key=finding.name,
            kind="finding",
            name=f"F{number}",
            clustering=FINDINGS,
            finding=finding,
        )


def cluster_subjects(analysis: GroupAnalysis, samples: Samples) -> Iterator[Subject]:
    """Every cluster of every clustering, the largest first, noise last."""
    for clustering, result in analysis.clusterings.items():
        labels, counts = np.unique(result.labels, return_counts=True)
        order = sorted(zip(labels.tolist(), counts.tolist(), strict=True), key=lambda lc: (lc[0] < 0, -lc[1]))
        for label, _ in order:
            yield subject(
                analysis,
                samples,
                np.flatnonzero(result.labels == label),
                key=f"c{analysis.group}.{clustering}.{label}",
                kind="cluster",
                name="noise" if label == NOISE else str(label),
                clustering=clustering,
            )


def subject(
    analysis: GroupAnalysis, samples: Samples, members: Int[np.ndarray, " k"], **fields: Any
) -> Subject:
    """A subject with what follows from its members."""
    correct = samples.correct[members]
    return Subject(
        members=central_first(analysis, members),
        digest=members_digest([samples.ids[i] for i in members]),
        accuracy=mean(correct),
        confidence=mean(samples.confidence[members]),
        **fields,
    )


def central_first(analysis: GroupAnalysis, members: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """Members by distance to their mean in the row-normalised spectral embedding, the nearest first."""
    unit = spectral_unit(analysis)[members]
    if not unit.size:
        return members
    distance = np.linalg.norm(unit - unit.mean(axis=0), axis=1)
    return members[np.argsort(distance, kind="stable")]


def spectral_unit(analysis: GroupAnalysis) -> Float[np.ndarray, "m k"]:
    """The spectral embedding: as many eigenvectors as strategies (two at least), each sample's row of length 1."""
    width = max(2, analysis.strategies)
    vectors = np.asarray(analysis.vectors, dtype=np.float64)
    vectors = vectors[:, :width] if vectors.ndim == 2 else np.zeros((len(analysis.rows), 0))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def mean(values: Float[np.ndarray, " k"]) -> float | None:
    """Mean of the finite values; None where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def store_identity(run: Run) -> str:
    """SHA-256 of what was audited: provenance, class names, number of samples. Analyses do not change it."""
    known: dict[str, Json] = {"provenance": run.provenance, "classes": list(run.classes), "samples": run.n}
    return hashlib.sha256(canonical_json(known).encode("utf-8", "surrogatepass")).hexdigest()


def name_of(run: Run) -> str:
    """The store's file name, without folder and suffix."""
    return str(run.path).rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr")


def analysis_name(handle: AnalysisHandle) -> str:
    """What an analysis is about, to tell it from the others of its store."""
    relevance = str(handle.facts["relevance"]).removeprefix("relevance/").replace("_", " ")
    column = str(handle.facts.get("column", "input.place"))
    grouped = str(handle.facts.get("group_by", "label"))
    return " · ".join(
        [
            f"LRP {relevance}",
            *([] if column == "input.place" else [column]),
            *([] if grouped == "label" else [f"by {grouped}"]),
            *represented(handle),
        ]
    )


def represented(handle: AnalysisHandle) -> list[str]:
    """How the analysis represents relevance, where that is not the usual way: pooled maps as they are."""
    for step in handle.provenance.steps:
        entry = step.get("representation")
        if isinstance(entry, Mapping):
            kind, size, sign = (entry.get(name) for name in ("name", "size", "sign"))
            told = [str(kind)] if kind not in (None, "pooled") else []
            told += [f"pooled to {size}"] if kind == "pooled" and size is not None else []
            return [*told, *([str(sign)] if sign not in (None, "signed") else [])]
    return []


def facts(run: Run, handle: AnalysisHandle, findings: Sequence[Finding]) -> dict[str, Json]:
    """Counts and names a reader wants first."""
    relevance = run.table(handle.facts["relevance"])
    return {
        "samples": run.n,
        "classes": len(run.classes),
        "failed": {
            "rows": len({*run.samples.failures, *relevance.failures}),  # a broken image fails in both
            "samples": len(run.samples.failures),
            "relevance": len(relevance.failures),
        },
        "relevance": handle.facts["relevance"],
        "column": handle.facts.get("column", "input.place"),
        "group_by": handle.facts.get("group_by", "label"),
        "conservation": conservation(relevance),
        "findings": len(findings),
        "tested": sum(map(is_tested, findings)),
        "searched": handle.searched,
        "circumstances": circumstances(run, handle),
        "format": run.version,
    }


def conservation(table: Table) -> dict[str, Json] | None:
    """How much of the relevance put in arrives at the input, over all samples; None where it was not recorded."""
    if not {"start", "sum"} <= set(table.columns):
        return None
    start, arrived = (np.asarray(table.read(name), dtype=np.float64) for name in ("start", "sum"))
    usable = np.isfinite(start) & np.isfinite(arrived) & (start != 0)
    if not usable.any():
        return None
    low, middle, high = np.quantile(arrived[usable] / start[usable], (0.05, 0.5, 0.95))
    return {"share_5": float(low), "share_50": float(middle), "share_95": float(high), "n": int(usable.sum())}


def configuration(run: Run, handle: AnalysisHandle) -> dict[str, Json]:
    """Provenance records by stage, as stored."""
    records: dict[str, Json] = {"run": run.provenance}
    for name in run.tables():
        records[name] = run.table(name).provenance.to_json()
    records[f"analysis {handle.id}"] = handle.provenance.to_json()
    if handle.findings_provenance is not None:
        records["findings"] = handle.findings_provenance.to_json()
    return records
