"""Proof by intervention: is a finding's shared region necessary (removal) and sufficient (transplant)?

The region comes from one half of the members, effects are measured on the other. Honest features are
sufficient (a bag's handle makes a bag) or necessary, rarely both: the score is the geometric mean of the
two net effects. It proves that the model *uses* the region, not that it is wrong to use it: that stays the
human's verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spray.findings.effects import Effect
from spray.findings.interventions import Fill, LocalMeanFill, NeighbourFill, transplant
from spray.findings.membership import reliance, relying
from spray.findings.prediction import ClassScorer
from spray.findings.regions import TopRegion, pixel_mask, unit_maps
from stores.provenance import TUNING, Json

ReadInputs = Callable[[Int[np.ndarray, " n"]], Float[Tensor, "n c h w"]]

MEMBERS_AT_LEAST = 10
"""Fewer members give halves too small for a region or an effect."""
HOSTS_OF_A_SAMPLE = 4
"""Hosts on which each sample's own content is pasted when its membership is decided."""
RIVALS = 4
"""At most so many other findings' regions serve as controls; the largest are taken."""


@dataclass(frozen=True)
class Candidate:
    """Rows that may share a strategy, in a class of rows that else follow others."""

    rows: Int[np.ndarray, " m"]
    region: Bool[np.ndarray, "y x"]


