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

STABLE, DISSOLVED = 0.75, 0.5
"""Jaccard indices from which on a cluster is stable, and below which it has dissolved (Hennig 2007)."""
_FAR, _ENOUGH = 0.15, 3
"""Two draws end it if every cluster's mean lies so far beyond those limits; so many, if it lies beyond them."""


@dataclass(frozen=True)
class Stability:
    """Analyse ``draws`` resamples anew, each a ``share`` of the samples without repetition, and compare.

    Repeated samples would be each other's neighbours at distance zero, so a bootstrap with repetition says
    more about the resampling than about the data. ``rows``: at most so many samples per resample; 0 draws:
    none. Three will do where they say of every cluster whether it is found again: on average stable, or dissolved;
    and two, where they say so by far.
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
        found: Mapping[str, Labels],
        analyse: Callable[[Int[np.ndarray, " r"]], Mapping[str, Labels]],
        seed: int = 0,
        among: Int[np.ndarray, " a"] | None = None,
    ) -> dict[str, Json]:
        """Stability of each clustering, by name.

        Args:
            found: labels of all samples.
            analyse: labels of the samples of these numbers, by the same steps without the others.
            seed: of the resamples.
            among: the samples that are drawn from; all if left out. A cluster of none of them counts as lost.

        Returns:
            ``adjusted_rand``, the mean over resamples, and ``clusters``, for each cluster the mean of its
            largest Jaccard index, and the number of ``draws``.
        """
        if not self.draws or not found:
            return {}
        rng = np.random.default_rng(seed)
        among = np.arange(len(next(iter(found.values())))) if among is None else among
        size = max(2, min(int(self.share * len(among)), self.rows))
        drawn: dict[str, list[Float[np.ndarray, " f"]]] = {name: [] for name in found}
        for draw in range(1, self.draws + 1):
            chosen = among[np.sort(rng.choice(len(among), size, replace=False))]
            again = analyse(chosen)
            for name, labels in found.items():
                drawn[name].append(_figures(labels, labels[chosen], again[name]))
            margin = 0.0 if draw >= _ENOUGH else _FAR
            if draw > 1 and all(_settled(figures, margin) for figures in drawn.values()):
                break
        means = {name: np.mean(figures, axis=0) for name, figures in drawn.items()}
        return {
            name: {"adjusted_rand": float(mean[0]), "clusters": mean[1:].tolist(), "draws": len(drawn[name])}
            for name, mean in means.items()
        }


def _figures(labels: Labels, before: Labels, after: Labels) -> Float[np.ndarray, " f"]:
    """The adjusted Rand index of a resample's labels before and after, then each cluster's largest Jaccard index."""
    table = contingency(before, after)
    padded = np.zeros((int(labels.max(initial=-1)) + 2, table.shape[1]), dtype=np.int64)
    padded[: len(table)] = table
    each = jaccard_index(padded[1:, 1:], padded[1:].sum(axis=1), padded[:, 1:].sum(axis=0))
    return np.concatenate([[adjusted_rand(table)], each.max(axis=1, initial=0.0)])


def _settled(figures: list[Float[np.ndarray, " f"]], margin: float) -> bool:
    """Whether every cluster is on average stable or dissolved, by this margin, and none lies between."""
    mean = np.mean(figures, axis=0)[1:]
    return bool(((mean >= STABLE + margin) | (mean < DISSOLVED - margin)).all())
