"""The test of a class: candidates chosen on half A of all samples involved, tested on half B.

Halves are drawn once per class: an image is in the same half as a member of one finding, as one of the rest beside
another, and as a donor of a rival. The region comes from half A, too. Honest features are sufficient (a bag's handle
makes a bag) or necessary, rarely both: the score is the geometric mean of the two net effects. It proves that the model
*uses* the region, not that it is wrong to use it: that stays the human's verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from spray.findings.discriminant import held_out_line, upper_mode
from spray.findings.verification.classes import Candidate, ClassMaps, ReadInputs
from spray.findings.verification.evidence import CHANNELS, FIXED, MOVING, SPREAD, USUAL, Evidence
from spray.findings.verification.pairs import first_half, some
from spray.findings.verification.step import MEMBERS_AT_LEAST, Verification
from spray.findings.verification.trial import SAME_PLACE, Material, Part, Trial
from spray.memory import SpaceError, ran_out, release

T = TypeVar("T")

RIVALS = 4
"""At most so many other findings' regions serve as controls; the largest findings' are taken."""
DISTINCT = 0.5
"""A rival's region is one of its own if so much of it lies outside the candidate's."""
PICTURED = 6
"""Samples that are shown before and after."""
MOST = 0.5
"""A region that fewer of the members have in common is compared with one that moves."""
TWICE = 2.0
"""It has to do so many times as much, over all members."""
SCREENING = ("matched", SAME_PLACE)
TESTING = ("matched", "random", "other findings", SAME_PLACE)

Regions = Callable[[ClassMaps, Int[np.ndarray, " m"]], Bool[np.ndarray, "#m ..."]]
"""The region of each of some rows, or one for all."""


def verify(
    step: Verification,
    model: nn.Module,
    read: ReadInputs,
    maps: ClassMaps,
    candidates: Sequence[Candidate],
    device: torch.device,
) -> list[Evidence | None]:
    """Evidence for every candidate of a class, in order; None where it has too few members or hosts.

    Raises:
        SiteError: the model does not have the layer or the channels that were analysed.
    """
    if len(maps.hosts) < MEMBERS_AT_LEAST or not candidates:
        return [None] * len(candidates)
    return _ClassTrials(step, model, read, maps, candidates, device).evidence()


@dataclass(frozen=True)
class _Split:
    """A finding's rows by half, the rest of its class likewise, and the region that half A shows."""

    candidate: Candidate
    members: tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]
    """Those whose relevance lies in the region."""
    whole: tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]
    """All of them, as they were clustered."""
    rest: tuple[Int[np.ndarray, " c"], Int[np.ndarray, " d"]]
    regions: Sequence[Bool[np.ndarray, ...]]
    """By scale; the same twice where two scales agree."""
    seed: tuple[int, ...]

    @property
    def carried(self) -> float:
        """Share of the members whose relevance lies in the region."""
        return sum(map(len, self.members)) / sum(map(len, self.whole))


@dataclass(frozen=True)
class _Samples:
    """The samples of one finding's trials on one half."""

    rows: Int[np.ndarray, " m"]
    members: Material
    rest_rows: Int[np.ndarray, " r"]
    rest: Material
    hosts: Material
    host_labels: Int[np.ndarray, " h"]


@dataclass(frozen=True)
class _Screened:
    """What half A showed, and at which scale."""

    scale: int
    evidence: Evidence


