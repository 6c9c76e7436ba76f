"""Would the clusters be found again? Stability over resamples of the group (Hennig 2007; Ben-Hur et al. 2002)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from spray.analysis.correspondence import adjusted_rand, contingency, jaccard_index
from stores.provenance import Json

Labels = Int[np.ndarray, " m"]


@dataclass(frozen=True)
class Stability:
    """Analyse ``draws`` resamples anew, each a ``share`` of the samples without repetition, and compare.

    Repeated samples would be each other's neighbours at distance zero, so a bootstrap with repetition says
    more about the resampling than about the data. ``rows``: at most so many samples per resample; 0 draws:
    none.
    """

    draws: int = 5
    share: float = 0.8
    rows: int = 5000
    name: ClassVar[str] = "stability"

    def __post_init__(self) -> None:
        if self.draws < 0 or not 0 < self.share < 1:
            raise ValueError(
                f"stability takes a number of draws and a share between 0 and 1; got draws={self.draws}, "
                f"share={self.share}."
            )

    def measure(
        self,
        features: Float[np.ndarray, "m d"],
        found: Mapping[str, Labels],
        analyse: Callable[[Float[np.ndarray, "r d"]], Mapping[str, Labels]],
        seed: int = 0,
    ) -> dict[str, Json]:
        """Stability of each clustering, by name.

        Args:
            features: of all samples.
            found: labels of all samples.
            analyse: labels of a resample, by the same steps.
            seed: of the resamples.

        Returns:
            ``adjusted_rand``, the mean over resamples, and ``clusters``, for each cluster the mean of its
            largest Jaccard index (from 0.75 on, Hennig calls a cluster stable; below 0.5, dissolved).
        """
        if not self.draws:
            return {}
        rng = np.random.default_rng(seed)
        size = max(2, min(int(self.share * len(features)), self.rows))
        rand: dict[str, list[float]] = {name: [] for name in found}
        jaccard: dict[str, list[Float[np.ndarray, " c"]]] = {name: [] for name in found}
        for _ in range(self.draws):
            chosen = np.sort(rng.choice(len(features), size, replace=False))
            again = analyse(features[chosen])
            for name, labels in found.items():
                table = contingency(labels[chosen], again[name])
                padded = np.zeros((int(labels.max(initial=-1)) + 2, table.shape[1]), dtype=np.int64)
                padded[: len(table)] = table
                rand[name].append(adjusted_rand(table))
                each = jaccard_index(padded[1:, 1:], padded[1:].sum(axis=1), padded[:, 1:].sum(axis=0))
                jaccard[name].append(each.max(axis=1, initial=0.0))
        return {
            name: {
                "adjusted_rand": float(np.mean(rand[name])),
                "clusters": np.mean(jaccard[name], axis=0).tolist(),
            }
            for name in found
        }
