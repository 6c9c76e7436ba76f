"""Spectral analysis at scale, side by side with CoRelAy and scikit-learn on the same maps.

    python benchmarks/analysis.py                    # 1k to 1M maps, peers to 20k, then 1000 classes of 1300 maps
    python benchmarks/analysis.py --sizes 1000 5000 --classes 0
    python benchmarks/analysis.py --json

Each measurement runs in a process of its own, peers beside ours at each size; at the end stands what is to be reached
on two cores, and whether it was. About half an hour. Data: 14 × 14 maps of eight strategies (a blob in one of eight
places) under noise, and a planted artifact (a corner) in 2 % of them. CPU seconds include compilation at run time
but not imports or the making of data; memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

STRATEGIES, ARTIFACT, SIDE = 8, 0.02, 14
VECTORS = 16
SIZES = [1000, 5000, 10_000, 20_000, 100_000, 1_000_000]
LARGEST = {"corelay": 20_000, "sklearn": 20_000, "spray, null and stability": 100_000}
"""Samples up to which a method is run: the peers' memory or time ends there, and the null takes 1000 rows of any."""


def maps(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps [n, 14, 14] and the strategy of each; the artifact is the last one."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    means = np.zeros((STRATEGIES + 1, SIDE, SIDE), np.float32)
    for strategy in range(STRATEGIES):
        angle = 2 * np.pi * strategy / STRATEGIES
        means[strategy] = np.exp(-((y - 4 * np.sin(angle)) ** 2 + (x - 4 * np.cos(angle)) ** 2) / 6)
    means[-1, 1:3, 1:3] = 1
    truth = rng.integers(STRATEGIES, size=n)
    truth[rng.choice(n, round(ARTIFACT * n), replace=False)] = STRATEGIES
    relevance = means[truth]
    for at in range(0, n, 65536):
        relevance[at : at + 65536] += 0.3 * rng.standard_normal(relevance[at : at + 65536].shape, np.float32)
    return relevance, truth


def spray(relevance: np.ndarray, full: bool) -> dict:
    from spray.analysis import Analysis
    from spray.analysis.null import GaussianNull
    from spray.analysis.stability import Stability

    bare = {} if full else {"null": GaussianNull(draws=0), "stability": Stability(draws=0)}
    found = Analysis(eigenvectors=VECTORS, picture="none", **bare).group(relevance)
    return {
        "eigenvalues": found.eigenvalues.tolist(),
        "strategies": found.strategies,
        "recall": found.facts["recall"],
        "labels": {name: clustering.labels for name, clustering in found.clusterings.items()},
    }


def corelay(relevance: np.ndarray) -> dict:
    """Its own pipeline with its own defaults but for the number of eigenvectors and of clusters, given both."""
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition

    pipeline = SpectralClustering(
        embedding=EigenDecomposition(n_eigval=VECTORS, is_output=True),
        clustering=KMeans(n_clusters=STRATEGIES + 1, is_output=True),
    )
    flat = relevance.reshape(len(relevance), -1)
    (values, _), labels = pipeline(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    return {"eigenvalues": sorted(values.tolist()), "labels": {"kmeans": labels}}


def sklearn(relevance: np.ndarray) -> dict:
    """kneighbors_graph, spectral_embedding with ARPACK, and k-means with the true number of clusters."""
    from sklearn.cluster import KMeans
    from sklearn.manifold import spectral_embedding
    from sklearn.neighbors import kneighbors_graph

    flat = relevance.reshape(len(relevance), -1)
    graph = kneighbors_graph(flat / np.linalg.norm(flat, axis=1, keepdims=True), 10)
    graph = (graph + graph.T) / 2
    k = STRATEGIES + 1
    vectors = spectral_embedding(
        graph, n_components=VECTORS, eigen_solver="arpack", random_state=0, drop_first=False
    )
    return {"labels": {"kmeans": KMeans(k, n_init=10, random_state=0).fit_predict(vectors[:, :k])}}


METHODS: dict[str, Callable[[np.ndarray], dict]] = {
    "spray": lambda relevance: spray(relevance, full=False),
    "spray, null and stability": lambda relevance: spray(relevance, full=True),
    "corelay": corelay,
    "sklearn": sklearn,
}


def cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def quality(labels: np.ndarray, truth: np.ndarray) -> dict:
    """Agreement with the truth, and the cluster that best matches the artifact."""
    from spray.analysis.correspondence import adjusted_rand, contingency

    artifact = truth == STRATEGIES
    best = max(
        (cluster for cluster in set(labels.tolist()) if cluster >= 0),
        key=lambda cluster: (
            (labels[artifact] == cluster).sum() / ((labels == cluster).sum() + artifact.sum())
        ),
    )
    hits = (labels[artifact] == best).sum()
    return {
        "ari": round(adjusted_rand(contingency(labels, truth)), 3),
        "precision": round(float(hits / (labels == best).sum()), 3),
        "recall": round(float(hits / artifact.sum()), 3),
    }


def measure(method: str, n: int) -> dict:
    """One measurement, in this process."""
    warm_up(method)
    relevance, truth = maps(n)
    base, started = cpu(), time.perf_counter()
    found = METHODS[method](relevance)
    result = {
        "method": method,
        "n": n,
        "cpu_seconds": round(cpu() - base, 2),
        "wall_seconds": round(time.perf_counter() - started, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "eigenvalues": found.get("eigenvalues"),
        "strategies": found.get("strategies"),
        "neighbour_recall": found.get("recall"),
    }
    return result | {name: quality(np.asarray(labels), truth) for name, labels in found["labels"].items()}


def warm_up(method: str) -> None:
    """Imports, which are no part of the measurement."""
    if method == "corelay":
        import corelay.pipeline.spectral
        import corelay.processor.embedding  # noqa: F401
    import hdbscan  # noqa: F401
    import sklearn.cluster
    import sklearn.covariance
    import sklearn.manifold  # noqa: F401

    import spray.analysis  # noqa: F401


def classes(count: int, size: int, workers: int, full: bool) -> dict:
    """Many classes, in processes: the maps are made ahead and lie in memory maps, as they do for a stored run."""
    import tempfile
    from pathlib import Path

    from spray.analysis import Analysis
    from spray.analysis.null import GaussianNull
    from spray.analysis.parallel import in_processes
    from spray.analysis.stability import Stability

    bare = {} if full else {"null": GaussianNull(draws=0), "stability": Stability(draws=0)}
    analysis = Analysis(picture="none", **bare)
    with tempfile.TemporaryDirectory() as folder:
        shape = (count * size, SIDE * SIDE)
        stored = np.memmap(Path(folder) / "maps", np.float32, "w+", shape=shape)
        for at in range(count):
            stored[at * size : (at + 1) * size] = analysis.representation.transform(maps(size, seed=at)[0])
        base, started = cpu(), time.perf_counter()
        jobs = ((stored[at * size : (at + 1) * size], np.arange(size), at) for at in range(count))
        strategies = [found.strategies for found in in_processes(analysis.features, jobs, workers)]
    return {
        "method": f"spray{', null and stability' if full else ''}",
        "classes": count,
        "samples_per_class": size,
        "workers": workers,
        "cpu_seconds": round(cpu() - base, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
        "median_strategies": float(np.median(strategies)),
    }


def isolated(arguments: list[str], limit: float) -> dict:
    """A measurement in a process of its own, given up after ``limit`` seconds."""
    # -P: the scripts of this folder that are named like packages must not stand in for them.
    command = [sys.executable, "-P", __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"measured": arguments[1:], "error": f"not done in {limit:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"measured": arguments[1:], "error": last}
    return json.loads(done.stdout.splitlines()[-1])


def agreement(results: list[dict]) -> None:
    """Adds how far the eigenvalues of each method are from ours at the same size."""
    ours = {r["n"]: r["eigenvalues"] for r in results if r.get("method") == "spray" and "n" in r}
    for result in results:
        values = result.pop("eigenvalues", None)
        if values and result.get("method") != "spray" and result["n"] in ours:
            apart = np.abs(np.sort(values) - np.array(ours[result["n"]]))
            result["eigenvalues_apart"] = float(f"{apart.max():.2g}")


def exponents(results: list[dict]) -> dict[str, float]:
    """Growth of CPU time with n, by least squares on the logarithms."""
    found = {}
    for method in METHODS:
        points = [(r["n"], r["cpu_seconds"]) for r in results if r.get("method") == method and "n" in r]
        if len(points) > 2:
            n, seconds = np.log(np.array(points)).T
            found[method] = round(float(np.polyfit(n, seconds, 1)[0]), 2)
    return found


def bars(results: list[dict]) -> dict[str, dict]:
    """What is to be reached, what was measured, and whether it suffices; nothing of what was not measured."""
    ours = {r["n"]: r for r in results if r.get("method") == "spray" and "n" in r}
    peer = {r["n"]: r for r in results if r.get("method") == "corelay"}
    found: dict[str, tuple[float, float]] = {}
    if {20_000} <= ours.keys() & peer.keys():
        for name, unit in (("cpu_seconds", "CPU time"), ("peak_mb", "memory")):
            ratio = ours[20_000][name] / peer[20_000][name]
            found[f"20k: {unit} beside CoRelAy's"] = (ratio, 1 / 6)
    for n, seconds, megabytes in ((100_000, 40, 2000), (1_000_000, 300, 4000)):
        if n in ours:
            found[f"{n:,}: CPU seconds"] = (ours[n]["cpu_seconds"], seconds)
            found[f"{n:,}: MB"] = (ours[n]["peak_mb"], megabytes)
    growth = exponents(results).get("spray")
    if growth is not None:
        found["exponent of CPU time"] = (growth, 1.2)
    for r in results:
        if r.get("classes") == 1000:
            found[f"1000 classes of 1300: wall seconds ({r['method']})"] = (r["wall_seconds"], 120)
    return {
        name: {"measured": round(measured, 3), "at_most": round(bar, 3), "reached": measured <= bar}
        for name, (measured, bar) in found.items()
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument(
        "--classes", type=int, default=1000, help="then analyse so many classes of 1300 maps; 0: none"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=float, default=900, help="seconds allowed for each measurement")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("N", "METHOD"), help=argparse.SUPPRESS)
    parser.add_argument("--measure-classes", nargs=3, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measurements(given: argparse.Namespace) -> Iterator[dict]:
    """All that are asked for, each as it is done."""
    for n in given.sizes:
        for method in given.methods:
            if n <= LARGEST.get(method, n):
                yield isolated(["--measure", str(n), method], given.limit)
    for full in (False, True) if given.classes else ():
        asked = [str(given.classes), str(given.workers), str(int(full))]
        yield isolated(["--measure-classes", *asked], given.limit)


def main() -> None:
    given = options()
    if given.measure_classes:
        count, workers, full = given.measure_classes
        print(json.dumps(classes(count, 1300, workers, bool(full))))
        return
    if given.measure:
        print(json.dumps(measure(given.measure[1], int(given.measure[0]))))
        return
    results = []
    for result in measurements(given):
        results.append(result)
        if not given.json:
            print({k: v for k, v in result.items() if k != "eigenvalues"}, flush=True)
    agreement(results)
    report = {"results": results, "exponents": exponents(results), "to_reach": bars(results)}
    if given.json:
        print(json.dumps(report, indent=1))
        return
    apart = {(r["method"], r["n"]): r["eigenvalues_apart"] for r in results if "eigenvalues_apart" in r}
    print({"exponents": report["exponents"], "eigenvalues apart from ours": apart})
    for name, bar in report["to_reach"].items():
        word = "reached" if bar["reached"] else "NOT reached"
        print(f"{name}: {bar['measured']} (at most {bar['at_most']}): {word}")


if __name__ == "__main__":
    main()
