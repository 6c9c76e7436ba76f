"""Other ways to find planted groups, each given the best of its clusters by an oracle who knows the truth."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def score(members: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Purity ("precision") and recall of a group."""
    hits = int((members & truth).sum())
    return {
        "precision": round(hits / max(int(members.sum()), 1), 3),
        "recall": round(hits / max(int(truth.sum()), 1), 3),
    }


def best(groups: list[np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """That of the group with the highest F1; zeros if there is none."""
    scores = [score(members, truth) for members in groups] or [{"precision": 0.0, "recall": 0.0}]
    return max(scores, key=lambda it: it["precision"] * it["recall"] / max(sum(it.values()), 1e-9))


def oracle(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The best single cluster."""
    return best([labels == cluster for cluster in np.unique(labels) if cluster >= 0], truth)


def corelay(maps: np.ndarray) -> np.ndarray:
    """CoRelAy's spectral clustering, all defaults (two clusters of 32 eigenvectors)."""
    from corelay.pipeline.spectral import SpectralClustering

    flat = maps.reshape(len(maps), -1)
    return np.asarray(SpectralClustering()(flat / np.abs(flat).sum(axis=1, keepdims=True))[1])


def kmeans(features: np.ndarray, clusters: int = 8) -> np.ndarray:
    """k-means, scikit-learn's number of clusters."""
    from sklearn.cluster import KMeans

    return KMeans(clusters, n_init=10, random_state=0).fit_predict(features.reshape(len(features), -1))


@torch.no_grad()
def activations(model: torch.nn.Module, images: Tensor) -> np.ndarray:
    """What enters the last layer."""
    return torch.cat([model[:-1](batch) for batch in images.split(1000)]).numpy()


def peers(maps: np.ndarray, model: torch.nn.Module, images: Tensor, truth: np.ndarray) -> dict:
    """The best cluster of each, of one class's relevance maps, model and images."""
    return {
        "corelay": oracle(corelay(maps), truth),
        "raw maps": oracle(kmeans(maps), truth),
        "activations": oracle(kmeans(activations(model, images)), truth),
    }
