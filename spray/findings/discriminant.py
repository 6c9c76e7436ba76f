"""How some samples lie apart from the others: on a line that others show, and as a mode of its own or as its tail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from spray.findings.halves import crossed_halves

HALF_AT_LEAST = 3
"""Fewer samples on a side of a half show no direction."""
MODE_AT_LEAST = 5
"""Fewer values are no mode."""
BINS_OF_A_WIDTH, FARTHEST = 4, 4000
"""Bins of a histogram in one bandwidth of its density, and on each side of 0: what is farther counts as being there."""


def held_out_line(
    features: Float[np.ndarray, "n d"], inside: Bool[np.ndarray, " n"], seed: int
) -> Float[np.ndarray, " n"] | None:
    """Where each sample lies on the line that tells the inside from the outside: 0 and 1 are the medians of the two.

    The samples are halved at random; the direction and its medians come from the half that a sample is not in. Fisher's
    discriminant with Ledoit–Wolf shrunken within-scatter, so that there may be more features than samples. None where a
    half has too few samples on a side, or shows no direction.
    """
    line = np.zeros(len(features))
    for fitted, held in crossed_halves(len(features), seed):
        side = inside[fitted]
        if min(int(side.sum()), int((~side).sum())) < HALF_AT_LEAST:
            return None
        direction = _direction(features[fitted], side)
        known = features[fitted] @ direction
        low, high = float(np.median(known[~side])), float(np.median(known[side]))
        if not high > low:
            return None
        line[held] = (features[held] @ direction - low) / (high - low)
    return line


def _direction(features: Float[np.ndarray, "n d"], inside: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    """Fisher's; where neither side has any scatter, from the one mean to the other."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    sides = features[inside], features[~inside]
    if not any(np.ptp(side, axis=0).any() for side in sides):
        apart: Float[np.ndarray, " d"] = sides[0].mean(0) - sides[1].mean(0)
        return apart
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, inside)
    found: Float[np.ndarray, " d"] = fitted.coef_[0]
    return found


def upper_mode(values: Float[np.ndarray, " m"]) -> float:
    """Share of the values above 0 that are a mode of their own: their density above that of the valley before them.

    0 where the density falls all the way, or where there is none above 0. The bandwidth is that of the values above 0,
    the fewer as a rule, so that a long tail is not taken for modes.

    Source: excess mass, Müller and Sawitzki 1991; bandwidth of Silverman 1986, eq. 3.31.
    """
    return valley(values).mode


class Valley(NamedTuple):
    """The lowest density between the highest below 0 and above it, and how much of what lies beyond rises from it."""

    at: float
    mode: float


def valley(values: Float[np.ndarray, " m"]) -> Valley:
    """The valley before the values above 0, which may lie on either side of it; see ``upper_mode``."""
    above = values[values > 0]
    if not MODE_AT_LEAST <= len(above) < len(values) or not np.isfinite(values).all():
        return Valley(0.0, 0.0)
    quartiles = np.quantile(above, [0.25, 0.75])
    spread = min(float(above.std()), float(quartiles[1] - quartiles[0]) / 1.349)
    step = 0.9 * spread * len(above) ** -0.2 / BINS_OF_A_WIDTH
    if step <= 0:  # one value
        return Valley(0.0, 1.0)
    bins = np.clip(np.floor(values / step), -FARTHEST, FARTHEST).astype(np.int64) + FARTHEST
    counts = np.bincount(bins, minlength=2 * FARTHEST + 1).astype(np.float64)
    density = gaussian_filter1d(counts, BINS_OF_A_WIDTH, mode="constant")
    lower, upper = int(density[:FARTHEST].argmax()), FARTHEST + int(density[FARTHEST:].argmax())
    lowest = lower + int(density[lower : upper + 1].argmin())
    higher = density[lowest:]
    mode = float(np.maximum(higher - density[lowest], 0).sum() / higher.sum())
    return Valley((lowest - FARTHEST + 0.5) * step, mode)