class _ClassTrials:
    """All findings of one class: screened on half A, the candidates among them tested on half B."""

    def __init__(
        self,
        step: Verification,
        model: nn.Module,
        read: ReadInputs,
        maps: ClassMaps,
        candidates: Sequence[Candidate],
        device: torch.device,
    ) -> None:
        self.step, self.read, self.maps, self.findings = step, read, maps, candidates
        self.site = step.site(model, maps, device)
        rng = np.random.default_rng([step.seed, maps.target + 1])
        self.first = first_half([*(one.rows for one in candidates), maps.rows, maps.hosts], rng)
        self.shared_hosts = not np.isin(maps.hosts, maps.rows).any()
        self.most = [step.screened, step.members]
        """Samples of each kind on either half."""
        self.hosts_each = [1, step.hosts_each]
        """Hosts for each of them."""
        self.known_hosts: dict[int, tuple[Material, Int[np.ndarray, " h"]]] = {}
        self.splits = [self._split(index) for index in range(len(candidates))]

    def evidence(self) -> list[Evidence | None]:
        """Of each finding, in order."""
        tried = [split for split in self.splits if split is not None]
        self.most[0], _ = self.step.sizes(len(tried), 1)
        screened = [
            None if split is None else self._fitting(0, partial(self._screen, split)) for split in self.splits
        ]
        passed = [found is not None and found.evidence.promising >= self.step.screen for found in screened]
        _, self.most[1] = self.step.sizes(len(tried), sum(passed))
        return [
            found
            if found is None
            else self._fitting(1, partial(self._test, index, found, passed))
            if passed[index]
            else found.evidence
            for index, found in enumerate(screened)
        ]

    def _fitting(self, half: int, work: Callable[[], T]) -> T:
        """Work on one half; with a host for each sample, then half as many, where memory runs out, from then on.

        Raises:
            SpaceError: even the fewest samples do not fit.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error) or isinstance(error, SpaceError):
                    raise
                if self.hosts_each[half] == 1 and self.most[half] <= MEMBERS_AT_LEAST:
                    raise SpaceError(
                        f"Memory does not suffice for {MEMBERS_AT_LEAST} images of each kind, changed and unchanged, "
                        "the fewest that a test needs. Prepare smaller images."
                    ) from error
            if self.hosts_each[half] > 1:
                self.hosts_each[half] = 1
            else:
                self.most[half] = max(MEMBERS_AT_LEAST, self.most[half] // 2)
            self.known_hosts = {}
            release(self.site.judge.device)

    def _split(self, index: int) -> _Split | None:
        candidate, maps = self.findings[index], self.maps
        usable = np.setdiff1d(maps.hosts, candidate.rows)
        if min(len(candidate.rows), len(usable)) < MEMBERS_AT_LEAST:
            return None
        members = self._halves(candidate.rows)
        rest = self._halves(np.setdiff1d(maps.rows, candidate.rows))
        others = maps.of(rest[0])
        locators = self.step.locators(maps)
        region = locators[0].shared(maps.of(members[0]), others)
        carriers = self._carriers(members, others, region)
        units = maps.of(carriers[0])
        regions = [locate.shared(units, others) for locate in locators]
        seed = (self.step.seed, maps.target + 1, index)
        return _Split(candidate, carriers, members, rest, regions, seed) if regions[0].any() else None

    def _halves(self, rows: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
        """Some rows by the half in which the class has them."""
        first = np.isin(rows, self.first)
        return rows[first], rows[~first]

    def _carriers(
        self,
        members: tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]],
        others: Float[np.ndarray, "c ..."],
        region: Bool[np.ndarray, ...],
    ) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " l"]]:
        """Members with more relevance in the region than nearly all others, of either half; all if those are too few.

        Clusters of whole maps are mixed: what a part of the members does not have cannot be removed from it.
        """
        if not len(others):
            return members
        usual = float(np.quantile(_relevance_in(region, others), USUAL))
        first, second = (half[_relevance_in(region, self.maps.of(half)) > usual] for half in members)
        return (first, second) if 2 * min(len(first), len(second)) >= MEMBERS_AT_LEAST else members

    def _hosts(self, candidate: Candidate, half: int, most: int) -> tuple[Material, Int[np.ndarray, " h"]]:
        """Hosts of one half; the same for all candidates, unless members of one can be hosts of another."""
        if self.shared_hosts and half in self.known_hosts:
            return self.known_hosts[half]
        maps = self.maps
        rng = np.random.default_rng([self.step.seed, maps.target + 1, 1_000_000 + half])
        in_first = np.isin(maps.hosts, self.first)
        usable = (in_first if half == 0 else ~in_first) & ~np.isin(maps.hosts, candidate.rows)
        chosen = some(np.flatnonzero(usable), most, rng)
        found = Material.at(self.site, self.read(maps.hosts[chosen])), maps.host_labels[chosen]
        self.known_hosts = {half: found}
        return found

    def _screen(self, split: _Split) -> _Screened:
        """On half A, against the matched control only: the most promising region, or if none is one that is larger.

        That is where members told by content differ from the others, or one that moves; and one that moves, too, where
        it does clearly more to all the members than the other to the few that have it.
        """
        samples = self._samples(split, 0, self.most[0])
        where = CHANNELS if self.maps.layer else FIXED
        tried: list[_Screened] = []
        for scale, region in enumerate(split.regions):
            if scale == 0 or not np.array_equal(region, split.regions[scale - 1]):
                trial = self._trial(samples, split, _shared(region), [])
                tried.append(_Screened(scale, self._screened(trial, region, where, split)))
        best = max(tried, key=lambda one: (one.evidence.promising, one.evidence.score))
        promising = best.evidence.promising >= self.step.screen
        if where == CHANNELS or (promising and split.carried >= MOST):
            return best
        whole = replace(split, members=split.whole)
        if not promising and (region := self._spread(split)).any():
            trial = self._trial(self._samples(whole, 0, self.most[0]), whole, _shared(region), [])
            where = SPREAD if self.step.is_large(region) else FIXED
            found = self._screened(replace(trial, spread=where == SPREAD), region, where, whole)
            if found.promising >= self.step.screen:
                return _Screened(0, replace(found, by_content=True))
        trial = self._trial(self._samples(whole, 0, self.most[0]), whole, self.step.own_regions, [])
        moving = _Screened(0, self._screened(trial, split.regions[0], MOVING, whole))
        # What a fixed place does to those who have it there, it does to none of the other members. In their own
        # regions these have honest features, so a few with a tag and many without are no reason either.
        least = TWICE * split.carried * best.evidence.promising if promising else 0.0
        return moving if moving.evidence.promising >= max(self.step.screen, least) else best

    def _spread(self, split: _Split) -> Bool[np.ndarray, "y x"]:
        """Where members told by content differ from the rest of the class, on half A; nowhere for others."""
        maps = self.maps
        if maps.contents is None or not split.candidate.mode:
            return np.zeros(maps.maps.shape[1:], bool)
        half = (maps.contents[np.searchsorted(maps.rows, rows)] for rows in (split.whole[0], split.rest[0]))
        return self.step.spread.shared(*half)

    def _screened(self, trial: Trial, region: Bool[np.ndarray, ...], where: str, split: _Split) -> Evidence:
        removal = trial.removal(self.step.fills_of(self.site), SCREENING)
        pasted = trial.transplants(SCREENING)
        return Evidence(
            region,
            where,
            False,
            removal,
            pasted.effect,
            pasted.flip_rates(),
            len(trial.hosts),
            rows=np.union1d(*split.members),
            members=sum(map(len, split.whole)),
        )

    def _test(self, index: int, screened: _Screened, passed: Sequence[bool]) -> Evidence:
        """On half B, against all controls."""
        split = self.splits[index]
        assert split is not None
        chosen = screened.evidence
        if chosen.where == MOVING or chosen.by_content:
            split = replace(split, members=split.whole)
        regions = self.step.own_regions if chosen.where == MOVING else _shared(chosen.region)
        rivals = self._rivals(index, screened, passed)
        samples = self._samples(self._honest(split, passed), 1, self.most[1])
        trial = replace(self._trial(samples, split, regions, rivals), spread=chosen.where == SPREAD)
        removal = trial.removal(self.step.fills_of(self.site), TESTING)
        pasted = trial.transplants(TESTING)
        told = next(fill for fill in self.step.fills_of(self.site) if fill.name == removal.weakest)
        return Evidence(
            chosen.region,
            chosen.where,
            True,
            removal,
            pasted.effect,
            pasted.flip_rates(),
            len(trial.hosts),
            pasted.independence(),
            None if self.maps.layer else pasted.moved(self.step.jitter),
            {} if self.maps.layer else pasted.shown(told, PICTURED),
            chosen.rows,
            chosen.members,
            max(self._mode(chosen), split.candidate.mode),
            chosen.by_content,
        )

    def _mode(self, chosen: Evidence) -> float:
        """Which share of the tested members is a mode of its own, by the relevance in the region; 0 without a rest."""
        maps = self.maps
        if chosen.where == MOVING:
            units = maps.of(maps.rows)
            relevance = (
                (units * self.step.own_regions(maps, maps.rows)).reshape(len(units), -1).sum(1)[:, None]
            )
        else:
            relevance = maps.around(chosen.region)
        line = held_out_line(relevance, np.isin(maps.rows, chosen.rows), self.step.seed)
        return 0.0 if line is None else upper_mode(line - 0.5)

    def _honest(self, split: _Split, passed: Sequence[bool]) -> _Split:
        """Without members of other candidates among the rest, where enough are left: they may take another shortcut."""
        others = [found.rows for found, good in zip(self.findings, passed, strict=True) if good]
        rest = np.setdiff1d(split.rest[1], np.concatenate(others))
        return replace(split, rest=(split.rest[0], rest)) if 2 * len(rest) >= MEMBERS_AT_LEAST else split

    def _samples(self, split: _Split, half: int, most: int) -> _Samples:
        rng = np.random.default_rng([*split.seed, half])
        rows, rest_rows = some(split.members[half], most, rng), some(split.rest[half], most, rng)
        members = Material.at(self.site, self.read(rows))
        hosts, host_labels = self._hosts(split.candidate, half, most * self.hosts_each[half])
        return _Samples(rows, members, rest_rows, self._material(rest_rows, members), hosts, host_labels)

    def _trial(
        self, samples: _Samples, split: _Split, regions: Regions, rivals: Sequence[Candidate]
    ) -> Trial:
        step, maps, site, members = self.step, self.maps, self.site, samples.members
        rng = np.random.default_rng([*split.seed, len(rivals), len(samples.rows)])
        places = regions(maps, samples.rows)
        cells = round(float(places.reshape(len(places), -1).sum(1).mean()))
        most = len(samples.hosts)
        return Trial(
            site=site,
            shared=Part(members, site.masks(places, members.content)),
            elsewhere=Part(members, site.masks(_elsewhere(places, len(members), rng), members.content)),
            rest=Part(
                samples.rest,
                site.masks(step.matched_regions(maps, samples.rest_rows, cells), members.content),
            ),
            rivals=[
                Part(
                    self._material(some(rival.rows, most, rng), members),
                    site.masks(rival.region[None], members.content),
                )
                for rival in rivals
            ],
            hosts=samples.hosts,
            host_labels=samples.host_labels,
            measure=maps.measure,
            seed=int(rng.integers(2**31)),
            permutations=step.permutations,
        )

    def _material(self, rows: Int[np.ndarray, " k"], like: Material) -> Material:
        return Material.at(self.site, self.read(rows)) if len(rows) else like.none

    def _rivals(self, index: int, screened: _Screened, passed: Sequence[bool]) -> list[Candidate]:
        """Regions of other findings. Not of other candidates: of two shortcuts neither may hide the other."""
        found = []
        for other, split in enumerate(self.splits):
            if split is None or other == index or passed[other] or len(split.whole[1]) < MEMBERS_AT_LEAST:
                continue  # the contents of a few would make a few comparisons, which prove nothing either way
            region = split.regions[screened.scale]
            own = region & ~screened.evidence.region
            if own.sum() > DISTINCT * region.sum():
                found.append(Candidate(split.whole[1], own))
        return sorted(found, key=lambda rival: -len(rival.rows))[:RIVALS]


def _relevance_in(
    region: Bool[np.ndarray, ...], units: Float[np.ndarray, "n ..."]
) -> Float[np.ndarray, " n"]:
    inside: Float[np.ndarray, " n"] = units[:, region].sum(1)
    return inside


def _shared(region: Bool[np.ndarray, ...]) -> Regions:
    return lambda maps, rows: region[None]


def _elsewhere(
    regions: Bool[np.ndarray, "#k ..."], count: int, rng: np.random.Generator
) -> Bool[np.ndarray, "k ..."]:
    """As large regions somewhere else: the same shape moved (wrapping around the border), or other channels.

    Another one for each of ``count`` images: whether a place counts must not hang on one throw for all of them.
    """
    each = np.broadcast_to(regions, (count, *regions.shape[1:]))
    if regions.ndim == 2:
        return np.array([_other_channels(region, rng) for region in each], bool).reshape(each.shape)
    sides = np.array(regions.shape[1:])
    moves = rng.integers(sides // 4, sides - sides // 4 + 1, (count, 2))
    moved = [np.roll(region, tuple(move), (0, 1)) for region, move in zip(each, moves, strict=True)]
    return np.array(moved, bool).reshape(each.shape)


def _other_channels(region: Bool[np.ndarray, " c"], rng: np.random.Generator) -> Bool[np.ndarray, " c"]:
    """As many of the others, or all of them."""
    others = np.flatnonzero(~region)
    chosen = np.zeros_like(region)
    chosen[rng.choice(others, min(int(region.sum()), len(others)), replace=False)] = True
    return chosen
