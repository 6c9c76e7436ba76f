"""Two groups of which one comes by degrees: told apart where the samples between them are the fewest.

A half-transparent word is plain on what is dark and gone on what is white. Those who carry it scatter along the line
that tells them from the others several times as widely as these, so that what halves the odds of two groups of one
scatter (`robust_mixture`) cuts off a part of them. The valley between the two needs no scatter.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from spray.findings.discriminant import Valley, valley
from spray.findings.refinement import GroupsOfOneScatter

SETTLED = 1e-3
"""Of all samples: so few change sides when they count as told apart."""


def low_density_separation(
    features: Float[np.ndarray, "n d"], members: Bool[np.ndarray, " n"], rounds: int, seed: int
) -> tuple[Bool[np.ndarray, " n"], float] | None:
    """Those beyond the valley and how much of a mode they are (`upper_mode`); None where there is no valley.

    In turn, each half of the samples lies on the line of Fisher's discriminant that the other half shows, and those
    beyond the valley between the medians of the two are the members that the next discriminant is taught. No sample
    has a say in where it lies, so that what the members are at first does not confirm itself.

    Source: Chapelle and Zien 2005, Semi-supervised classification by low density separation.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    halves = [(order[::2], order[1::2]), (order[1::2], order[::2])]
    known = [GroupsOfOneScatter(features[fitted]) for fitted, _ in halves]
    inside, found = members, Valley(0.0, 0.0)
    for _ in range(rounds):
        line = np.empty(len(features))
        for (fitted, held), groups in zip(halves, known, strict=True):
            side = inside[fitted]
            log_odds = groups.log_odds(side.astype(np.float64), features)
            if not np.isfinite(log_odds).all():
                return None
            low, high = np.median(log_odds[fitted][~side]), np.median(log_odds[fitted][side])
            if not high > low:
                return None
            line[held] = (log_odds[held] - low) / (high - low) - 0.5
        found = valley(line)
        if not found.mode:
            return None
        before, inside = inside, line > found.at
        if (inside != before).sum() <= SETTLED * len(line):
            break
    return inside, found.mode
