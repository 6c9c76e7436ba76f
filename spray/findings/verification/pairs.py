"""Which content goes on which image: pairs that keep the units of a test independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from spray.findings.verification.effects import Control
from spray.findings.verification.judge import Readings


@dataclass(frozen=True)
class Pairs:
    """Donors dealt to hosts. The plentiful side is used once each; the scarcer side is the unit that is averaged.

    So no two units share an image, and few donors on many hosts count as few.
    """

    donor: Int[np.ndarray, " p"]
    host: Int[np.ndarray, " p"]
    unit: Int[np.ndarray, " p"]

    @classmethod
    def deal(cls, donors: int, hosts: int, rng: np.random.Generator) -> Pairs:
        """Each donor and each host about equally often, at random."""
        count = max(donors, hosts)
        donor = rng.permutation(np.resize(np.arange(donors), count))
        host = np.resize(np.arange(hosts), count)
        return cls(donor, host, donor if donors < hosts else host)

    @property
    def units(self) -> int:
        """How many there are."""
        return int(self.unit.max(initial=-1)) + 1

    def sources(
        self, count: int, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " u"]]:
        """For each pair one of ``count`` other images, and for each unit the group of those that have the same one.

        Each image is used in one unit only, as far as they go; where there are fewer than units, units drawn at random
        share one (rows are in the order of their classes, as a rule), so that all pairs are compared.
        """
        place = rng.permutation(self.units)
        turn = np.zeros(len(self.unit), np.int64)
        for unit in range(self.units):
            of_unit = self.unit == unit
            turn[of_unit] = np.arange(of_unit.sum())
        groups = place % count if count < self.units else np.arange(self.units)
        each = np.maximum((count - 1 - place) // max(self.units, 1) + 1, 1)[self.unit]
        index = place[self.unit] + self.units * (turn % each)
        found: Int[np.ndarray, " p"] = rng.permutation(count)[index % count]
        return found, groups

    def averaged(self, values: Readings) -> Readings:
        """The mean of each unit's pairs."""
        sums = np.zeros((self.units, values.shape[1]))
        np.add.at(sums, self.unit, values)
        means: Readings = sums / np.bincount(self.unit, minlength=self.units)[:, None]
        return means


def matched(units: int, values: Readings, rng: np.random.Generator) -> Control:
    """Effects on other images, one dealt to each unit; again where they are fewer."""
    count = len(values)
    if not count:
        return Control.of(values, same=False)
    dealt = rng.permutation(units) % count if count < units else np.arange(units)
    chosen = rng.permutation(count)[dealt]
    return Control(values[chosen], dealt, same=False)


def some(rows: Int[np.ndarray, " n"], most: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """At most so many of the rows, at random, ascending."""
    chosen: Int[np.ndarray, " k"] = (
        np.sort(rng.choice(rows, most, replace=False)) if len(rows) > most else rows
    )
    return chosen


def first_half(groups: Sequence[Int[np.ndarray, " n"]], rng: np.random.Generator) -> Int[np.ndarray, " a"]:
    """A random half of all rows, ascending, and of each group as nearly as goes; what comes up again stays in its half.

    So an image is in one half whichever part it plays, and no group is cut unevenly by chance.
    """
    shuffled = np.concatenate([rng.permutation(rows) for rows in groups])
    once = np.sort(np.unique(shuffled, return_index=True)[1])
    found: Int[np.ndarray, " a"] = np.sort(shuffled[once][::2])
    return found
