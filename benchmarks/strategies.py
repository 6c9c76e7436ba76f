"""Does the library flag planted shortcuts, at its defaults, and nothing else? Fashion-MNIST, many kinds of artifact.

    python benchmarks/strategies.py                    # the whole grid
    python benchmarks/strategies.py --only tag-20 --cache ~/.cache/spray-benchmark
    python benchmarks/strategies.py --json

A case plants an artifact in a share of one class's training images, trains a small CNN, and audits the class with
500 images of each other class beside it. It counts if pasting the artifact on held-out images of other classes turns
at least 10 points more of them into the class than their clean versions; excluded cases are listed. Scored are
the findings *flagged* at library defaults. Beside them stand, with an oracle's choice of the best cluster, our own
clusters, CoRelAy's pipeline with its documented defaults, k-means on the raw maps, and k-means on activations.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # scripts of this folder that are named like packages would hide those

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from planted import FASHION, GRID, Case, Pictures, analysed, fashion, plant
from torch import Tensor

import spray


def score(members: np.ndarray, truth: np.ndarray) -> dict:
    hits = int((members & truth).sum())
    return {
        "precision": round(hits / max(int(members.sum()), 1), 3),
        "recall": round(hits / max(int(truth.sum()), 1), 3),
    }


def oracle(labels: np.ndarray, truth: np.ndarray) -> dict:
    """The best single cluster by F1: what nobody knows without the truth."""
    clusters = [labels == cluster for cluster in np.unique(labels) if cluster >= 0]
    scores = [score(members, truth) for members in clusters] or [{"precision": 0.0, "recall": 0.0}]
    return max(scores, key=lambda it: it["precision"] * it["recall"] / max(sum(it.values()), 1e-9))


def corelay_labels(maps: np.ndarray) -> np.ndarray:
    """CoRelAy's spectral clustering, all defaults (two clusters of 32 eigenvectors)."""
    from corelay.pipeline.spectral import SpectralClustering

    flat = maps.reshape(len(maps), -1)
    return np.asarray(SpectralClustering()(flat / np.abs(flat).sum(axis=1, keepdims=True))[1])


def kmeans_labels(features: np.ndarray, clusters: int = 8) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(clusters, n_init=10, random_state=0).fit_predict(features)


@torch.no_grad()
def activations(model: torch.nn.Module, images: Tensor) -> np.ndarray:
    """What enters the last layer."""
    return torch.cat([model[:-1](batch) for batch in images.split(1000)]).numpy()


def run(case: Case, pictures: Pictures, cache: Path) -> dict:
    started = time.process_time()
    planted = plant(case, pictures, cache)
    truth = planted.tagged[planted.rows]
    result = {
        "case": case.name,
        "control": case.control,
        "tagged": int(truth.sum()),
        "accuracy": round(planted.accuracy, 3),
        "flip_clean": round(planted.flip_clean, 3),
        "flip_tagged": round(planted.flip_tagged, 3),
        "counts": planted.used != case.control,
    }
    with analysed(planted, cache) as (store, analysis, dataset):
        findings = spray.find(store, analysis, model=planted.model, dataset=dataset)
        own = [finding for finding in findings if finding.group == case.label]
        flagged = np.zeros(len(truth), bool)
        for finding in own:
            if finding.flagged:
                flagged[finding.rows] = True
        result["flagged"] = sum(finding.flagged for finding in own)
        result["flagged_elsewhere"] = sum(f.flagged for f in findings if f.group != case.label)
        if truth.any() and planted.used:
            pure = [truth[finding.rows].mean() >= 0.5 for finding in findings]
            result["rank"] = 1 + pure.index(True) if True in pure else None
            result["found"] = score(flagged, truth)
            group = analysis.read(case.label)
            maps = store.table(analysis.facts["relevance"]).read("input.place", group.rows)
            inside = truth[group.rows]
            images = planted.images[planted.rows][group.rows]
            result["oracle"] = {
                "hdbscan": oracle(group.clusterings["hdbscan"].labels, inside),
                "kmeans": oracle(group.clusterings["kmeans"].labels, inside),
                "corelay": oracle(corelay_labels(maps), inside),
                "kmeans of raw maps": oracle(kmeans_labels(maps.reshape(len(maps), -1)), inside),
                "kmeans of activations": oracle(kmeans_labels(activations(planted.model, images)), inside),
            }
    result["cpu_seconds"] = round(time.process_time() - started, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose name begins with this")
    parser.add_argument("--data", type=Path, default=FASHION)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spray-strategies")
    parser.add_argument("--images", type=int, default=60_000, help="use so many of the images")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pictures = fashion(options.data, options.images)
    results = []
    for case in GRID:
        if case.name.startswith(options.only):
            results.append(run(case, pictures, options.cache))
            if not options.json:
                print(results[-1], flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
