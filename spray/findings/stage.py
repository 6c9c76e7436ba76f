"""Findings: clusters of a class that share a region, merged, tested by intervention where possible, and ranked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from spray.findings.associations import corrected
from spray.findings.class_findings import ClassFindings
from spray.findings.outcomes import Outcomes
from spray.findings.scores import ASSOCIATION
from spray.findings.step import Findings
from spray.findings.subject import Subject
from spray.findings.suspicion import OwnRank, Ranking
from spray.findings.verification import Requirements
from spray.findings.verification.significance import benjamini_hochberg
from spray.findings.words import summary
from spray.journal import journal
from spray.progress import Report, silent
from stores import ALL_CLASSES, AnalysisHandle, Finding, Provenance, Run, describe
from stores.analyses import SEARCHED
from stores.provenance import Json


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

    With ``model`` and ``dataset`` what every finding's members share is removed and transplanted. Without, findings are
    ranked anew by what such a call has shown; where there was none, by what the maps alone show, and none is flagged.
    Writes the analysis' findings. Each class is kept as soon as it is tested, so an interrupted call goes on where it
    stopped; another rank needs no new tests.

    Raises:
        ValueError: the analysis has no clustering of the name that the step gives.
        stores.StoreError: the run was opened for reading, and these findings are not there yet.
        MismatchError: the model's or the data set's digest differs from the store's.
        SiteError: the model does not have the layer whose channels were analysed.
    """
    step = (step or Findings()).of(analysis)
    subject = None
    if model is not None and dataset is not None:
        subject = Subject.of(run, model, dataset, device)
    groups = list(analysis.groups)
    proven = _tested_by(step, analysis)
    known = subject is None and all(analysis.tested(group, proven) is not None for group in groups)
    done = _interventions(known or subject is not None)
    if groups != [ALL_CLASSES] and len(groups) < len(run.classes):
        done |= {SEARCHED: groups}  # a list of some groups is not taken for one of all
    provenance = Provenance((describe(step), done), (analysis.id,))
    if _stored(analysis, provenance) and not isinstance(step.ranking, OwnRank):
        return list(analysis.findings())
    run.check_writable()
    outcomes = Outcomes(run)
    found: list[Finding] = []
    what = "verify" if subject else "rank"
    with journal(run.path, what, analysis=analysis.id, groups=len(groups), device=str(device)) as log:
        for number, group in enumerate(groups):
            report(number, len(groups), what)
            of_class = analysis.tested(group, proven) if subject or known else None
            if of_class is None:
                # One thread: the sums of a solver depend on how many there are, and the stored figures must not.
                with threadpool_limits(1, user_api="blas"):
                    of_class = ClassFindings(run, analysis, group, step, outcomes).findings(subject)
                if subject:
                    analysis.write_tested(group, of_class, proven)
            found.extend(of_class)
            log("group", group=group, findings=len(of_class))
    report(len(groups), len(groups), what)
    ranked = concluded(found, step)
    if isinstance(step.ranking, OwnRank):
        provenance = replace(provenance, steps=(*provenance.steps, _scores(ranked)))
        if _stored(analysis, provenance):
            return list(analysis.findings())
    sizes = {group: len(analysis.read(group).rows) for group in {finding.group for finding in ranked}}
    ranked = [_worded(finding, run, sizes[finding.group]) for finding in ranked]
    analysis.write_findings(ranked, provenance)
    return ranked


def _interventions(done: bool) -> dict[str, Json]:
    return {"name": "interventions", "done": done}


def _tested_by(step: Findings, analysis: AnalysisHandle) -> Provenance:
    """Of what interventions showed, whatever it is ranked by."""
    return Provenance((describe(replace(step, ranking=Ranking())), _interventions(True)), (analysis.id,))


def _stored(analysis: AnalysisHandle, provenance: Provenance) -> bool:
    known = analysis.findings_provenance
    return known is not None and known.id == provenance.id


def _scores(ranked: Sequence[Finding]) -> dict[str, Json]:
    """What a function made of the parts: its provenance, since its code does not tell."""
    told = ",".join(f"{finding.name}={finding.score!r}" for finding in ranked)
    return {"name": "scores", "digest": hashlib.sha256(told.encode()).hexdigest()}


def concluded(findings: Sequence[Finding], step: Findings) -> list[Finding]:
    """All findings of all classes: corrected for how many were tested, confirmed, ranked and flagged."""
    judged = _associated(_judged(findings, step.requirements), step.requirements.alpha)
    scored = [replace(finding, score=step.ranking.score(finding.parts)) for finding in judged]
    ranked = sorted(scored, key=lambda finding: (-finding.score, finding.name))
    flags: dict[int, int] = {}
    flagged = []
    for finding in ranked:
        count = flags.get(finding.group, 0)
        may = finding.evidence.get("confirmed") is True and count < step.ranking.flags_per_class
        flags[finding.group] = count + may
        flagged.append(replace(finding, flagged=may))
    return flagged


def _judged(findings: Sequence[Finding], requirements: Requirements) -> list[Finding]:
    """With q-values over the candidates of all classes, and whether each finding is confirmed."""
    candidates = [finding for finding in findings if finding.evidence.get("candidate") is True]
    p_values = [float(str(finding.evidence["p_value"])) for finding in candidates]
    q_values = dict(zip((f.name for f in candidates), benjamini_hochberg(p_values), strict=True))
    judged = []
    for finding in findings:
        if "removal" not in finding.evidence:
            judged.append(finding)
            continue
        q = q_values.get(finding.name)
        confirmed = q is not None and q <= requirements.alpha and not finding.evidence["unmet"]
        evidence = {**finding.evidence, "q_value": q, "confirmed": confirmed, "candidates": len(candidates)}
        judged.append(replace(finding, evidence=evidence))
    return judged


def _associated(findings: Sequence[Finding], alpha: float) -> list[Finding]:
    """With q-values of associations with metadata over all columns and findings, and the strongest as a part."""
    told = [finding.evidence.get("associations", []) for finding in findings]
    tested = corrected([many if isinstance(many, list) else [] for many in told])
    associated = []
    for finding, many in zip(findings, tested, strict=True):
        strongest = max((one["effect"] for one in many if one["q_value"] <= alpha), default=0.0)
        parts = {**finding.parts, ASSOCIATION: strongest if many else None}
        evidence = {**finding.evidence, "associations": many} if many else finding.evidence
        associated.append(replace(finding, parts=parts, evidence=evidence))
    return associated


def _worded(finding: Finding, run: Run, class_size: int) -> Finding:
    group = _class_name(run, finding.group)
    target = _class_name(run, finding.evidence.get("target", finding.group))
    return replace(finding, summary=summary(finding, class_size, group, target))


def _class_name(run: Run, number: Json) -> str:
    return run.classes[number] if isinstance(number, int) and number >= 0 else "any class"
