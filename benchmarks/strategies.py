"""Does the library flag planted shortcuts, at its defaults, and nothing else? Many kinds of artifact, two data sets.

    python benchmarks/strategies.py                              # the whole grid on Fashion-MNIST
    python benchmarks/strategies.py --cifar cifar10.zip          # and the one on CIFAR-10
    python benchmarks/strategies.py --only tag-20 --cache ~/.cache/spray-benchmark
    python benchmarks/strategies.py --quick --json               # two cases on the demo's images

A case plants an artifact in a share of one class's training images, trains a small CNN, and audits the class with
500 images of each other class beside it. It counts if pasting the artifact on held-out images of other classes turns
at least 10 points more of them into the class than their clean versions; excluded cases are listed. Scored are
the findings *flagged* at library defaults. Beside them stand, with an oracle's choice of the best cluster, our own
clusters, CoRelAy's pipeline with its documented defaults, k-means on the raw maps, and k-means on activations.
Artifacts without a place are also looked for in other representations of the relevance.

Trained models, audits and results are kept in the cache by what they depend on: a run goes on where the last stopped.
`carton.py` is the part with a real shortcut.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # scripts of this folder that are named like packages would hide those

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import planted as planting
import torch
from planted import CIFAR_GRID, FASHION, GRID, QUICK, Case, Pictures, Planted, analysed, code_digest, plant
from torch import Tensor

import spray
from spray.analysis.features import Channels, Magnitude, Pooled, Radial, Representation
from spray.attribution import Attribution
from stores import AnalysisHandle, Run

PLACELESS = ("texture", "blur", "cast")
LAST_CONVOLUTION = "6"
"""In all networks of this benchmark."""
REPRESENTATIONS: dict[str, tuple[str, Representation]] = {
    "pooled": ("input.place", Pooled()),
    "magnitude": ("input.place", Magnitude()),
    "radial": ("input.place", Radial()),
    "channels": (f"{LAST_CONVOLUTION}.channel", Channels()),
}


def score(members: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    hits = int((members & truth).sum())
    return {
        "precision": round(hits / max(int(members.sum()), 1), 3),
        "recall": round(hits / max(int(truth.sum()), 1), 3),
    }


def oracle(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
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


@dataclass(frozen=True)
class Benchmark:
    """The cases on one data set, by its name and where it is."""

    data: str
    archive: Path
    images: int
    cache: Path
    peers: bool = True

    @property
    def cases(self) -> Sequence[Case]:
        return {"fashion": GRID, "cifar": CIFAR_GRID, "demo": QUICK}[self.data]

    def pictures(self) -> Pictures:
        if self.data == "demo":
            return planting.embedded()
        load = {"fashion": planting.fashion, "cifar": planting.cifar}[self.data]
        return load(self.archive, self.images)

    def result(self, case: Case) -> dict:
        """Of one case, taken from the cache if neither it nor the code has changed."""
        scripts = b"".join(Path(file).read_bytes() for file in (__file__, planting.__file__))
        code = (
            code_digest("engine", "attribution", "analysis", "findings"),
            hashlib.sha256(scripts).hexdigest(),
        )
        key = hashlib.sha256(repr((self.data, self.images, self.peers, case, code)).encode()).hexdigest()[:16]
        kept = self.cache / "results" / f"{self.data}-{case.name}-{key}.json"
        if not kept.exists():
            torch.set_num_threads(1)
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".part")
            partial.write_text(json.dumps(self.run(case), indent=1))
            partial.replace(kept)
        return json.loads(kept.read_text())

    def run(self, case: Case) -> dict:
        started = time.process_time()
        planted = plant(case, self.pictures(), self.cache)
        truth = planted.tagged[planted.rows]
        result = {
            "data": self.data,
            "case": case.name,
            "control": case.control,
            "tagged": int(truth.sum()),
            "accuracy": round(planted.accuracy, 3),
            "flip_clean": round(planted.flip_clean, 3),
            "flip_tagged": round(planted.flip_tagged, 3),
            "counts": planted.used != case.control,
        }
        with analysed(planted, self.cache) as (store, analysis, dataset):
            findings = spray.find(store, analysis, model=planted.model, dataset=dataset)
            own = [finding for finding in findings if finding.group == case.label]
            flagged = np.zeros(len(truth), bool)
            for finding in own:
                if finding.flagged:
                    flagged[finding.rows] = True
            result["flagged"] = sum(finding.flagged for finding in own)
            result["flagged_elsewhere"] = sum(
                finding.flagged for finding in findings if finding.group != case.label
            )
            if truth.any() and planted.used:
                pure = [truth[finding.rows].mean() >= 0.5 for finding in findings]
                result["rank"] = 1 + pure.index(True) if True in pure else None
                result["found"] = score(flagged, truth)
                result["oracle"] = oracles(planted, store, analysis, truth, self.peers)
        if truth.any() and planted.used and case.artifact in PLACELESS:
            result["representations"] = representations(planted, self.cache, truth)
        result["cpu_seconds"] = round(time.process_time() - started, 1)
        return result


def oracles(
    planted: Planted, store: Run, analysis: AnalysisHandle, truth: np.ndarray, peers: bool
) -> dict[str, dict[str, float]]:
    """The best cluster of each method, chosen with the truth."""
    group = analysis.read(planted.case.label)
    inside = truth[group.rows]
    found = {name: oracle(group.clusterings[name].labels, inside) for name in ("hdbscan", "kmeans")}
    if peers:
        maps = store.table(str(analysis.facts["relevance"])).read("input.place", group.rows)
        images = planted.images[planted.rows][group.rows]
        found["corelay"] = oracle(corelay_labels(maps), inside)
        found["raw maps"] = oracle(kmeans_labels(maps.reshape(len(maps), -1)), inside)
        found["activations"] = oracle(kmeans_labels(activations(planted.model, images)), inside)
    return found


def representations(planted: Planted, cache: Path, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """The best HDBSCAN cluster of each representation, chosen with the truth."""
    found = {}
    for name, (column, representation) in REPRESENTATIONS.items():
        attribution = Attribution(layers=(LAST_CONVOLUTION,))
        step = spray.Analysis(picture="none", representation=representation)
        label = planted.case.label
        with analysed(planted, cache, attribution, step, column, groups=[label]) as (_, analysis, _):
            group = analysis.read(label)
            found[name] = oracle(group.clusterings["hdbscan"].labels, truth[group.rows])
            found[name]["strategies"] = group.strategies
    return found


def row(result: dict) -> str:
    """A line of the table."""

    def pair(scores: dict[str, float] | None) -> str:
        return f"{scores['precision']:.2f} / {scores['recall']:.2f}" if scores else ""

    oracles = result.get("oracle", {})
    cells = [
        f"{result['data']} {result['case']}{' (control)' if result['control'] else ''}",
        str(result["tagged"]),
        f"{result['flip_clean']:.2f} → {result['flip_tagged']:.2f}",
        f"{result['flagged']} ({result['flagged_elsewhere']})",
        str(result.get("rank", "")),
        pair(result.get("found")) if result["counts"] else "excluded",
        *(pair(oracles.get(name)) for name in ("hdbscan", "kmeans", "corelay", "raw maps", "activations")),
        "; ".join(f"{name} {pair(scores)}" for name, scores in result.get("representations", {}).items()),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose name begins with this")
    parser.add_argument("--data", type=Path, default=FASHION, help="folder of Fashion-MNIST's files")
    parser.add_argument("--cifar", type=Path, help="zip of CIFAR-10 as train/CLASS/*.jpg")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spray-strategies")
    parser.add_argument("--images", type=int, default=60_000, help="use so many of Fashion-MNIST's images")
    parser.add_argument("--workers", type=int, default=1, help="cases at a time")
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="run other tools, too"
    )
    parser.add_argument("--quick", action="store_true", help="two cases on the demo's images, without peers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        benchmarks = [Benchmark("demo", FASHION, 10_000, options.cache, peers=False)]
    else:
        benchmarks = [Benchmark("fashion", options.data, options.images, options.cache, options.peers)]
        if options.cifar:
            benchmarks.append(Benchmark("cifar", options.cifar, 20_000, options.cache, options.peers))
    results = []
    for result in collected(benchmarks, options.only, options.workers):
        results.append(result)
        if not options.json:
            print(row(result), flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


def collected(benchmarks: Sequence[Benchmark], only: str, workers: int) -> Iterator[dict]:
    """All results in order, so many at a time."""
    jobs = [(each, case) for each in benchmarks for case in each.cases if case.name.startswith(only)]
    if workers == 1:
        yield from (each.result(case) for each, case in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(Benchmark.result, *zip(*jobs, strict=True))


if __name__ == "__main__":
    main()
