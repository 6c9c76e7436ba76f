"""Permutation tests of paired differences, and what is left of them after many tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float

EXACT_UP_TO = 12
"""Units up to which every pattern of signs is tried: 4096 of them."""
DRAWN_AT_ONCE = 250
ENOUGH = 20
"""Permutations as extreme as the data after which no more are drawn: p is then known to about a fifth of itself."""


def sign_flip(differences: Float[np.ndarray, " n"], seed: int, permutations: int = 9999) -> float:
    """One-sided p-value of a mean above 0: under the null every unit's difference is as likely its opposite.

    All patterns of signs for few units, drawn ones else, until ``ENOUGH`` of them reach the data's mean (then
    p = reached / drawn) or ``permutations`` are drawn (p = (reached + 1) / (drawn + 1)). 1 without units.

    Raises:
        ValueError: a difference is NaN or infinite; as a mean of signs it would outdo every other.

    Source: Fisher 1935; Besag and Clifford 1991 for the stop.
    """
    count = len(differences)
    unknown = count - int(np.isfinite(differences).sum())
    if unknown:
        raise ValueError(
            f"{unknown} of {count} differences are NaN or infinite: leave them out before the test."
        )
    observed = float(differences.sum())
    if not count or observed <= 0:
        return 1.0
    # Sums that differ by rounding only are equal.
    reach = observed - 1e-9 * float(np.abs(differences).sum())
    if count <= EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=count)))
        return float((signs @ differences >= reach).mean())
    rng = np.random.default_rng(seed)
    drawn = reached = 0
    while drawn < permutations:
        size = min(DRAWN_AT_ONCE, permutations - drawn)
        hits = np.flatnonzero(_flipped(differences, size, rng) >= reach)
        if reached + len(hits) >= ENOUGH:
            return ENOUGH / (drawn + int(hits[ENOUGH - reached - 1]) + 1)
        reached, drawn = reached + len(hits), drawn + size
    return (reached + 1) / (drawn + 1)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """q-values, in order: the least rate of false discoveries at which each hypothesis is rejected.

    Raises:
        ValueError: a p-value is none.

    Source: Benjamini and Hochberg 1995, as adjusted p-values: qᵢ = minⱼ≥ᵢ p₍ⱼ₎ · m / j.
    """
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(list(p_values))] if len(p_values) else []


def _flipped(
    differences: Float[np.ndarray, " n"], size: int, rng: np.random.Generator
) -> Float[np.ndarray, " size"]:
    # Doubles and not bits: the stream is then the same however many are drawn at once.
    signs = np.where(rng.random((size, len(differences))) < 0.5, 1.0, -1.0)
    sums: Float[np.ndarray, " size"] = signs @ differences
    return sums
