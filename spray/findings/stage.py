"""Findings: clusters of a class that share a region, merged, tested by intervention where possible, and ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from spray.data import AuditData, as_audit_data, input_digest
from spray.findings.regions import TopRegion, unit_maps
from spray.findings.scores import SCORES, Separability, Suspect
from spray.findings.strategies import Strategy, merge
from spray.findings.suspicion import Ranking
from spray.findings.verification import Candidate, ClassMaps, Evidence, Verification
from spray.findings.words import summary
from spray.journal import journal
from spray.models import model_digest
from spray.progress import Report, silent
from spray.signals import OnSignals, as_pictures, holds_signals
from stores import AnalysisHandle, Finding, GroupAnalysis, Provenance, Run, describe

UNTESTABLE = "Too few members, or too few samples of other classes, to be tested by intervention."


class MismatchError(Exception):
    """The model or the data set at hand is not the one that the store was made with."""


@dataclass(frozen=True)
class Findings:
    """How clusters become ranked findings.

    Args:
        clustering: whose clusters are taken.
        merge_likeness: clusters of a class whose contrasts to the rest of it are alike by this cosine are pieces of
            one strategy.
    """

    clustering: str = "hdbscan"
    merge_likeness: float = 0.7
    region: TopRegion = field(default_factory=TopRegion)
    verification: Verification = field(default_factory=Verification)
    ranking: Ranking = field(default_factory=Ranking)
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """The model and the data set that the store was made with, at hand for interventions."""

    model: nn.Module
    data: AuditData
    device: torch.device


def find(
    run: Run,
    analysis: AnalysisHandle,
    step: Findings | None = None,
    *,
    model: nn.Module | None = None,
    dataset: object | None = None,
    device: str | torch.device = "cpu",
    report: Report = silent,
) -> list[Finding]:
    """Merge, test, rank and store the findings of an analysis; the most suspicious comes first.

    With ``model`` and ``dataset`` every finding's region is removed and transplanted; without, findings are
    ranked by what the maps alone show, and none is flagged. Writes the analysis' findings.

    Raises:
        MismatchError: the model's or the data set's digest differs from the store's.
    """
    step = step or Findings()
    subject = None
    if model is not None and dataset is not None:
        subject = Subject(model.to(device), as_audit_data(dataset), torch.device(device))
        _check_same(run, subject)
        if holds_signals(run):
            subject = replace(subject, model=OnSignals(subject.model).eval())
    provenance = Provenance(
        (describe(step), {"name": "interventions", "done": subject is not None}), (analysis.id,)
    )
    if analysis.findings_provenance is not None and analysis.findings_provenance.id == provenance.id:
        return list(analysis.findings())
    outcomes = _Outcomes(run)
    found: list[Finding] = []
    sizes: dict[int, int] = {}
    groups = list(analysis.groups)
    what = "verify" if subject else "rank"
    with journal(run.path, what, analysis=analysis.id, groups=len(groups), device=str(device)) as log:
        for done, group in enumerate(groups):
            report(done, len(groups), what)
            # One thread: the sums of a solver depend on how many there are, and the stored figures must not.
            with threadpool_limits(1, user_api="blas"):
                members = _ClassFindings(run, analysis, group, step, outcomes)
                of_group = members.findings(subject)
            found.extend(of_group)
            sizes[group] = len(members.rows)
            log("group", group=group, rows=sizes[group], findings=len(of_group))
    report(len(groups), len(groups), what)
    ranked = _flag(sorted(found, key=lambda finding: (-finding.score, finding.name)), step.ranking)
    ranked = [_worded(finding, run, sizes[finding.group]) for finding in ranked]
    analysis.write_findings(ranked, provenance)
    return ranked


def _flag(findings: Sequence[Finding], ranking: Ranking) -> list[Finding]:
    """The most suspicious findings of each class that may be flagged, up to the limit, are."""
    flags: dict[int, int] = {}
    flagged = []
    for finding in findings:
        may = ranking.flags(finding.parts, bool(finding.evidence.get("certain")))
        if may and flags.get(finding.group, 0) < ranking.flags_per_class:
            flags[finding.group] = flags.get(finding.group, 0) + 1
            flagged.append(replace(finding, flagged=True))
        else:
            flagged.append(finding)
    return flagged


def _check_same(run: Run, subject: Subject) -> None:
    known = run.provenance.get("model")
    found = model_digest(subject.model)
    if known != found:
        raise MismatchError(
            f"The model at hand has digest {found[:12]}…, the store was made with {str(known)[:12]}…. "
            "Interventions on another model would prove nothing: give the same model and weights."
        )
    if list(subject.data.ids) != [str(name) for name in run.samples.read("id")]:
        raise MismatchError("The data set at hand has other ids than the store: give the same data set.")


class _ClassFindings:
    """One class of an analysis: its maps and candidate strategies."""

    def __init__(
        self, run: Run, analysis: AnalysisHandle, group: int, step: Findings, outcomes: _Outcomes
    ) -> None:
        self.run, self.step, self.group, self.outcomes = run, step, group, outcomes
        self.result: GroupAnalysis = analysis.read(group)
        self.rows = self.result.rows
        relevance = run.table(str(analysis.facts["relevance"]))
        self.maps = relevance.read(str(analysis.facts["column"]), self.rows)
        self.units = unit_maps(self.maps) if self.maps.ndim == 3 else self.maps
        self.strategies = self._strategies()

    def findings(self, subject: Subject | None) -> list[Finding]:
        """Its findings, not yet ranked among those of other classes."""
        if subject is None or self.units.ndim != 3 or self.group < 0:
            return [self._finding(i, strategy, None) for i, strategy in enumerate(self.strategies)]
        maps = ClassMaps(self.group, self.rows, self.maps, self.outcomes.hosts(self.group))
        read = _PixelReader(self.run, subject.data)
        verification = self.step.verification
        candidates = [
            Candidate(self.rows[strategy.members], strategy.region)
            for strategy in self.strategies
            if strategy.region is not None
        ]
        proofs = verification.verify(subject.model, read, maps, candidates, subject.device)
        found = []
        for index, (strategy, proof) in enumerate(zip(self.strategies, proofs, strict=True)):
            if proof is not None:
                strategy = replace(strategy, region=proof.region)
                if self._may_flag(proof):
                    candidate = Candidate(self.rows[strategy.members], proof.region)
                    rows = verification.membership(subject.model, read, maps, candidate, subject.device)
                    strategy = replace(strategy, members=np.isin(self.rows, rows))
            found.append(self._finding(index, strategy, proof, tested=True))
        return found

    def _may_flag(self, proof: Evidence) -> bool:
        return self.step.ranking.flags({"causal": proof.score}, proof.certain(self.step.seed))

    def _strategies(self) -> list[Strategy]:
        clustering = self.result.clusterings.get(self.step.clustering)
        if clustering is None or self.result.status != "ok":
            return []
        return merge(clustering.labels, self.units, self.step.region, self.step.merge_likeness)

    def _finding(
        self, index: int, strategy: Strategy, shown: Evidence | None, tested: bool = False
    ) -> Finding:
        region, members = strategy.region, strategy.members
        suspect = Suspect(
            members, self.units, region, shown, self.result, self._separability, self._probability
        )
        parts = {name: score(suspect) for name, score in SCORES.items()}
        mean_map = self.units[members].mean(0) if self.units.ndim == 3 else None
        return Finding(
            name=f"c{self.group}.f{index}",
            group=self.group,
            clustering=self.step.clustering,
            clusters=strategy.clusters,
            rows=self.rows[members],
            score=self.step.ranking.score(parts),
            flagged=False,
            parts=parts,
            region=region,
            mean_map=mean_map,
            evidence={} if shown is None else shown.to_json(self.step.seed),
            notes=() if shown is not None or not tested else (UNTESTABLE,),
        )

    @cached_property
    def _separability(self) -> Separability:
        return Separability(self.units.reshape(len(self.units), -1), self.step.seed)

    @cached_property
    def _probability(self) -> Float[np.ndarray, " m"] | None:
        """P(class) of each analysed sample; None in a joint analysis."""
        if self.group < 0:
            return None
        logits = self.run.samples.read("logits", self.rows).astype(np.float64)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        probability: Float[np.ndarray, " m"] = odds[:, self.group] / odds.sum(1)
        return probability


class _Outcomes:
    """Labels and predictions of all samples, read once for all classes, and only where hosts are asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def hosts(self, group: int) -> Int[np.ndarray, " h"]:
        """Rows of other classes by label and by prediction: images that may become the class when pasted on."""
        usable, label, prediction = self._columns
        return np.flatnonzero(usable & (label != group) & (prediction != group))

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        samples = self.run.samples
        return samples.ok, samples.read("label"), samples.read("prediction")


class _PixelReader:
    """Inputs by row number, each compared with the digest that was stored when it was attributed."""

    def __init__(self, run: Run, data: AuditData) -> None:
        self.run, self.data = run, data

    def __call__(self, rows: Int[np.ndarray, " n"]) -> Float[Tensor, "n c h w"]:
        known = self.run.samples.read("digest", rows)
        inputs = [self.data.sample(int(row)).input.float() for row in rows]
        for row, pixels, digest in zip(rows, inputs, known, strict=True):
            if input_digest(pixels) != digest:
                raise MismatchError(
                    f"Sample {self.data.ids[row]!r} has other pixels than when it was attributed. "
                    "Give the same data with the same preprocessing (no random augmentation)."
                )
        return as_pictures(torch.stack(inputs))


def _worded(finding: Finding, run: Run, class_size: int) -> Finding:
    name = run.classes[finding.group] if finding.group >= 0 else "any class"
    text = summary(
        len(finding.rows),
        class_size,
        name,
        finding.region,
        finding.parts.get("concentration"),
        finding.evidence,
        finding.flagged,
    )
    return replace(finding, summary=text)
