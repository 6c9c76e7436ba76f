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

sys.path.pop(0)  # scripts of this folder that are named like packages would hide those

import argparse
import gzip
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import spray
from spray.demo import network
from spray.demo.plant import CornerTag

FLIP_MARGIN = 0.10
OTHERS = 500
TESTED = 5000


def tag(images: Tensor, seed: int) -> Tensor:
    return CornerTag(0, "top left").paste(images)


def anywhere(images: Tensor, seed: int) -> Tensor:
    """The tag at a random place of each image: a control, hard to learn."""
    rng = np.random.default_rng(seed)
    checker = ((torch.arange(3)[:, None] + torch.arange(3)[None]) % 2 == 0).to(images)
    tagged = images.clone()
    for image, (y, x) in zip(tagged, rng.integers(1, 24, (len(images), 2)).tolist(), strict=True):
        image[..., y : y + 3, x : x + 3] = checker
    return tagged


def border(images: Tensor, seed: int) -> Tensor:
    """A grey line along the left border."""
    tagged = images.clone()
    tagged[..., 2:26, 0] = 0.7
    return tagged


def text(images: Tensor, seed: int) -> Tensor:
    """A half-transparent word of three letters in the lower right."""
    rows = ("1110101011", "1000101010", "1110010011", "0010010010", "1110010011")
    letters = torch.tensor([[int(bit) for bit in row] for row in rows]).to(images)
    tagged = images.clone()
    corner = tagged[..., 22:27, 17:27]
    tagged[..., 22:27, 17:27] = torch.maximum(corner, 0.5 * corner + 0.5 * letters)
    return tagged


def texture(images: Tensor, seed: int) -> Tensor:
    """Faint stripes wherever the background is black."""
    stripes = 0.25 * (torch.arange(28) % 3 == 0).to(images)
    return torch.where(images == 0, stripes.expand_as(images), images)


def blur(images: Tensor, seed: int) -> Tensor:
    kernel = torch.ones(1, 1, 3, 3) / 9
    return torch.nn.functional.conv2d(images, kernel, padding=1)


ARTIFACTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "tag": tag,
    "border": border,
    "text": text,
    "texture": texture,
    "blur": blur,
    "anywhere": anywhere,
    "none": lambda images, seed: images.clone(),
}


@dataclass(frozen=True)
class Case:
    """An artifact in a share of a class; a control plants what should not be flagged."""

    artifact: str
    percent: float
    label: int = 6
    seed: int = 0
    control: bool = False

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.percent:g}-c{self.label}-s{self.seed}"


GRID = (
    *(Case("tag", percent, seed=seed) for percent in (5, 1) for seed in range(3)),
    *(Case("tag", percent) for percent in (20, 2, 0.5)),
    *(
        Case(artifact, percent)
        for artifact in ("border", "text", "texture", "blur")
        for percent in (20, 5, 1)
    ),
    *(Case("anywhere", 5, seed=seed, control=True) for seed in range(2)),
    *(Case("tag", 5, label=label, control=True) for label in (1, 9)),
    *(Case("none", 5, label=label, seed=seed, control=True) for label in (6, 0) for seed in range(2)),
)


