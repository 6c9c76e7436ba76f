"""One candidate's interventions on one half of the samples: what was done to which images, and what the model said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spray.findings.verification.effects import Control, Effect, strongest
from spray.findings.verification.fills import Fill, jittered, shorter_side, transplant
from spray.findings.verification.hosts import HostIndependence, host_independence
from spray.findings.verification.judge import FLIP, LOGIT, Readings
from spray.findings.verification.pairs import Pairs, matched
from spray.findings.verification.sites import Site

IN_PLACE = "in place"
SAME_PLACE = "same place"
"""The control of removal that fills the members' region in others of the class, where that is one region for all; and
of the transplant of a large region, that pastes what those others have there."""


@dataclass(frozen=True)
class Material:
    """Some samples: their images, what is at the site of the interventions, and what the model says of them."""

    images: Float[Tensor, "n ..."]
    content: Float[Tensor, "n ..."]
    before: Readings

    @classmethod
    def at(cls, site: Site, images: Float[Tensor, "n ..."]) -> Material:
        """Of at least one image."""
        return cls(images, site.content(images), site.judge.read(images))

    @property
    def none(self) -> Material:
        """No sample of this kind."""
        return Material(self.images[:0], self.content[:0], self.before[:0])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Part:
    """Samples with the region of each (or one for all) that may be removed from them or pasted elsewhere."""

    material: Material
    masks: Bool[Tensor, "#n ..."]

    def masks_of(self, chosen: Int[Tensor, " k"]) -> Bool[Tensor, "#k ..."]:
        """The regions of some of the samples."""
        return self.masks if len(self.masks) == 1 else self.masks[chosen]


@dataclass(frozen=True)
class Trial:
    """Interventions on the members of a candidate, with their controls.

    Attributes:
        shared: members with the region that they share.
        elsewhere: the same members with the same shape at another place (other channels).
        rest: others of the class, each with its own most relevant region, as large: the relevance-matched control.
        rivals: members of other findings with their regions; and those regions on the members of this one.
        hosts: samples that are not of the class.
        host_labels: their labels, −1 where unknown.
        spread: whether the region is large, so that one moved elsewhere lies on the class's own parts.
    """

    site: Site
    shared: Part
    elsewhere: Part
    rest: Part
    rivals: Sequence[Part]
    hosts: Material
    host_labels: Int[np.ndarray, " h"]
    measure: int
    seed: int
    permutations: int
    spread: bool = False

    def removal(self, fills: Sequence[Fill], controls: Sequence[str]) -> Effect:
        """Falls of the class when the region is filled, in each way; controls by name (``TESTING`` of `testing`)."""
        ways: dict[str, Readings] = {}
        compared: dict[str, dict[str, Control]] = {name: {} for name in controls}
        for number, fill in enumerate(fills):
            rng = np.random.default_rng([self.seed, number])
            natural = self.natural(rng)
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            members = self.shared.material

            def fall(
                part: Part,
                others: Float[Tensor, "n ..."],
                fill: Fill = fill,
                generator: torch.Generator = generator,
            ) -> Readings:
                content = fill.apply(part.material.content, part.masks, others, generator)
                found: Readings = part.material.before - self.site.read(part.material.images, content)
                return found

            ways[fill.name] = fall(self.shared, natural)
            if "matched" in compared:
                falls = fall(self.rest, self.rest.material.content.roll(1, 0))
                compared["matched"][fill.name] = matched(len(members), falls, rng)
            if "random" in compared:
                compared["random"][fill.name] = Control.of(fall(self.elsewhere, natural))
            if "other findings" in compared:
                tried = [fall(Part(members, rival.masks), natural) for rival in self.rivals]
                found = [Control.of(values) for values in tried]
                compared["other findings"][fill.name] = strongest(found, self.measure)
            if SAME_PLACE in compared:
                rest = self._rest_there()
                falls = fall(rest, rest.material.content.roll(1, 0))
                compared[SAME_PLACE][fill.name] = matched(len(members), falls, rng)
        return Effect("removal", ways, compared, self.measure, self.seed, self.permutations)

    def _rest_there(self) -> Part:
        """The rest with the members' region: what a fill itself does, and what the class has there anyway."""
        fixed = len(self.shared.masks) == 1
        return Part(self.rest.material if fixed else self.rest.material.none, self.shared.masks[:1])

    def transplants(self, controls: Sequence[str]) -> Transplants:
        """Rises of the class in the hosts when the region's content is pasted on them."""
        return Transplants(self, controls)

    def natural(self, rng: np.random.Generator) -> Float[Tensor, "m ..."]:
        """Content of other images for each member: of the class where there are others, of the hosts else."""
        source = self.rest.material if len(self.rest.material) else self.hosts
        dealt = rng.permutation(np.resize(np.arange(len(source)), len(self.shared.material)))
        return source.content[torch.from_numpy(dealt)]


