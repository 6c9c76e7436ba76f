"""Who else in the class relies on a verified region? Membership decided by intervention, sample by sample.

Clusters are made of whole maps: a few members of a tagged cluster carry no tag, and a few tagged samples
lie elsewhere. Once a region is shown to be used, each sample of the class is asked itself: does removing
the region cost it the class (necessity), and does its own content of the region make others the class
(sufficiency)?
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spray.findings.interventions import Fill, transplant
from spray.findings.prediction import ClassScorer

HALFWAY = 0.5
"""On a scale from the median of the rest (0) to the median of the members (1)."""


def reliance(
    scorer: ClassScorer,
    images: Float[Tensor, "n c h w"],
    hosts: Float[Tensor, "k c h w"],
    mask: Bool[Tensor, "1 1 h w"],
    fill: Fill,
    seed: int,
) -> Float[np.ndarray, "n 2"]:
    """Effect in log-odds of removing the region from each image, and of pasting its content on the hosts (mean)."""
    generator = torch.Generator().manual_seed(seed)
    effects = []
    for part in images.split(scorer.batch):
        filled = fill.apply(part, mask, part.roll(1, 0), generator)
        removal = scorer.log_odds(part) - scorer.log_odds(filled)
        rises = [
            scorer.log_odds(transplant(host.expand_as(part), part, mask)) - scorer.log_odds(host[None])
            for host in hosts
        ]
        effects.append(np.stack([removal, np.mean(rises, axis=0)], axis=1))
    return np.concatenate(effects)


def relying(members: Bool[np.ndarray, " n"], effects: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Samples nearer to the typical member than to the typical other one, in both effects.

    Unchanged where there is no rest, or where members and rest do not differ in both effects.
    """
    if members.all() or not members.any():
        return members
    inside, outside = np.median(effects[members], axis=0), np.median(effects[~members], axis=0)
    if (inside <= outside).any():
        return members
    scaled = (effects - outside) / (inside - outside)
    found: Bool[np.ndarray, " n"] = (scaled >= HALFWAY).all(1)
    return found
