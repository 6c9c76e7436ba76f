"""Pictures: the spectral embedding in two dimensions, for looking only. No number is computed from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float, Int

from spray.analysis.parallel import one_thread
from spray.analysis.spectral import row_normalised

SUBSAMPLE = 20_000
"""Samples that are laid out by a picture's own method; further ones are placed among their neighbours."""
UMAP_WORTHWHILE = 30_000
"""Samples, over all groups of a run, from which UMAP's compilation (30 to 50 CPU-seconds) pays."""


class Picture(Protocol):
    """Lays samples out in the plane by their spectral embedding."""

    name: ClassVar[str]

    def place(self, points: Float[np.ndarray, "m k"], seed: int) -> Float[np.ndarray, "m 2"]:
        """Coordinates of ``m`` ≥ 6 samples."""
        ...


@dataclass(frozen=True)
class TSNE:
    """t-SNE (van der Maaten and Hinton 2008), Barnes–Hut, started from the spectral embedding."""

    perplexity: float = 20.0
    iterations: int = 300
    name: ClassVar[str] = "tsne"

    def place(self, points: Float[np.ndarray, "m k"], seed: int) -> Float[np.ndarray, "m 2"]:
        """Coordinates; the perplexity is lowered to a third of small groups."""
        from sklearn import manifold

        start = _first_two(points)
        start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
        model = manifold.TSNE(
            perplexity=min(self.perplexity, (len(points) - 1) / 3),
            max_iter=self.iterations,
            init=start.astype(np.float32),
            angle=0.7,
            learning_rate="auto",
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(points.astype(np.float32)), dtype=np.float32)


@dataclass(frozen=True)
class UMAP:
    """UMAP (McInnes et al. 2018), seeded and on one thread so that it repeats."""

    neighbours: int = 15
    min_dist: float = 0.1
    name: ClassVar[str] = "umap"

    def place(self, points: Float[np.ndarray, "m k"], seed: int) -> Float[np.ndarray, "m 2"]:
        """Coordinates; at most m − 1 neighbours."""
        import umap

        start = _first_two(points)
        model = umap.UMAP(
            n_neighbors=min(self.neighbours, len(points) - 1),
            min_dist=self.min_dist,
            init=(10 * start / max(float(np.abs(start).max()), 1e-12)).astype(np.float32),
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(points.astype(np.float32)), dtype=np.float32)


def picture(
    method: Picture, vectors: Float[np.ndarray, "m k"], seed: int = 0, *, subsample: int = SUBSAMPLE
) -> Float[np.ndarray, "m 2"]:
    """The picture of a spectral embedding; of more than ``subsample`` samples, some stand for the rest.

    The rest lie at the mean of their three nearest placed neighbours in the spectral embedding. Fewer than
    six samples are shown by their first two eigenvectors.
    """
    points = row_normalised(vectors)
    if len(points) < 6:
        return _first_two(points).astype(np.float32)
    if len(points) <= subsample:
        with one_thread():
            return method.place(points, seed)
    chosen = np.sort(np.random.default_rng(seed).choice(len(points), subsample, replace=False))
    placed = np.empty((len(points), 2), dtype=np.float32)
    placed[chosen] = picture(method, vectors[chosen], seed, subsample=subsample)
    rest = np.setdiff1d(np.arange(len(points)), chosen)
    from scipy.spatial import KDTree

    _, nearest = KDTree(points[chosen]).query(points[rest], k=3)
    placed[rest] = placed[chosen[nearest]].mean(axis=1)
    return placed


def beside(
    placed: Float[np.ndarray, "i 2"], inside: Int[np.ndarray, " i"], count: int
) -> Float[np.ndarray, "m 2"]:
    """The picture of the samples numbered in ``inside``, with the others at one point at its lower left."""
    low, high = placed.min(axis=0), placed.max(axis=0)
    places = np.tile(low - (high - low) / 10, (count, 1)).astype(np.float32)
    places[inside] = placed
    return places


def choose(name: str, samples: int) -> str:
    """The picture that "auto" stands for in a run of so many samples; other names stand for themselves."""
    if name == "auto":
        return UMAP.name if samples >= UMAP_WORTHWHILE else TSNE.name
    if name != "none" and name not in PICTURES:
        raise ValueError(f"unknown picture {name!r}: choose one of {', '.join([*PICTURES, 'auto', 'none'])}.")
    return name


def _first_two(points: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m 2"]:
    """The second and third column, the first that tell samples apart; zeros where there are none."""
    return np.pad(points[:, 1:3], ((0, 0), (0, max(0, 3 - points.shape[1]))))[:, :2]


PICTURES: dict[str, type[TSNE | UMAP]] = {step.name: step for step in (TSNE, UMAP)}
"""Pictures by name."""
