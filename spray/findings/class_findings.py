"""The findings of one class of an analysis: merged, tested by intervention where the model is at hand, and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from spray.findings.associations import associations
from spray.findings.channels import unit_vectors
from spray.findings.contents import coarser, contents_of, enough_memory_for, finest
from spray.findings.display import LikeThumbnails
from spray.findings.outcomes import Outcomes
from spray.findings.regions import overlap, unit_maps
from spray.findings.scores import SCORES, Separability, Suspect
from spray.findings.step import Findings
from spray.findings.strategies import Strategy, distinct, merge, refined
from spray.findings.subject import Subject
from spray.findings.verification import Candidate, ClassMaps, Evidence, completed, verify
from spray.findings.verification.evidence import MOVING
from spray.findings.verification.judge import LOGIT, PROBABILITY, AnswerError
from stores import AnalysisHandle, Finding, GroupAnalysis, Run

UNTESTABLE = "Too few members, or too few samples of other classes, to be tested by intervention."
PLACELESS = "Relevance of this form has neither places nor channels that interventions could change."
FULL, PLACE, CHANNEL = ".full", ".place", ".channel"
KEPT_BYTES = 64 * 2**20
SAME_REGION = 0.4
"""Regions that overlap by so much are one: the same images may well have two artifacts, each with its own place."""
HARDLY = 0.1
"""Where nine in ten samples have less than this probability of the class, log-odds decide: it has no room to move."""


@dataclass(frozen=True)
class _Tested:
    """A strategy after its test, and why there was none."""

    strategy: Strategy
    target: int
    evidence: Evidence | None = None
    note: str = ""

    @property
    def score(self) -> float:
        """Of its effects; 0 where there are none."""
        return 0.0 if self.evidence is None else self.evidence.score


class ClassFindings:
    """One group of an analysis: its maps and candidate strategies."""

    def __init__(
        self, run: Run, analysis: AnalysisHandle, group: int, step: Findings, outcomes: Outcomes
    ) -> None:
        self.run, self.step, self.group, self.outcomes = run, step, group, outcomes
        self.result: GroupAnalysis = analysis.read(group)
        self.rows = self.result.rows
        self.relevance = run.table(str(analysis.facts["relevance"]))
        column = str(analysis.facts["column"])
        self.layer = column.removesuffix(CHANNEL) if column.endswith(CHANNEL) else ""
        # What full maps have in common lies in the cells that they are pooled to, as all regions do.
        pooled = column.removesuffix(FULL) + PLACE if column.endswith(FULL) else column
        self.maps = self.relevance.read(pooled, self.rows)
        self.units = unit_maps(self.maps) if self.maps.ndim == 3 else self.maps
        if self.layer:
            self.units = unit_vectors(self.maps)
        self.clustering = step.clustering_of(self.result)
        self.strategies = self._strategies()

    def findings(self, subject: Subject | None) -> list[Finding]:
        """Its findings, not yet compared with those of other classes."""
        self.strategies = distinct(self._by_content(subject), self.step.same)
        tested = [_Tested(strategy, self._untested_for(strategy)) for strategy in self.strategies]
        if subject is not None and not self.layer and self.maps.ndim != 3:
            tested = [replace(one, note=PLACELESS) for one in tested]
        elif subject is not None:
            tested = self._one_each(self._tested(subject))
        return [self._finding(index, one, subject) for index, one in enumerate(tested)]

    def _strategies(self) -> list[Strategy]:
        clustering = self.result.clusterings.get(self.clustering)
        if clustering is None or self.result.status != "ok":
            return []
        merged = merge(clustering.labels, self.units, self.step.region, self.step.merge_likeness)
        if self.step.refinement is None:
            return merged
        return refined(merged, self.units, self.step.region, self.step.refinement, self.step.seed)

    def _by_content(self, subject: Subject | None) -> list[Strategy]:
        """Refined by what the images show, where these are at hand and relevance has places."""
        step = self.step.contents
        if step is None or subject is None or self.maps.ndim != 3 or not 0 < len(self.rows) <= step.most:
            return self.strategies
        grid = self.maps.shape[1:]
        size = tuple(subject.read(self.rows[:1]).shape[2:])
        contents = contents_of(subject.read, self.rows, finest(size, grid), step.batch)
        with enough_memory_for(f"telling the members among {len(self.rows)} samples by what they show"):
            self.contents = coarser(contents, grid)
            return step.strategies(
                self.strategies,
                self.units,
                contents,
                self.step.region,
                self.step.merge_likeness,
                self.step.seed,
            )

    def _tested(self, subject: Subject) -> list[_Tested]:
        """Every strategy, tested for the class that most of its members were explained for."""
        targets = [self._target(strategy) for strategy in self.strategies]
        found: dict[int, _Tested] = {}
        for target in dict.fromkeys(targets):
            chosen = [index for index, other in enumerate(targets) if other == target]
            try:
                found |= self._tested_for(target, chosen, subject)
            except AnswerError as error:
                found |= {index: _Tested(self.strategies[index], target, note=str(error)) for index in chosen}
        return [found[index] for index in range(len(targets))]

    def _tested_for(self, target: int, chosen: Sequence[int], subject: Subject) -> dict[int, _Tested]:
        """Some strategies, by number, tested for one class."""
        maps = self._maps(target)
        candidates = [self._candidate(self.strategies[index], maps) for index in chosen]
        proofs = verify(self.step.verification, subject.model, subject.read, maps, candidates, subject.device)
        found = {}
        for index, proof in zip(chosen, proofs, strict=True):
            strategy = self.strategies[index]
            found[index] = (
                _Tested(strategy, target, note=UNTESTABLE)
                if proof is None
                else self._completed(strategy, target, proof, maps, subject)
            )
        return found

    def _completed(
        self, strategy: Strategy, target: int, proof: Evidence, maps: ClassMaps, subject: Subject
    ) -> _Tested:
        """With the region that was tested, if it is one for all; where it is used, with all members that rely on it."""
        region = None if self.layer or proof.where == MOVING else proof.region
        if not self.step.requirements.unmet(proof) and not strategy.by_content:
            candidate = Candidate(proof.rows, proof.region)
            moving = proof.where == MOVING
            rows = completed(
                self.step.verification, subject.model, subject.read, maps, candidate, subject.device, moving
            )
            others = strategy.members & ~np.isin(self.rows, maps.rows)
            strategy = replace(strategy, members=np.isin(self.rows, rows) | others)
        return _Tested(replace(strategy, region=region), target, proof)

    def _one_each(self, tested: Sequence[_Tested]) -> list[_Tested]:
        """Without what is used and came to be the same as another that is: the same members by the same region.

        The one of the larger effect stands for both.
        """
        order = sorted(range(len(tested)), key=lambda at: -tested[at].score)
        kept: dict[int, _Tested] = {}
        for at in order:
            one = tested[at]
            twin = next((other for other in kept if self._the_same(kept[other], one)), None)
            if twin is None:
                kept[at] = one
            else:
                clusters = tuple(sorted({*kept[twin].strategy.clusters, *one.strategy.clusters}))
                kept[twin] = replace(kept[twin], strategy=replace(kept[twin].strategy, clusters=clusters))
        return [kept[at] for at in sorted(kept)]

    def _the_same(self, one: _Tested, other: _Tested) -> bool:
        if one.evidence is None or other.evidence is None or one.target != other.target:
            return False
        if any(self.step.requirements.unmet(proof) for proof in (one.evidence, other.evidence)):
            return False
        members = overlap(one.strategy.members, other.strategy.members)
        return (
            members >= self.step.same and overlap(one.evidence.region, other.evidence.region) >= SAME_REGION
        )

    def _untested_for(self, strategy: Strategy) -> int:
        """The class whose probability stands beside an untested strategy; none in a joint analysis."""
        return self._target(strategy) if self.group >= 0 else self.group

    def _target(self, strategy: Strategy) -> int:
        values, counts = np.unique(self._targets[strategy.members], return_counts=True)
        return int(values[counts.argmax()])

    def _maps(self, target: int) -> ClassMaps:
        inside = self._targets == target
        hosts = self.outcomes.hosts(target)
        probability = self.outcomes.probability(target, self.rows[inside])
        return ClassMaps(
            target,
            self.rows[inside],
            self.maps[inside],
            hosts,
            self.outcomes.labels[hosts],
            self.layer,
            LOGIT if np.quantile(probability, 0.9) < HARDLY else PROBABILITY,
            None if self.contents is None else self.contents[inside],
        )

    def _candidate(self, strategy: Strategy, maps: ClassMaps) -> Candidate:
        mode = strategy.mode if strategy.by_content else 0.0
        return Candidate(self.rows[strategy.members & np.isin(self.rows, maps.rows)], mode=mode)

    def _finding(self, index: int, tested: _Tested, subject: Subject | None) -> Finding:
        strategy, proof, members = tested.strategy, tested.evidence, tested.strategy.members
        suspect = Suspect(
            members,
            self.units,
            strategy.region,
            proof,
            self.result,
            self._separability,
            self._probability(tested.target),
            self._correct,
            self._stability(strategy),
            self._objects,
            self._digests,
            self._thumbnails,
        )
        evidence = {} if proof is None else proof.to_json(self.step.requirements)
        if associated := associations(self._metadata, members):
            evidence["associations"] = [one.to_json() for one in associated]
        if proof is not None:
            evidence["target"] = tested.target
        if proof is not None and self.layer:
            evidence["channels"] = [int(channel) for channel in np.flatnonzero(proof.region)]
        return Finding(
            name=f"c{self.group}.f{index}",
            group=self.group,
            clustering=self.clustering,
            clusters=strategy.clusters,
            rows=self.rows[members],
            score=0.0,
            flagged=False,
            parts={name: score(suspect) for name, score in SCORES.items()},
            region=strategy.region,
            mean_map=self.units[members].mean(0) if self.units.ndim == 3 else None,
            evidence=evidence,
            notes=(tested.note,) if tested.note else (),
            pictures=self._pictures(proof, subject),
        )

    def _pictures(
        self, proof: Evidence | None, subject: Subject | None
    ) -> dict[str, UInt8[np.ndarray, "n y x rgb"]]:
        if (
            proof is None
            or subject is None
            or not proof.pictures
            or "thumbnail" not in self.run.samples.columns
        ):
            return {}
        if self._display is None:
            some = self.rows[:20]
            self._display = LikeThumbnails.of(subject.read(some), self.run.samples.read("thumbnail", some))
        return {name: self._display.pictures(images) for name, images in proof.pictures.items()}

    _display: LikeThumbnails | None = None
    contents: Float[np.ndarray, "m c y x"] | None = None
    """What the images of all samples show in each cell of the maps, where it was looked at."""

    @cached_property
    def _targets(self) -> Int[np.ndarray, " m"]:
        """The class that each sample's relevance explains."""
        values: Int[np.ndarray, " m"] = self.relevance.read("target", self.rows)
        return values

    @cached_property
    def _separability(self) -> Separability:
        return Separability(self.units.reshape(len(self.units), -1), self.step.seed)

    def _stability(self, strategy: Strategy) -> float | None:
        """Of the strategy's clusters, weighted by how many members each has."""
        measured = self.result.facts.get("stability")
        of_clustering = measured.get(self.clustering) if isinstance(measured, Mapping) else None
        each = of_clustering.get("clusters") if isinstance(of_clustering, Mapping) else None
        if not isinstance(each, Sequence) or not each:
            return None
        labels = self.result.clusterings[self.clustering].labels
        sizes = [int((labels == cluster).sum()) for cluster in strategy.clusters]
        values = [float(str(each[cluster])) for cluster in strategy.clusters]
        return float(np.average(values, weights=sizes))

    @cached_property
    def _correct(self) -> Bool[np.ndarray, " m"] | None:
        labels = self.outcomes.labels[self.rows]
        found: Bool[np.ndarray, " m"] = labels == self.outcomes.predictions[self.rows]
        return found if (labels >= 0).all() else None

    @cached_property
    def _objects(self) -> Float[np.ndarray, "m y x"] | None:
        return self.outcomes.objects(self.rows, self.maps.shape[1:]) if self.maps.ndim == 3 else None

    @cached_property
    def _digests(self) -> Int[np.ndarray, " m"] | None:
        return self.outcomes.digests(self.rows)

    def _thumbnails(self, places: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k y x c"] | None:
        """Pictures of some of the samples; of a class that is not too large all are read at once, and kept."""
        column = self.run.samples.columns.get("thumbnail")
        if column is None or column.row_bytes * len(self.rows) > KEPT_BYTES:
            return self.outcomes.thumbnails(self.rows[places])
        if self._pictured is None:
            self._pictured = self.outcomes.thumbnails(self.rows)
        return None if self._pictured is None else self._pictured[places]

    _pictured: UInt8[np.ndarray, "m y x c"] | None = None

    @cached_property
    def _metadata(self) -> dict[str, np.ndarray]:
        return self.outcomes.metadata(self.rows)

    def _probability(self, target: int) -> Float[np.ndarray, " m"] | None:
        """P(class) of each analysed sample; None in a joint analysis of many classes."""
        return None if target < 0 else self.outcomes.probability(target, self.rows)
