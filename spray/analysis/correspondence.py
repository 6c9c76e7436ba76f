"""Which clusters of one analysis are those of another: of other layers, composites, models or versions of the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from stores import AnalysisHandle, Run
from stores.analysis import ALL_CLASSES, GroupAnalysis


class Match(NamedTuple):
    """A cluster of each side, by label, their common samples, and the Jaccard index of the two."""

    left: int
    right: int
    common: int
    jaccard: float


@dataclass(frozen=True)
class Correspondence:
    """How the clusters of two analyses of the same samples correspond."""

    matches: tuple[Match, ...]
    """One-to-one, by falling Jaccard index; pairs without a common sample are left out."""
    unmatched_left: tuple[int, ...]
    unmatched_right: tuple[int, ...]
    adjusted_rand: float
    """Over the common samples, each side's noise as a cluster of its own: 1 for equal, about 0 for unrelated; NaN where
    no sample is common."""
    samples: int
    """Number of samples analysed on both sides."""


Ids = tuple[Sequence[str] | NDArray[Any], Sequence[str] | NDArray[Any]]
"""The ids of all samples of either store, by row."""


def corresponding(
    left: GroupAnalysis, right: GroupAnalysis, clustering: str = "hdbscan", ids: Ids | None = None
) -> Correspondence:
    """Match the clusters of two analyses of one group, on the samples that both analysed.

    The assignment maximises the sum of Jaccard indices. Noise is matched to nothing.

    Args:
        left: an analysis.
        right: another.
        clustering: the name of a clustering that both have.
        ids: what tells the same sample in two stores; in one store its row does.

    Raises:
        KeyError: one of the analyses has no clustering of this name.
        ValueError: ids that are not those of the analysed rows, or that several rows have.
    """
    known = (left.rows, right.rows) if ids is None else (_ids(left, ids[0]), _ids(right, ids[1]))
    common, at_left, at_right = np.intersect1d(*known, return_indices=True)
    one = _labels(left, clustering)[at_left]
    other = _labels(right, clustering)[at_right]
    table = contingency(one, other)
    jaccard = jaccard_index(table[1:, 1:], table[1:].sum(axis=1), table[:, 1:].sum(axis=0))
    pairs = zip(*linear_sum_assignment(-jaccard), strict=True)
    matches = [
        Match(int(i), int(j), int(table[i + 1, j + 1]), float(jaccard[i, j]))
        for i, j in pairs
        if jaccard[i, j] > 0
    ]
    matches.sort(key=lambda match: (-match.jaccard, -match.common))
    return Correspondence(
        tuple(matches),
        tuple(sorted(set(range(len(jaccard))) - {match.left for match in matches})),
        tuple(sorted(set(range(jaccard.shape[1])) - {match.right for match in matches})),
        adjusted_rand(table) if len(common) else math.nan,
        len(common),
    )


def compare(
    left: AnalysisHandle,
    right: AnalysisHandle,
    clustering: str = "hdbscan",
    runs: tuple[Run, Run] | None = None,
) -> dict[int, Correspondence]:
    """The correspondence of every group that both stored analyses have; a joint analysis has the samples of each.

    Args:
        left: an analysis.
        right: another, of the same store or of another.
        clustering: the name of a clustering that both have.
        runs: the stores of the two where they are not the same: of other models or another version of the data. Classes
            are then the same by name, and samples by id.

    Returns:
        By number of the left one's group.

    Raises:
        ValueError: they have no group in common, or lie in two stores that are not given, or several classes there
            have one name.
        KeyError: one of the analyses has no clustering of this name.
    """
    if runs is None and left.path != right.path:
        raise ValueError(
            f"These analyses are of two stores, {left.path} and {right.path}, where one row need not be one sample, "
            "nor one number one class. Give both: runs=(left_run, right_run)."
        )
    numbers = {group: group for group in {*left.groups, *right.groups}} if runs is None else _numbers(*runs)
    shared = [
        (one, other)
        for one, other in sorted(numbers.items())
        if _has(left, one) and _has(right, other) and (one in left.groups or other in right.groups)
    ]
    if not shared:
        raise ValueError(
            f"These analyses have no group in common: {left.id} has {left.groups}, {right.id} has {right.groups}. "
            "Compare analyses of the same classes, or analyses of classes with a joint one."
        )
    ids = None if runs is None else (runs[0].samples.read("id"), runs[1].samples.read("id"))
    return {one: corresponding(_of(left, one), _of(right, other), clustering, ids) for one, other in shared}


def _numbers(left: Run, right: Run) -> dict[int, int]:
    """The groups of the right run by those of the left: classes of the same name, and all of them together."""
    for run in (left, right):
        name, count = Counter(run.classes).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"{run.path} has {count} classes named {name!r}: names do not tell which is which."
            )
    known = {name: number for number, name in enumerate(right.classes)}
    same = {number: known[name] for number, name in enumerate(left.classes) if name in known}
    return same | {ALL_CLASSES: ALL_CLASSES}


def _has(side: AnalysisHandle, group: int) -> bool:
    return group in side.groups or ALL_CLASSES in side.groups


def _of(side: AnalysisHandle, group: int) -> GroupAnalysis:
    return side.read(group if group in side.groups else ALL_CLASSES)


def contingency(left: Int[np.ndarray, " m"], right: Int[np.ndarray, " m"]) -> Int[np.ndarray, "a b"]:
    """Common samples of each pair of labels; the first row and column are those of the noise."""
    table = np.zeros((int(left.max(initial=-1)) + 2, int(right.max(initial=-1)) + 2), dtype=np.int64)
    np.add.at(table, (left + 1, right + 1), 1)
    return table


def jaccard_index(
    common: Int[np.ndarray, "a b"], left: Int[np.ndarray, " a"], right: Int[np.ndarray, " b"]
) -> Float[np.ndarray, "a b"]:
    """Common samples over all samples of each pair of clusters; 0 for two empty ones."""
    union = left[:, None] + right[None] - common
    return np.asarray(common / np.maximum(union, 1))


def adjusted_rand(table: NDArray[np.int64]) -> float:
    """The adjusted Rand index of two labellings from their contingency table (Hubert and Arabie 1985)."""

    def pairs(counts: NDArray[np.int64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, left, right = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    samples = int(table.sum())
    expected = left * right / max(samples * (samples - 1) / 2, 1)
    largest = (left + right) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def _ids(group: GroupAnalysis, ids: Sequence[str] | NDArray[Any]) -> NDArray[np.object_]:
    """The ids of the analysed rows; of any length, so as objects."""
    if len(group.rows) and group.rows.max() >= len(ids):
        raise ValueError(
            f"{len(ids)} ids were given, and row {group.rows.max()} was analysed: give those of all samples."
        )
    found = np.array([str(ids[row]) for row in group.rows], dtype=object)
    name, count = Counter(found).most_common(1)[0] if len(found) else ("", 0)
    if count > 1:
        raise ValueError(f"{count} of the analysed samples have the id {name!r}: each needs its own.")
    return found


def _labels(group: GroupAnalysis, clustering: str) -> Int[np.ndarray, " m"]:
    if clustering not in group.clusterings:
        raise KeyError(
            f"group {group.group} has no clustering {clustering!r}; it has {', '.join(group.clusterings) or 'none'}."
        )
    return group.clusterings[clustering].labels
