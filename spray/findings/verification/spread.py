"""A pattern all over the picture has no small region: where what members show differs from the rest of their class.

Relevance is spread thin over a texture, and its few most relevant cells do nothing by themselves. Of members that were
told by what their images show it is known where that differs, and those cells can be filled and pasted as any region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

RIDGE = 1e-3
"""Of the mean variance, added to every cell's: corners are black in most pictures."""


@dataclass(frozen=True)
class ContentRegion:
    """The cells in which the contents of members and others differ by a large effect, the largest first.

    Args:
        effect: least difference of the means in standard deviations, of any channel (Cohen's d).
        share: of all cells, at most: what is left has to be an image of its own.

    Source: Cohen 1988, Statistical power analysis, section 2.2: 0.8 is a large effect.
    """

    effect: float = 0.8
    share: float = 0.25

    def shared(
        self, members: Float[np.ndarray, "m c y x"], rest: Float[np.ndarray, "r c y x"]
    ) -> Bool[np.ndarray, "y x"]:
        """Where they differ; nowhere without a rest, or where no cell differs by so much."""
        grid = members.shape[2:]
        if not len(members) or not len(rest):
            return np.zeros(grid, bool)
        variance = (members.var(0, dtype=np.float64) + rest.var(0, dtype=np.float64)) / 2
        apart = np.abs(members.mean(0, dtype=np.float64) - rest.mean(0, dtype=np.float64))
        scale = np.sqrt(variance + RIDGE * variance.mean() + np.finfo(float).tiny)
        effects = (apart / scale).max(0).ravel()
        region = np.zeros(effects.size, bool)
        # Stable order: among equal cells the first wins, on every machine.
        largest = np.argsort(-effects, kind="stable")[: round(self.share * effects.size)]
        region[largest] = effects[largest] >= self.effect
        return region.reshape(grid)
