"""Approximate neighbours for very large groups, and how many of the exact ones they find."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from spray.analysis.exact import exact_neighbours

PROBE = 1000
"""Rows whose exact neighbours measure the recall."""


def nn_descent(features: Float[np.ndarray, "n d"], k: int, seed: int) -> Int[np.ndarray, "n k"]:
    """k near other rows of each row, nearest first, by NN-descent (Dong et al. 2011), seeded.

    Its first call in a process compiles for half a minute. It may return a row as its own neighbour, or, among
    exact duplicates, too few others; such rows get their exact neighbours.
    """
    from pynndescent import NNDescent

    found = NNDescent(
        features.astype(np.float32), n_neighbors=k + 1, random_state=seed, low_memory=True, compressed=False
    )
    indices, _ = found.neighbor_graph
    others = (indices != np.arange(len(features))[:, None]) & (indices >= 0)
    # Real neighbours to the front, in their order of distance; then the first k of them.
    order = np.argsort(~others, axis=1, kind="stable")[:, :k]
    short = np.flatnonzero(others.sum(axis=1) < k)
    indices = np.take_along_axis(indices, order, axis=1).astype(np.int64)
    if len(short):
        indices[short] = exact_neighbours(features, k, queries=short)[0]
    return indices


def probed_recall(
    features: Float[np.ndarray, "n d"], indices: Int[np.ndarray, "n k"], *, probe: int = PROBE, seed: int = 0
) -> float:
    """The share of exact neighbours among those found, on ``probe`` rows drawn by seed.

    A found neighbour counts if it is no farther than the exact k-th one, so that ties are no misses.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(features), min(probe, len(features)), replace=False))
    _, exact = exact_neighbours(features, indices.shape[1], queries=rows)
    hits = 0
    for row, farthest in zip(rows, exact[:, -1], strict=True):
        apart = np.linalg.norm(features[indices[row]].astype(np.float64) - features[row], axis=1)
        hits += int((apart <= farthest * (1 + 1e-6) + 1e-12).sum())
    return hits / indices[rows].size
