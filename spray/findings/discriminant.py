"""A discriminant between some samples and the others, that tells each sample from samples other than itself."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

HALF_AT_LEAST = 3
"""Fewer samples on a side of a half show no direction."""


def held_out_line(
    features: Float[np.ndarray, "n d"], inside: Bool[np.ndarray, " n"], seed: int
) -> Float[np.ndarray, " n"] | None:
    """Where each sample lies on the line that tells the inside from the outside: 0 and 1 are the medians of the two.

    The samples are halved at random; the direction and its medians come from the half that a sample is not in. Fisher's
    discriminant with Ledoit–Wolf shrunken within-scatter, so that there may be more features than samples. None where a
    half has too few samples on a side, or shows no direction.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    order = np.random.default_rng(seed).permutation(len(features))
    line = np.zeros(len(features))
    for fitted, held in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        side = inside[fitted]
        if (
            min(int(side.sum()), int((~side).sum())) < HALF_AT_LEAST
            or not np.ptp(features[fitted], axis=0).any()
        ):
            return None
        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[fitted], side)
        known = discriminant.decision_function(features[fitted])
        low, high = float(np.median(known[~side])), float(np.median(known[side]))
        if not high > low:
            return None
        line[held] = (discriminant.decision_function(features[held]) - low) / (high - low)
    return line
