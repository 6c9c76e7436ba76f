"""Shared relevant channels: the few channels of a layer where members have relevance that others lack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


def unit_vectors(relevance: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Rows of L2 norm 1; rows of zeros stay zero."""
    norms = np.sqrt(np.square(relevance, dtype=np.float64).sum(1, keepdims=True))
    units: Float[np.ndarray, "n c"] = relevance / np.where(norms > 0, norms, 1)
    return units


@dataclass(frozen=True)
class TopChannels:
    """The ``share`` of a layer's channels with the largest relevance: positive ones only, at least one."""

    share: float = 0.03

    def of(self, contrast: Float[np.ndarray, " c"], cells: int | None = None) -> Bool[np.ndarray, " c"]:
        """The channels of one sample, so many if given; none where none is positive."""
        count = max(1, round(self.share * contrast.size)) if cells is None else cells
        top = np.argsort(-contrast, kind="stable")[:count]
        chosen = np.zeros(contrast.size, bool)
        chosen[top] = contrast[top] > 0
        return chosen

    def shared(
        self, members: Float[np.ndarray, "m c"], rest: Float[np.ndarray, "r c"]
    ) -> Bool[np.ndarray, " c"]:
        """Where unit vectors of the members have more relevance on average than those of the rest."""
        contrast = members.mean(0)
        return self.of(contrast - rest.mean(0) if len(rest) else contrast)