class Transplants:
    """The pasted pairs of a trial, and what they show by unit and by host."""

    def __init__(self, trial: Trial, controls: Sequence[str]) -> None:
        self.trial = trial
        self.rng = np.random.default_rng([trial.seed, 1000])
        self.pairs = Pairs.deal(len(trial.shared.material), len(trial.hosts), self.rng)
        self.rises = self._rise(trial.shared, self.pairs.donor)
        self.measured: dict[str, Readings] = {}
        """Of each control the rise of every pair."""
        self.groups: dict[str, Int[np.ndarray, " u"]] = {}
        """Units that had to share a content of others, by control."""
        if "matched" in controls and len(trial.rest.material):
            self.measured["matched"], self.groups["matched"] = self._of_others(trial.rest)
        if SAME_PLACE in controls and trial.spread and len(trial.rest.material):
            there = Part(trial.rest.material, trial.shared.masks[:1])
            self.measured[SAME_PLACE], self.groups[SAME_PLACE] = self._of_others(there)
        if "random" in controls:
            self.measured["random"] = self._rise(trial.elsewhere, self.pairs.donor)
        if "other findings" in controls:
            tried = [self._of_others(rival) for rival in trial.rivals if len(rival.material)]
            if tried:
                strongest = max(tried, key=lambda one: float(one[0][:, trial.measure].mean()))
                self.measured["other findings"], self.groups["other findings"] = strongest

    @property
    def effect(self) -> Effect:
        """By unit, with the controls."""
        trial, alone = self.trial, np.arange(self.pairs.units)
        ways = {IN_PLACE: self.pairs.averaged(self.rises)}
        controls = {
            name: {IN_PLACE: Control(self.pairs.averaged(values), self.groups.get(name, alone))}
            for name, values in self.measured.items()
        }
        return Effect("transplant", ways, controls, trial.measure, trial.seed, trial.permutations)

    def flip_rates(self) -> dict[str, float]:
        """Share of hosts that become the class: by the region's content, and by each control's on the same hosts."""
        return {
            name: self._flipped(values) for name, values in {"shared": self.rises, **self.measured}.items()
        }

    def moved(self, jitter: float) -> Effect:
        """The content pasted beside its place, by up to this share of the shorter side: does it work elsewhere?"""
        reach = max(1, round(jitter * shorter_side(self.trial.hosts.images)))
        donors, hosts = torch.from_numpy(self.pairs.donor), torch.from_numpy(self.pairs.host)
        material, shared = self.trial.hosts, self.trial.shared
        content = jittered(
            material.content[hosts],
            shared.material.content[donors],
            shared.masks_of(donors),
            reach,
            self.rng,
        )
        rises = self.trial.site.read(material.images[hosts], content) - material.before[self.pairs.host]
        return Effect("jittered transplant", {"jittered": self.pairs.averaged(rises)}, {}, self.trial.measure)

    def shown(self, fill: Fill, count: int) -> dict[str, Float[Tensor, "n c h w"]]:
        """A few members and the same without the region; a few hosts and the same with it."""
        trial, shared = self.trial, self.trial.shared
        chosen = torch.arange(min(count, len(shared.material)))
        members, masks = shared.material.content[chosen], shared.masks_of(chosen)
        natural = trial.natural(np.random.default_rng([trial.seed, 2000]))[: len(members)]
        generator = torch.Generator().manual_seed(trial.seed)
        donors, hosts = (torch.from_numpy(side[:count]) for side in (self.pairs.donor, self.pairs.host))
        onto, content = trial.hosts.content[hosts], shared.material.content[donors]
        return {
            "members": members,
            "removed": fill.apply(members, masks, natural, generator),
            "hosts": onto,
            "pasted": transplant(onto, content, shared.masks_of(donors)),
        }

    def independence(self) -> HostIndependence:
        """Of the kind of host: does it work at all on each, beyond what any content of the members does?

        That it does more than matched content is tested over all hosts; the class's own parts do most, in log-odds,
        where an image is least like the class, and nothing exceeds them there. A large region moved elsewhere lies on
        such parts: it is the same place of others that it is compared with.
        """
        beside = SAME_PLACE if SAME_PLACE in self.measured else "random"
        controls = {name: self._by_host(values) for name, values in self.measured.items() if name == beside}
        return host_independence(self.trial.host_labels, self._by_host(self.rises), controls)

    def _of_others(self, part: Part) -> tuple[Readings, Int[np.ndarray, " u"]]:
        """Contents of other samples' own regions on the same hosts; and the units that had to share one."""
        sources, groups = self.pairs.sources(len(part.material), self.rng)
        return self._rise(part, sources), groups

    def _rise(self, part: Part, donors: Int[np.ndarray, " p"]) -> Readings:
        hosts, material = self.pairs.host, self.trial.hosts
        dealt, onto = torch.from_numpy(donors), torch.from_numpy(hosts)
        content = transplant(material.content[onto], part.material.content[dealt], part.masks_of(dealt))
        rises: Readings = self.trial.site.read(material.images[onto], content) - material.before[hosts]
        return rises

    def _by_host(self, values: Readings) -> Float[np.ndarray, " h"]:
        """Mean rise in log-odds of each host: all of them are in some pair."""
        total = np.bincount(self.pairs.host, weights=values[:, LOGIT], minlength=len(self.trial.hosts))
        mean: Float[np.ndarray, " h"] = total / np.bincount(self.pairs.host, minlength=len(self.trial.hosts))
        return mean

    def _flipped(self, rises: Readings) -> float:
        """Hosts are none of the class before, as a rule: what became it afterwards, before plus rise."""
        after = self.trial.hosts.before[self.pairs.host, FLIP] + rises[:, FLIP]
        return float(after.mean())