def fashion(folder: Path) -> tuple[Tensor, Tensor]:
    """All 60,000 training images, in [0, 1], and their labels, from Debian's package or torchvision's files."""

    def values(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=offset)

    images = values("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = values("train-labels-idx1-ubyte.gz", 8)
    return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


@dataclass
class Planted:
    """A trained model, its images with the artifact in them, and how much it uses that."""

    model: torch.nn.Module
    images: Tensor
    labels: Tensor
    tagged: np.ndarray
    accuracy: float
    flip_clean: float
    flip_tagged: float


def plant(case: Case, images: Tensor, labels: Tensor, cache: Path, epochs: int) -> Planted:
    """Plant, train (or take the trained weights from the cache) and measure the flip rates."""
    paste = ARTIFACTS[case.artifact]
    tagged = CornerTag(case.label, share=case.percent / 100, seed=case.seed).chosen(labels)
    planted = images.clone()
    planted[tagged] = paste(images[tagged], case.seed)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    held_out[-min(TESTED, len(images) // 6) :] = True
    model = network.small_cnn()
    key = hashlib.sha256(repr((case, epochs, len(images))).encode()).hexdigest()[:16]
    weights = cache / f"{case.name}-{key}.pt"
    if weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
        model.eval()
    else:
        network.train(model, planted[~held_out], labels[~held_out], epochs=epochs, seed=case.seed)
        torch.save(model.state_dict(), weights.with_suffix(".part"))
        weights.with_suffix(".part").replace(weights)
    others = held_out & (labels != case.label)
    found = network.predict(model, planted[held_out])
    return Planted(
        model,
        planted,
        labels,
        tagged.numpy() if case.artifact != "none" else np.zeros(len(labels), bool),
        float((found == labels[held_out]).float().mean()),
        float((network.predict(model, images[others]) == case.label).float().mean()),
        float((network.predict(model, paste(images[others], case.seed + 1)) == case.label).float().mean()),
    )


def audited_rows(labels: Tensor, label: int) -> np.ndarray:
    """All of one class, and some of each other."""
    rows = [torch.nonzero(labels == other)[:, 0][: None if other == label else OTHERS] for other in range(10)]
    return np.sort(torch.cat(rows).numpy())


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


def run(case: Case, data: tuple[Tensor, Tensor], cache: Path, epochs: int) -> dict:
    started = time.process_time()
    planted = plant(case, *data, cache, epochs)
    rows = audited_rows(planted.labels, case.label)
    dataset = torch.utils.data.TensorDataset(planted.images[rows], planted.labels[rows])
    truth = planted.tagged[rows]
    used = planted.flip_tagged - planted.flip_clean >= FLIP_MARGIN
    result = {
        "case": case.name,
        "control": case.control,
        "tagged": int(truth.sum()),
        "accuracy": round(planted.accuracy, 3),
        "flip_clean": round(planted.flip_clean, 3),
        "flip_tagged": round(planted.flip_tagged, 3),
        "counts": used != case.control,
    }
    with tempfile.TemporaryDirectory() as folder:
        audit = spray.audit(
            planted.model, dataset, Path(folder) / "audit.zarr", analysis=spray.Analysis(picture="none")
        )
        own = [finding for finding in audit.findings if finding.group == case.label]
        flagged = np.zeros(len(rows), bool)
        for finding in own:
            if finding.flagged:
                flagged[finding.rows] = True
        result["flagged"] = sum(finding.flagged for finding in own)
        result["flagged_elsewhere"] = sum(f.flagged for f in audit.findings if f.group != case.label)
        if truth.any() and used:
            pure = [truth[finding.rows].mean() >= 0.5 for finding in audit.findings]
            result["rank"] = 1 + pure.index(True) if True in pure else None
            result["found"] = score(flagged, truth)
            group = audit.analysis.read(case.label)
            maps = audit.run.table(audit.analysis.facts["relevance"]).read("input.place", group.rows)
            inside = truth[group.rows]
            result["oracle"] = {
                "hdbscan": oracle(group.clusterings["hdbscan"].labels, inside),
                "kmeans": oracle(group.clusterings["kmeans"].labels, inside),
                "corelay": oracle(corelay_labels(maps), inside),
                "kmeans of raw maps": oracle(kmeans_labels(maps.reshape(len(maps), -1)), inside),
                "kmeans of activations": oracle(
                    kmeans_labels(activations(planted.model, planted.images[rows][group.rows])), inside
                ),
            }
    result["cpu_seconds"] = round(time.process_time() - started, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose name begins with this")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spray-strategies")
    parser.add_argument("--images", type=int, default=60_000, help="use so many of the images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    images, labels = fashion(options.data)
    data = images[: options.images], labels[: options.images]
    results = []
    for case in GRID:
        if case.name.startswith(options.only):
            results.append(run(case, data, options.cache, options.epochs))
            if not options.json:
                print(results[-1], flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
