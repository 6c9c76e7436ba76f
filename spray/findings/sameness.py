"""Members by what is the same in all of them, whatever the others show there.

A grey line along photos is one colour in all that have it, and that colour lies in the midst of what other photos show
there: no line tells the two apart, but the distance from the one to the other does.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from spray.findings.halves import Half
from spray.findings.separation import Told, beyond_the_valley

ALIKE = 0.25
"""Features count where members scatter by at most this part of the others' scatter, in median absolute deviations."""
FEWEST, LEAST = 10, 3
"""Members in either half, and features that count, without which nothing can be said."""
CLOSEST = 1e-3
"""Of the others' scatter: what is nearer is the same."""


def same_content(
    features: Float[np.ndarray, "n d"], members: Bool[np.ndarray, " n"], rounds: int, seed: int
) -> Told | None:
    """Those nearer than the valley to the members' median, and how much of a mode they are; None if nothing is alike.

    The line is that of log-distances from the median that the members of a half show, over the features in which these
    scatter little. Medians bear with members that are none, up to a half.
    """
    return beyond_the_valley(lambda half: partial(_nearness, features, half), members, rounds, seed)


def _nearness(
    features: Float[np.ndarray, "n d"], half: Half, side: Bool[np.ndarray, " f"]
) -> Float[np.ndarray, " h"] | None:
    """Of the held samples to the fitted members: ½ at the median member, −½ at the median of the others."""
    fitted, held = half
    own, rest = features[fitted][side], features[fitted][~side]
    if min(len(own), len(rest)) < FEWEST:
        return None
    centre = np.median(own, axis=0)
    scatter = np.median(np.abs(rest - centre), axis=0)
    alike = np.median(np.abs(own - centre), axis=0) < ALIKE * scatter
    if alike.sum() < LEAST:
        return None

    def distance(some: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        apart = np.abs(some[:, alike] - centre[alike]) / scatter[alike]
        return np.asarray(np.log(np.minimum(apart, 1).mean(axis=1) + CLOSEST))

    near, far = np.median(distance(own)), np.median(distance(rest))
    if not far > near:
        return None
    return np.asarray((far - distance(features[held])) / (far - near) - 0.5)