@dataclass(frozen=True)
class ClassMaps:
    """Relevance by place of the samples of one class, and the rows of images that may serve as hosts."""

    group: int
    rows: Int[np.ndarray, " n"]
    maps: Float[np.ndarray, "n y x"]
    hosts: Int[np.ndarray, " h"]

    def of(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m y x"]:
        """Unit maps of some rows of the class."""
        return unit_maps(self.maps[np.searchsorted(self.rows, rows)])


@dataclass(frozen=True)
class Evidence:
    """What the interventions showed."""

    region: Bool[np.ndarray, "y x"]
    removal: Effect
    transplant: Effect
    flip_rate: float
    """Share of hosts that become the class when the region's content is pasted."""

    @property
    def score(self) -> float:
        """√(net removal · net transplant), in probability; 0 where either is not positive."""
        return float(np.sqrt(max(self.removal.net, 0) * max(self.transplant.net, 0)))

    def certain(self, seed: int) -> bool:
        """Whether both net effects lie above 0 with their whole intervals."""
        return self.removal.interval(seed)[0] > 0 and self.transplant.interval(seed)[0] > 0

    def to_json(self, seed: int) -> dict[str, Json]:
        """For the store."""
        return {
            "score": self.score,
            "certain": self.certain(seed),
            "removal": self.removal.to_json(seed),
            "transplant": self.transplant.to_json(seed),
            "flip_rate": self.flip_rate,
        }


@dataclass(frozen=True)
class Verification:
    """Removal and transplant of shared regions, against relevance-matched controls.

    Args:
        members: at most so many members, non-members and hosts are intervened on per finding.
        fills: ways of removing; all have to agree, since each alone can make an artefact of its own.
        region: how a region is taken from relevance.
        screen: where the effects themselves, before controls, stay below this score, the regions of other findings
            are not tried as controls any more: the finding has failed without them.
    """

    members: int = 100
    fills: tuple[Fill, ...] = (NeighbourFill(), LocalMeanFill())
    region: TopRegion = field(default_factory=TopRegion)
    screen: float = 0.03
    seed: int = 0
    batch: int = field(default=256, metadata=TUNING)

    def __post_init__(self) -> None:
        if self.members < 1 or not self.fills:
            raise ValueError(
                f"members is {self.members} and there are {len(self.fills)} fills; a verification needs at least one "
                "of each."
            )

    def verify(
        self,
        model: nn.Module,
        read: ReadInputs,
        maps: ClassMaps,
        candidates: Sequence[Candidate],
        device: torch.device,
    ) -> list[Evidence | None]:
        """Evidence for every candidate of a class, in order; None where it has too few members or hosts."""
        scorer = ClassScorer(model, maps.group, device, self.batch)
        found: list[Evidence | None] = []
        for index in range(len(candidates)):
            rng = np.random.default_rng([self.seed, maps.group + 1, index])
            trial = self._trial(read, maps, candidates, index, rng)
            found.append(None if trial is None else self._judge(scorer, trial, rng))
        return found

    def membership(
        self,
        model: nn.Module,
        read: ReadInputs,
        maps: ClassMaps,
        candidate: Candidate,
        device: torch.device,
    ) -> Int[np.ndarray, " n"]:
        """Rows of the class that rely on the candidate's region, each asked by intervention, ascending."""
        rng = np.random.default_rng([self.seed, maps.group + 1])
        hosts = read(_some(maps.hosts, HOSTS_OF_A_SAMPLE, rng))
        mask = _as_mask(pixel_mask(candidate.region, *hosts.shape[-2:]))
        scorer = ClassScorer(model, maps.group, device, self.batch)
        parts = np.array_split(maps.rows, -(-len(maps.rows) // self.batch))
        fill = LocalMeanFill()
        effects = [reliance(scorer, read(part), hosts, mask, fill, self.seed) for part in parts]
        members = np.isin(maps.rows, candidate.rows)
        found: Int[np.ndarray, " n"] = maps.rows[relying(members, np.concatenate(effects))]
        return found

    def _trial(
        self,
        read: ReadInputs,
        maps: ClassMaps,
        candidates: Sequence[Candidate],
        index: int,
        rng: np.random.Generator,
    ) -> _Trial | None:
        candidate = candidates[index]
        if len(candidate.rows) < MEMBERS_AT_LEAST or len(maps.hosts) < MEMBERS_AT_LEAST:
            return None
        shuffled = rng.permutation(candidate.rows)
        half_a, half_b = np.sort(shuffled[::2]), np.sort(shuffled[1::2])
        rest = np.setdiff1d(maps.rows, candidate.rows)
        region = self.region.shared(maps.of(half_a), maps.of(rest))
        if not region.any():
            return None
        members = read(_some(half_b, self.members, rng))
        rest_rows = _some(rest, self.members, rng)
        hosts = read(_some(maps.hosts, self.members, rng))
        height, width = members.shape[-2:]
        cells = int(region.sum())
        own = [pixel_mask(self.region.of(unit, cells), height, width) for unit in maps.of(rest_rows)]
        rivals = sorted((c for i, c in enumerate(candidates) if i != index), key=lambda c: -len(c.rows))[
            :RIVALS
        ]
        return _Trial(
            region=region,
            mask=_as_mask(pixel_mask(region, height, width)),
            members=members,
            hosts=hosts,
            rest=read(rest_rows) if len(rest_rows) else members[:0],
            rest_masks=torch.from_numpy(np.array(own, bool).reshape(-1, 1, height, width)),
            rivals=[
                (
                    _as_mask(pixel_mask(rival.region, height, width)),
                    read(_some(rival.rows, self.members, rng)),
                )
                for rival in rivals
                if rival.region.any()
            ],
            shifted=_as_mask(pixel_mask(_shifted(region, rng), height, width)),
        )

    def _judge(self, scorer: ClassScorer, trial: _Trial, rng: np.random.Generator) -> Evidence:
        """Effects with their cheap controls first; rivals only where the effects could matter at all."""
        seeds = rng.integers(2**31, size=len(self.fills) + 1)
        removals, transplants = (
            self._removals(scorer, trial, seeds),
            _Transplants(scorer, trial, int(seeds[-1])),
        )
        reach = (
            min(float(np.mean(removal.effect)) for removal in removals),
            float(np.mean(transplants.effect)),
        )
        rivals = np.sqrt(max(reach[0], 0) * max(reach[1], 0)) >= self.screen
        removal = Effect(
            "removal",
            {item.fill.name: item.effect for item in removals},
            {
                name: {item.fill.name: item.controls(rivals)[name] for item in removals}
                for name in ("matched", "random", *(["other findings"] if rivals else []))
            },
        )
        way = "in place"
        controls = {name: {way: effect} for name, effect in transplants.controls(rivals).items()}
        transplanted = Effect("transplant", {way: transplants.effect}, controls)
        return Evidence(trial.region, removal, transplanted, transplants.flip_rate)

    def _removals(self, scorer: ClassScorer, trial: _Trial, seeds: Int[np.ndarray, " s"]) -> list[_Removals]:
        before = scorer.probability(trial.members), scorer.probability(trial.rest)
        return [
            _Removals(scorer, trial, fill, before, int(seed))
            for fill, seed in zip(self.fills, seeds[:-1], strict=True)
        ]


@dataclass(frozen=True)
class _Trial:
    """Inputs and masks of one candidate's interventions."""

    region: Bool[np.ndarray, "y x"]
    mask: Bool[Tensor, "1 1 h w"]
    members: Float[Tensor, "m c h w"]
    hosts: Float[Tensor, "n c h w"]
    rest: Float[Tensor, "r c h w"]
    rest_masks: Bool[Tensor, "r 1 h w"]
    """Each non-member's own most relevant region, as large as the candidate's: the relevance-matched control."""
    rivals: Sequence[tuple[Bool[Tensor, "1 1 h w"], Float[Tensor, "k c h w"]]]
    shifted: Bool[Tensor, "1 1 h w"]


class _Removals:
    """Falls in probability when a region is filled in one way: in the members, and in the controls."""

    def __init__(
        self,
        scorer: ClassScorer,
        trial: _Trial,
        fill: Fill,
        before: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " r"]],
        seed: int,
    ) -> None:
        self.scorer, self.trial, self.fill, self.before = scorer, trial, fill, before
        self.generator = torch.Generator().manual_seed(seed)
        natural = trial.rest if len(trial.rest) else trial.hosts
        self.natural = natural[
            torch.from_numpy(_deal(len(natural), len(trial.members), np.random.default_rng(seed)))
        ]
        self.effect = self._fall(trial.mask)

    def controls(self, rivals: bool) -> dict[str, Float[np.ndarray, " k"]]:
        """By name: each non-member's own top region, the same shape elsewhere, and other findings' regions."""
        trial = self.trial
        own = self.fill.apply(trial.rest, trial.rest_masks, trial.rest.roll(1, 0), self.generator)
        controls = {
            "matched": self.before[1] - self.scorer.probability(own),
            "random": self._fall(trial.shifted),
        }
        if rivals:
            falls = [self._fall(mask) for mask, _ in trial.rivals]
            controls["other findings"] = max(falls, key=np.mean, default=np.zeros(0))
        return controls

    def _fall(self, mask: Bool[Tensor, "1 1 h w"]) -> Float[np.ndarray, " m"]:
        filled = self.fill.apply(self.trial.members, mask, self.natural, self.generator)
        fall: Float[np.ndarray, " m"] = self.before[0] - self.scorer.probability(filled)
        return fall


class _Transplants:
    """Rises in probability when regions' contents are pasted on images of other classes."""

    def __init__(self, scorer: ClassScorer, trial: _Trial, seed: int) -> None:
        self.scorer, self.trial = scorer, trial
        self.rng = np.random.default_rng(seed)
        self.before = scorer.probability(trial.hosts)
        pasted, flipped = scorer.judge(self._pasted(trial.members, trial.mask))
        self.effect = pasted - self.before
        self.flip_rate = float(flipped.mean())

    def controls(self, rivals: bool) -> dict[str, Float[np.ndarray, " k"]]:
        """By name, as for removals; content comes from those whose region it is."""
        trial = self.trial
        controls = {
            "matched": self._rise(trial.rest, trial.rest_masks),
            "random": self._rise(trial.members, trial.shifted),
        }
        if rivals:
            rises = [self._rise(donors, mask) for mask, donors in trial.rivals]
            controls["other findings"] = max(rises, key=np.mean, default=np.zeros(0))
        return controls

    def _rise(
        self, donors: Float[Tensor, "k c h w"], masks: Bool[Tensor, "#k 1 h w"]
    ) -> Float[np.ndarray, " h"]:
        if not len(donors):
            return np.zeros(0)
        rise: Float[np.ndarray, " h"] = self.scorer.probability(self._pasted(donors, masks)) - self.before
        return rise

    def _pasted(
        self, donors: Float[Tensor, "k c h w"], masks: Bool[Tensor, "#k 1 h w"]
    ) -> Float[Tensor, "h c h w"]:
        dealt = torch.from_numpy(_deal(len(donors), len(self.trial.hosts), self.rng))
        return transplant(self.trial.hosts, donors[dealt], masks if len(masks) == 1 else masks[dealt])


def _some(rows: Int[np.ndarray, " n"], most: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    return np.sort(rng.choice(rows, most, replace=False)) if len(rows) > most else rows


def _deal(donors: int, hosts: int, rng: np.random.Generator) -> Int[np.ndarray, " hosts"]:
    """A donor for each host, every donor about equally often."""
    return rng.permutation(np.resize(np.arange(donors), hosts))


def _as_mask(mask: Bool[np.ndarray, "h w"]) -> Bool[Tensor, "1 1 h w"]:
    return torch.from_numpy(mask)[None, None]


def _shifted(region: Bool[np.ndarray, "y x"], rng: np.random.Generator) -> Bool[np.ndarray, "y x"]:
    """The same shape somewhere else (wrapping around the border)."""
    height, width = region.shape
    move = (
        int(rng.integers(height // 4, height - height // 4 + 1)),
        int(rng.integers(width // 4, width - width // 4 + 1)),
    )
    return np.roll(region, move, (0, 1))
