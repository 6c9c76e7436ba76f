"""Who else in the class relies on a verified region? Membership decided by intervention, sample by sample.

Clusters are made of whole maps: a few members of a tagged cluster carry no tag, and a few tagged samples
lie elsewhere. Once a region is shown to be used, each sample of the class is asked itself: does removing
the region cost it the class (necessity), and does its own content of the region make others the class
(sufficiency)? Both are noisy for a single sample, so what those who rely on the region have in common is then learned
from their relevance there, and every sample told by a discriminant that was fitted on others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from spray.findings.discriminant import held_out_line
from spray.findings.verification.classes import Candidate, ClassMaps, ReadInputs
from spray.findings.verification.fills import Fill, transplant
from spray.findings.verification.judge import LOGIT
from spray.findings.verification.pairs import some
from spray.findings.verification.sites import Site
from spray.findings.verification.step import MEMBERS_AT_LEAST, Verification
from spray.findings.verification.trial import Material, Part
from spray.memory import SpaceError, ran_out, release, way_out

HOSTS_OF_A_SAMPLE = 4
"""Hosts on which each sample's own content is pasted when its membership is decided."""
HALFWAY, LEAST = 0.6, 0.25
"""On a scale from the median of the rest (0) to the median of the members (1): of both effects together, and of each.

Removing and pasting one sample's content are two measurements of one thing, each with noise of its own."""
ROUNDS = 3
"""At most so many times is learned anew who the members are."""


def completed(
    step: Verification,
    model: nn.Module,
    read: ReadInputs,
    maps: ClassMaps,
    candidate: Candidate,
    device: torch.device,
    moving: bool = False,
) -> Int[np.ndarray, " n"]:
    """Rows of the class that rely on the candidate's region (``moving``: on their own), ascending.

    Raises:
        SpaceError: even one sample does not fit into memory.
    """
    rng = np.random.default_rng([step.seed, maps.target + 1])
    site = step.site(model, maps, device)

    def material(rows: Int[np.ndarray, " k"]) -> Material:
        return Material.at(site, read(rows))

    hosts = _as_many_as_fit(some(maps.hosts, HOSTS_OF_A_SAMPLE, rng), material, device)
    rest = some(np.setdiff1d(maps.rows, candidate.rows), step.members, rng)
    others = _as_many_as_fit(rest, material, device) if len(rest) else hosts

    def of_some(rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
        samples = material(rows)
        regions = step.own_regions(maps, rows) if moving else candidate.region[None]
        part = Part(samples, site.masks(regions, samples.content))
        return reliance(site, part, hosts, step.fills_of(site)[-1], others, step.seed)

    effects, waiting = [], list(np.array_split(maps.rows, -(-len(maps.rows) // step.batch)))
    while waiting:
        rows = waiting.pop(0)
        try:
            effects.append(of_some(rows))
        except (RuntimeError, MemoryError) as error:
            _refuse_the_least(error, len(rows), device)
            waiting[:0] = np.array_split(rows, 2)
            release(device)
    of_each = np.concatenate(effects)
    members = relying(np.isin(maps.rows, candidate.rows), of_each)
    if not moving:
        members = discerned(members, of_each, maps.around(candidate.region), step.seed)
    found: Int[np.ndarray, " n"] = maps.rows[members]
    return found


def _as_many_as_fit(
    rows: Int[np.ndarray, " k"], make: Callable[[Int[np.ndarray, " k"]], Material], device: torch.device
) -> Material:
    """Of the rows, or of every second, fourth, … of them where memory runs out.

    Raises:
        SpaceError: even one does not fit.
    """
    while True:
        try:
            return make(rows)
        except (RuntimeError, MemoryError) as error:
            _refuse_the_least(error, len(rows), device)
        rows = rows[::2]
        release(device)


def _refuse_the_least(error: Exception, count: int, device: torch.device) -> None:
    """Raise an error that fewer samples would not help."""
    if not ran_out(error) or isinstance(error, SpaceError):
        raise error
    if count < 2:
        raise SpaceError(
            f"Memory does not suffice for one image, changed and unchanged. {way_out(device)}"
        ) from error


def reliance(
    site: Site, part: Part, hosts: Material, fill: Fill, others: Material, seed: int
) -> Float[np.ndarray, "n 2"]:
    """Effect in log-odds of removing the region from each sample, and of pasting its content on the hosts (mean)."""
    samples = part.material
    generator = torch.Generator().manual_seed(seed)
    natural = others.content[torch.from_numpy(np.resize(np.arange(len(others)), len(samples)))]
    filled = fill.apply(samples.content, part.masks, natural, generator)
    removal = samples.before[:, LOGIT] - site.read(samples.images, filled)[:, LOGIT]
    rises: Sequence[Float[np.ndarray, " n"]] = [
        site.read(
            hosts.images[[host]].expand_as(samples.images),
            transplant(hosts.content[[host]].expand_as(samples.content), samples.content, part.masks),
        )[:, LOGIT]
        - hosts.before[host, LOGIT]
        for host in range(len(hosts))
    ]
    return np.stack([removal, np.mean(rises, axis=0)], axis=1)


def relying(members: Bool[np.ndarray, " n"], effects: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Samples nearer to the typical member than to the typical other one, with some of both effects.

    Unchanged where there is no rest, or where members and rest do not differ in both effects.
    """
    scaled = _scaled(members, effects)
    if scaled is None:
        return members
    found: Bool[np.ndarray, " n"] = (scaled.mean(1) >= HALFWAY) & (scaled >= LEAST).all(1)
    return found


def discerned(
    members: Bool[np.ndarray, " n"],
    effects: Float[np.ndarray, "n 2"],
    relevance: Float[np.ndarray, "n d"],
    seed: int,
) -> Bool[np.ndarray, " n"]:
    """Samples whose relevance lies nearer to that of the members than to that of the others, with some of both effects.

    Learned anew from those, up to ``ROUNDS`` times: a few wrong members hardly turn a direction that is fitted on all.
    Unchanged where members and others do not differ, or too few would be left to learn from.
    """
    for _ in range(ROUNDS):
        line, scaled = held_out_line(relevance, members, seed), _scaled(members, effects)
        if line is None or scaled is None:
            break
        found = (line >= 0.5) & (scaled >= LEAST).all(1)
        if np.array_equal(found, members) or found.sum() < MEMBERS_AT_LEAST:
            break
        members = found
    return members


def _scaled(
    members: Bool[np.ndarray, " n"], effects: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 2"] | None:
    """Effects from 0 (median of the others) to 1 (of the members); None where the two do not differ in both."""
    if members.all() or not members.any():
        return None
    inside, outside = np.median(effects[members], axis=0), np.median(effects[~members], axis=0)
    if (inside <= outside).any():
        return None
    scaled: Float[np.ndarray, "n 2"] = (effects - outside) / (inside - outside)
    return scaled
