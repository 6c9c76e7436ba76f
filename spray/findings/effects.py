"""Effects of interventions with their controls and bootstrapped intervals. The image is the exchangeable unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stores.provenance import Json

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """Mean effect of one kind of intervention on the probability of a class, against its controls.

    Attributes:
        name: "removal" or "transplant".
        images: per-image effects, one array for each way of doing it (such as each fill operator).
        controls: per-image effects of each control, by its name, for each way.
    """

    name: str
    images: Mapping[str, Float[np.ndarray, " n"]]
    controls: Mapping[str, Mapping[str, Float[np.ndarray, " k"]]]

    @property
    def weakest(self) -> str:
        """The way of doing it whose net effect is smallest: every way has to agree."""
        return min(self.images, key=self.net_of)

    @property
    def mean(self) -> float:
        """Mean effect of the weakest way."""
        return float(self.images[self.weakest].mean())

    @property
    def net(self) -> float:
        """Mean effect less the largest control's, of the weakest way."""
        return self.net_of(self.weakest)

    def net_of(self, way: str) -> float:
        """Mean effect less the largest control's mean, of one way; controls below 0 count as 0."""
        return float(self.images[way].mean() - max(self._strongest(way).mean(), 0.0))

    def interval(self, seed: int, resamples: int = 1000) -> tuple[float, float]:
        """Bootstrapped 95 % interval of the net effect of the weakest way, images resampled on both sides."""
        way = self.weakest
        rng = np.random.default_rng(seed)
        control = self._strongest(way)
        controls = np.maximum(_resampled_means(control, resamples, rng), 0)
        nets = _resampled_means(self.images[way], resamples, rng) - controls
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(nets, (tail, 1 - tail))
        return float(low), float(high)

    def to_json(self, seed: int) -> dict[str, Json]:
        """Everything a reader of the report needs to judge the effect."""
        way = self.weakest
        return {
            "mean": self.mean,
            "net": self.net,
            "net_interval": list(self.interval(seed)),
            "images": len(self.images[way]),
            "way": way,
            "ways": {name: float(values.mean()) for name, values in self.images.items()},
            "controls": {
                name: float(ways[way].mean()) for name, ways in self.controls.items() if len(ways[way])
            },
        }

    def _strongest(self, way: str) -> Float[np.ndarray, " k"]:
        """Per-image effects of the control with the largest mean; nothing to compare with counts as no effect."""
        candidates = [ways[way] for ways in self.controls.values() if len(ways[way])]
        return max(candidates, key=lambda values: float(values.mean()), default=np.zeros(1))


def _resampled_means(
    values: Float[np.ndarray, " n"], resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, " resamples"]:
    drawn: Float[np.ndarray, "resamples n"] = values[rng.integers(0, len(values), (resamples, len(values)))]
    means: Float[np.ndarray, " resamples"] = drawn.mean(1)
    return means
