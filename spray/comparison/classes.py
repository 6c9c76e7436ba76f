"""Which class of one audit is which of another: by name, and by samples where a name changed; and what to say of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from spray.analysis.correspondence import contingency, jaccard_index
from spray.comparison.audited import Audited, Common

SAME = 0.5
"""Classes of two names are one where at least this share of their common samples is."""
SIDES = ("first", "second")


@dataclass(frozen=True)
class Counterpart:
    """A class by its names in the two audits; None where one has no such class."""

    names: tuple[str | None, str | None]

    @property
    def told(self) -> str:
        """One name, or both where they differ."""
        return " → ".join(dict.fromkeys(name for name in self.names if name is not None))

    @property
    def renamed(self) -> bool:
        """Whether both audits have it, by two names."""
        return None not in self.names and self.names[0] != self.names[1]


def counterparts(one: Audited, other: Audited, samples: Common) -> list[Counterpart]:
    """Every analysed class of either audit once, those of the first audit in their order first.

    Classes of one name are one. Labels of common samples, of which pixels were compared, say which class is which
    where a name is only in one audit, or where those of one name have none of their samples in common.
    """
    table = _labels(one, other, samples)
    same = {name: name for name in one.groups if name in other.groups and not _apart(one, other, name, table)}
    lefts = [name for name in one.groups if name not in same]
    rights = [name for name in other.groups if name not in same]
    found = same | _by_samples(one, other, lefts, rights, table)
    taken = set(found.values())
    found |= {name: name for name in lefts if name in rights and name not in found and name not in taken}
    taken = set(found.values())
    return [
        *(Counterpart((name, found.get(name))) for name in one.groups),
        *(Counterpart((None, name)) for name in other.groups if name not in taken),
    ]


def renamed(named: Iterable[Counterpart]) -> tuple[str, ...]:
    """A note on classes that have another name in the second audit."""
    pairs = [entry.told for entry in named if entry.renamed]
    if not pairs:
        return ()
    return (f"Compared as one class, for they have the same samples under two names: {few(pairs)}.",)


def missing(
    named: Sequence[Counterpart], lacking: Sequence[tuple[str | None, str | None]]
) -> tuple[str, ...]:
    """A note for each audit that did not analyse classes of the other; ``lacking`` says why, per class and side."""
    notes = []
    for side, other in ((1, 0), (0, 1)):
        told = [
            f"{entry.told} ({why[side]})" if why[side] else entry.told
            for entry, why in zip(named, lacking, strict=True)
            if why[side] is not None and why[other] is None
        ]
        if told:
            notes.append(
                f"Not analysed in the {SIDES[side]} audit: {few(told)}. What the {SIDES[other]} found in "
                f"{'it' if len(told) == 1 else 'them'} is told as unseen: nothing says that it "
                f"{'vanished' if other == 0 else 'appeared'}."
            )
    return tuple(notes)


def few(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    told = list(names)
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def _labels(one: Audited, other: Audited, samples: Common) -> Int[np.ndarray, "a b"]:
    """Common samples of each pair of classes; none where only ids are known to be the same."""
    table = np.zeros((len(one.run.classes), len(other.run.classes)), dtype=np.int64)
    if samples.sure and samples.count:
        left = one.run.samples.read("label", samples.left)
        right = other.run.samples.read("label", samples.right)
        counts = contingency(left, right)[1:, 1:]
        table[: counts.shape[0], : counts.shape[1]] = counts
    return table


def _apart(one: Audited, other: Audited, name: str, table: Int[np.ndarray, "a b"]) -> bool:
    """Whether classes of one name have common samples, and each of them belongs to another class in the other audit."""
    left, right = one.groups[name], other.groups[name]
    if left < 0 or right < 0:
        return False
    return bool(table[left].sum() and table[:, right].sum() and not table[left, right])


def _by_samples(
    one: Audited, other: Audited, lefts: Sequence[str], rights: Sequence[str], table: Int[np.ndarray, "a b"]
) -> dict[str, str]:
    """Of these names, those of the same class."""
    alike = jaccard_index(table, table.sum(1), table.sum(0))
    lefts = [name for name in lefts if one.groups[name] >= 0]
    rights = [name for name in rights if other.groups[name] >= 0]
    chosen = alike[np.ix_([one.groups[name] for name in lefts], [other.groups[name] for name in rights])]
    pairs = zip(*linear_sum_assignment(-chosen), strict=True) if chosen.size else ()
    return {lefts[i]: rights[j] for i, j in pairs if chosen[i, j] >= SAME}
