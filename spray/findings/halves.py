"""Halves of some samples, each told by what the other shows: nobody has a say in where it lies."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

Half = tuple[Int[np.ndarray, " f"], Int[np.ndarray, " h"]]
"""The samples that something is fitted on, and those that are told by it."""


def crossed_halves(count: int, seed: int) -> tuple[Half, Half]:
    """Two random halves of 0…count: the one fitted and the other told, and the other way round."""
    order = np.random.default_rng(seed).permutation(count)
    one, other = order[::2], order[1::2]
    return (one, other), (other, one)
