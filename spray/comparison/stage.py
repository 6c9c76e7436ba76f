"""Comparing two stored audits: common samples, strategies matched class by class, accuracy and suspicion of classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from spray.analysis.correspondence import adjusted_rand, contingency
from spray.comparison.audited import Audited, Common, ComparisonError, mean
from spray.comparison.classes import Counterpart, counterparts, few, missing, renamed
from spray.comparison.matching import Matching, Shift, Traits, jaccard, likeness
from spray.comparison.settings import unlike
from spray.findings.regions import overlap
from spray.progress import Report, silent
from stores import Finding, Run
from stores.comparison import CHANGES, Change, ClassChange, ClassSide, Comparison, Pair, Strategy

By = Literal["auto", "members", "maps"]
ENOUGH = 0.5
"""Members are compared where at least so much of the smaller audit is in the other."""
WHOLE = 0.9
"""A strategy of more than this share of its class is compared as the class itself."""


def compare(
    left: Run | str | Path,
    right: Run | str | Path,
    *,
    analyses: tuple[str | None, str | None] = (None, None),
    by: By = "auto",
    matching: Matching | None = None,
    report: Report = silent,
) -> Comparison:
    """Match the strategies of two audits: of two models on the same data, or of one model on two data sets.

    Args:
        left: the first store.
        right: the second store.
        analyses: their ids; the newest otherwise.
        by: "members" asks which samples are common to two strategies, "maps" where their relevance lies; "auto" takes
            members where at least half of the smaller audit's samples are in the other.

    Raises:
        ComparisonError: no analysis or no findings, no class and no sample in common, maps of different grids.
    """
    one, other = Audited.open(left, analyses[0]), Audited.open(right, analyses[1])
    samples = Common.of(one.run, other.run)
    named = counterparts(one, other, samples)
    if all(None in it.names for it in named):
        raise ComparisonError(
            f"the two audits have no class in common: {few(one.groups)}; and {few(other.groups)}."
        )
    by = _by(by, samples, one, other)
    notes = samples.notes + unlike(one, other)
    if by == "maps":
        _check_grids(one, other)
    pairs: list[Pair] = []
    classes: list[ClassChange] = []
    lacking: list[tuple[str | None, str | None]] = []
    for done, entry in enumerate(named):
        report(done, len(named), "compare")
        found = _Class(entry, one, other, samples, by, matching or Matching())
        pairs.extend(found.pairs())
        classes.append(found.change())
        lacking.append(found.lacking)
    report(len(named), len(named), "compare")
    notes += renamed(named) + missing(named, lacking)
    order = list(CHANGES)
    pairs.sort(key=lambda pair: (not pair.flagged, -pair.score, order.index(pair.change), pair.class_name))
    classes.sort(
        key=lambda it: -max((side.suspicion or 0.0 for side in (it.left, it.right) if side), default=0.0)
    )
    return Comparison(one.side(), other.side(), by, samples.count, tuple(pairs), tuple(classes), notes)


def _by(by: By, samples: Common, one: Audited, other: Audited) -> Literal["members", "maps"]:
    if by == "members" and not samples.count:
        raise ComparisonError(
            "the two audits have no sample in common (same id, same pixels), so members cannot be compared: by maps."
        )
    if by != "auto":
        return by
    return "members" if samples.count >= ENOUGH * min(one.run.n, other.run.n) else "maps"


def _check_grids(one: Audited, other: Audited) -> None:
    left, right = (_grid(side) for side in (one, other))
    if left is None or right is None:
        raise ComparisonError(
            "the audits have too few samples in common to compare members, and relevance without two axes of place "
            "cannot be compared by maps: analyse input.place in both."
        )
    if left != right:
        raise ComparisonError(
            f"the maps have different grids, {left[0]}×{left[1]} and {right[0]}×{right[1]} cells, so their places "
            "cannot be compared: attribute both with the same --grid."
        )


def _grid(side: Audited) -> tuple[int, ...] | None:
    table = side.run.table(str(side.analysis.facts["relevance"]))
    shape = table.columns[str(side.analysis.facts["column"])].shape
    return tuple(shape) if len(shape) == 2 else None


class _Class:
    """One class of both audits."""

    def __init__(
        self, entry: Counterpart, one: Audited, other: Audited, samples: Common, by: str, matching: Matching
    ) -> None:
        self.name, self.by, self.matching, self.samples = entry.told, by, matching, samples
        self.sides = (one, other)
        self.numbers: tuple[Mapping[int, int], Mapping[int, int]] = (
            {int(row): at for at, row in enumerate(samples.left)},
            {int(row): at for at, row in enumerate(samples.right)},
        )
        """Of each side's rows that are common, the place among the common ones."""
        numbers = [
            None if name is None else side.groups[name]
            for side, name in zip(self.sides, entry.names, strict=True)
        ]
        self.groups = tuple(
            None if number is None else side.analysis.read(number)
            for side, number in zip(self.sides, numbers, strict=True)
        )
        self.findings = tuple(
            [finding for finding in side.findings if finding.group == number]
            for side, number in zip(self.sides, numbers, strict=True)
        )

    @property
    def lacking(self) -> tuple[str | None, str | None]:
        """Of each side, why it has no strategies of the class to be found; None where it was analysed."""
        why = {"empty": "no samples", "single": "one sample", "identical": "all maps equal"}
        one, other = (
            "" if group is None else None if group.status == "ok" else why.get(group.status, group.status)
            for group in self.groups
        )
        return one, other

    def pairs(self) -> list[Pair]:
        """Every strategy of the class once."""
        one, other = (
            [self._traits(i, finding) for finding in found] for i, found in enumerate(self.findings)
        )
        matched: list[tuple[int, int, Shift]]
        if self.by == "members":
            matched = [(i, j, (0, 0)) for i, j in self.matching.by_members(one, other)]
        else:
            matched = self.matching.by_maps(one, other)
        pairs = [self._pair((i, j), one[i], other[j], shift) for i, j, shift in matched]
        left, right = {i for i, _, _ in matched}, {j for _, j, _ in matched}
        for place in range(len(one)):
            if place not in left:
                pairs.append(self._alone(0, place, one[place]))
        for place in range(len(other)):
            if place not in right:
                pairs.append(self._alone(1, place, other[place]))
        return pairs

    def _alone(self, i: int, place: int, traits: Traits) -> Pair:
        """A strategy of one side without its like on the other."""
        change: Change = "unseen" if self.lacking[1 - i] is not None else "vanished" if i == 0 else "appeared"
        found = self._strategy(i, self.findings[i][place])
        left, right = (found, None) if i == 0 else (None, found)
        return Pair(self.name, change, left, right, elsewhere=self._elsewhere(i, traits))

    def _elsewhere(self, i: int, traits: Traits) -> float | None:
        """Accuracy of a strategy's samples in the other audit."""
        rows = (self.samples.right, self.samples.left)[i][traits.members]
        return mean(self.sides[1 - i].right[rows])

    def change(self) -> ClassChange:
        """Numbers of the class on both sides."""
        one, other = (self._side(i) for i in (0, 1))
        return ClassChange(self.name, one, other, self._adjusted_rand() if self.by == "members" else None)

    def _side(self, i: int) -> ClassSide | None:
        group, found = self.groups[i], self.findings[i]
        if group is None:
            return None
        return ClassSide(
            samples=len(group.rows),
            accuracy=mean(self.sides[i].right[group.rows]),
            findings=len(found),
            flagged=sum(finding.flagged for finding in found),
            suspicion=max((finding.score for finding in found), default=None),
            strategies=group.strategies,
        )

    def _adjusted_rand(self) -> float | None:
        """Of the clusterings that findings were made from, over the samples that both analysed."""
        labels: list[dict[int, int]] = []
        for side, group, known in zip(self.sides, self.groups, self.numbers, strict=True):
            names = [finding.clustering for finding in side.findings[:1]]
            if group is None or not names or names[0] not in group.clusterings:
                return None
            values = zip(group.rows.tolist(), group.clusterings[names[0]].labels.tolist(), strict=True)
            labels.append({known[row]: label for row, label in values if row in known})
        common = sorted(labels[0].keys() & labels[1].keys())
        if not common:
            return None
        one, other = (np.array([side[place] for place in common], dtype=np.int64) for side in labels)
        return adjusted_rand(contingency(one, other))

    @cached_property
    def _class_maps(self) -> list[Float[np.ndarray, "y x"] | None]:
        return [
            None if group is None else side.class_map(group)
            for side, group in zip(self.sides, self.groups, strict=True)
        ]

    def _traits(self, i: int, finding: Finding) -> Traits:
        known, whole = self.numbers[i], self._class_maps[i]
        members = np.array([known[row] for row in finding.rows.tolist() if row in known], dtype=np.int64)
        found, group = finding.mean_map, self.groups[i]
        if found is None or group is None or whole is None or found.shape != whole.shape:
            return Traits(members, finding.region, None)
        if len(finding.rows) > WHOLE * len(group.rows):
            return Traits(members, finding.region, None, found)
        return Traits(members, finding.region, found - whole)

    def _pair(self, places: tuple[int, int], one: Traits, other: Traits, shift: Shift) -> Pair:
        stays = shift == (0, 0) and self.matching.same_place(one, other)
        iou = None
        if one.region is not None and other.region is not None and one.region.shape == other.region.shape:
            iou = overlap(one.region, other.region)
        left, right = (self._strategy(i, self.findings[i][place]) for i, place in enumerate(places))
        return Pair(
            self.name,
            "kept" if stays else "moved",
            left,
            right,
            jaccard=jaccard(one.members, other.members) if self.by == "members" else None,
            overlap=iou,
            likeness=likeness(one, other),
            shift=None if shift == (0, 0) else shift,
        )

    def _strategy(self, i: int, finding: Finding) -> Strategy:
        return Strategy(
            name=finding.name,
            samples=len(finding.rows),
            score=finding.score,
            flagged=finding.flagged,
            necessity=finding.parts.get("necessity"),
            sufficiency=finding.parts.get("sufficiency"),
            accuracy=mean(self.sides[i].right[finding.rows]),
            summary=finding.summary,
            rows=tuple(finding.rows.tolist()),
            region=finding.region,
            mean_map=finding.mean_map,
        )
