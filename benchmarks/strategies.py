"""Does the library flag planted shortcuts, at its defaults, and nothing else? Many kinds of artifact, two data sets.

    python benchmarks/strategies.py                              # the whole grid on Fashion-MNIST
    python benchmarks/strategies.py --cifar cifar10.zip          # and the one on CIFAR-10 (alone with --no-fashion)
    python benchmarks/strategies.py --only tag-20 --cache ~/.cache/spray-benchmark
    python benchmarks/strategies.py --quick --json               # two cases on the demo's images

A case plants an artifact in a share of one class's training images, trains a small CNN, and audits the class with
500 images of each other class beside it. It counts if pasting the artifact on held-out images of other classes turns
at least 10 points more of them into the class than their clean versions; excluded cases are listed. Scored are
the findings *flagged* at library defaults. Beside them stand, chosen by an oracle who knows the truth, the best of all
findings and the best of our clusters, and in telling cases that of CoRelAy's pipeline with its documented defaults, of
k-means on the raw maps, and of k-means on activations. Artifacts without a place are also looked for in other
representations of the relevance. Last comes what all cases say together.

Trained models, audits and results are kept in the cache by what they depend on: a run goes on where the last stopped,
and `clever_hans.py` tells of the same audits. The last line is how many CPU seconds the cases took when they were made.
`carton.py` is the part with a real shortcut.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
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

import numpy as np
import planted as planting
import torch
from peers import best, oracle, peers, score
from planted import (
    CIFAR_GRID,
    FASHION,
    GRID,
    QUICK,
    Case,
    Pictures,
    Planted,
    analysed,
    code_digest,
    findings_of,
    kept,
    plant,
)

import spray
from spray.analysis.features import Channels, Magnitude, Pooled, Radial, Representation
from spray.attribution import Attribution

PLACELESS = ("texture", "blur", "cast")
LOCAL = ("tag", "border", "text")
BARS = {"5 % or more": (5, 100, 0.98, 0.95), "1 %": (1, 1, 0.95, 0.75)}
"""Shares of the class from and up to which a local artifact is to be flagged with such a purity and recall."""
TELLING = ("tag-20", "tag-5", "tag-1-", "border-20", "border-5", "text-20", "text-5", "texture-20", "cast-20")
"""Cases that other methods are tried on, too, by the beginning of their names."""
LAST_CONVOLUTION = "6"
"""In all networks of this benchmark."""
REPRESENTATIONS: dict[str, tuple[str, Representation]] = {
    "pooled": ("input.place", Pooled()),
    "magnitude": ("input.place", Magnitude()),
    "radial": ("input.place", Radial()),
    "channels": (f"{LAST_CONVOLUTION}.channel", Channels()),
}


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
        scripts = (__file__, planting.__file__, best.__code__.co_filename)
        code = hashlib.sha256(b"".join(Path(file).read_bytes() for file in scripts)).hexdigest()
        packages = code_digest("demo", "engine", "attribution", "analysis", "findings")
        parts = (self.data, self.given, self.images, self.peers, case, code, packages)
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        torch.set_num_threads(1)
        return kept(self.cache, f"{self.data}-{case.name}-{key}", lambda: self.run(case))

    @property
    def given(self) -> str:
        """Of the files that the pictures come from."""
        files = sorted(self.archive.iterdir()) if self.archive.is_dir() else [self.archive]
        found = hashlib.sha256()
        for file in files if self.data != "demo" else ():
            found.update(file.read_bytes())
        return found.hexdigest()

    def run(self, case: Case) -> dict:
        started = time.process_time()
        planted = plant(case, self.pictures(), self.cache)
        truth = planted.tagged[planted.rows]
        result = {
            "data": self.data,
            "case": case.name,
            "artifact": case.artifact,
            "percent": case.percent,
            "control": case.control,
            "tagged": int(truth.sum()),
            "accuracy": round(planted.accuracy, 3),
            "flip_clean": round(planted.flip_clean, 3),
            "flip_tagged": round(planted.flip_tagged, 3),
            "counts": planted.used != case.control,
        }
        if result["counts"]:  # of the others nothing is to be learned
            result |= self.audited(planted, truth)
            if not case.control and case.artifact in PLACELESS:
                result["representations"] = representations(planted, self.cache, truth)
        result["cpu_seconds"] = round(time.process_time() - started, 1)
        return result

    def audited(self, planted: Planted, truth: np.ndarray) -> dict:
        """What is flagged; and, where something is to be found, how well, and what else finds it."""
        case = planted.case
        findings = findings_of(planted, self.cache)["findings"]
        own = [it for it in findings if it["group"] == case.label]
        flagged = [it for it in findings if it["flagged"]]
        inside = [members(it, truth) for it in own if it["flagged"]]
        result: dict = {"flagged": len(inside), "flagged_elsewhere": len(flagged) - len(inside)}
        if case.control:
            return result
        pure = [truth[it["rows"]].mean() >= 0.5 for it in findings]
        result["rank"] = 1 + pure.index(True) if True in pure else None
        result["found"] = score(np.any([np.zeros_like(truth), *inside], axis=0), truth)
        result["oracle"] = {"finding": best([members(it, truth) for it in own], truth)}
        with analysed(planted, self.cache) as (store, analysis, _):
            group = analysis.read(case.label)
            result["oracle"] |= {
                name: oracle(group.clusterings[name].labels, truth[group.rows])
                for name in ("hdbscan", "kmeans")
            }
            if self.peers and case.name.startswith(TELLING):
                maps = store.table(str(analysis.facts["relevance"])).read("input.place", group.rows)
                result["oracle"] |= self.compared(planted, maps, group.rows)
        return result

    def compared(self, planted: Planted, maps: np.ndarray, rows: np.ndarray) -> dict:
        """The best that other methods find among the class's maps, which is all that they depend on."""
        audited = planted.rows[rows]
        return kept(
            self.cache,
            f"{planted.key}-peers-{hashlib.sha256(maps.tobytes()).hexdigest()[:16]}",
            lambda: peers(maps, planted.model, planted.images[audited], planted.tagged[audited]),
        )


def members(finding: dict, truth: np.ndarray) -> np.ndarray:
    """Of a finding, among the audited images."""
    return np.isin(np.arange(len(truth)), finding["rows"])


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


ORACLES = ("finding", "hdbscan", "kmeans", "corelay", "raw maps", "activations")
COLUMNS = (
    "case | tagged | flip rate clean → tagged | flagged (elsewhere) | rank | flagged: purity / recall | best finding | "
    "best of HDBSCAN | of k-means | CoRelAy, defaults | k-means, raw maps | of activations | representations"
)


def titled(result: dict) -> str:
    return f"{result['data']} {result['case']}{' (control)' if result['control'] else ''}"


def row(result: dict) -> str:
    """A line of the table."""

    def pair(scores: dict[str, float] | None) -> str:
        return f"{scores['precision']:.2f} / {scores['recall']:.2f}" if scores else ""

    oracles = result.get("oracle", {})
    cells = [
        titled(result),
        str(result["tagged"]),
        f"{result['flip_clean']:.2f} → {result['flip_tagged']:.2f}",
        f"{result['flagged']} ({result['flagged_elsewhere']})" if result["counts"] else "",
        str(result.get("rank", "")),
        pair(result.get("found")) if result["counts"] else "excluded",
        *(pair(oracles.get(name)) for name in ORACLES),
        "; ".join(f"{name} {pair(scores)}" for name, scores in result.get("representations", {}).items()),
    ]
    return "| " + " | ".join(cells) + " |"


def summary(results: Sequence[dict]) -> dict:
    """What all cases say together: bars met, controls with a flag, and the excluded cases."""
    planted = [each for each in results if not each["control"]]
    used = [each for each in planted if each["counts"]]
    controls = [each for each in results if each["control"] and each["counts"]]
    raised = [each for each in controls if each["flagged"] + each["flagged_elsewhere"]]
    found: dict = {
        "cases": len(planted),
        "controls": len(controls),
        "controls with a flag": [titled(each) for each in raised],
        "excluded": [titled(each) for each in results if not each["counts"]],
    }
    for name, (least, most, purity, recall) in BARS.items():
        cases = [each for each in used if each["artifact"] in LOCAL and least <= each["percent"] <= most]
        met = [
            each
            for each in cases
            if each["found"]["precision"] >= purity and each["found"]["recall"] >= recall
        ]
        missed = [titled(each) for each in cases if each not in met]
        found[f"local, {name}"] = {"cases": len(cases), "met": len(met), "missed": missed}
    found["CPU seconds"] = round(sum(each["cpu_seconds"] for each in results))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="run the cases whose names begin like these")
    parser.add_argument("--data", type=Path, default=FASHION, help="folder of Fashion-MNIST's files")
    parser.add_argument(
        "--fashion", action=argparse.BooleanOptionalAction, default=True, help="run Fashion-MNIST"
    )
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
        benchmarks = []
        if options.fashion:
            benchmarks.append(
                Benchmark("fashion", options.data, options.images, options.cache, options.peers)
            )
        if options.cifar:
            benchmarks.append(
                Benchmark("cifar", options.cifar, planting.CIFAR_IMAGES, options.cache, options.peers)
            )
    results = []
    if not options.json:
        print(f"| {COLUMNS} |\n{'|---' * len(COLUMNS.split(' | '))}|")
    for result in collected(benchmarks, options.only, options.workers):
        results.append(result)
        if not options.json:
            print(row(result), flush=True)
    if options.json:
        print(json.dumps({"results": results, "summary": summary(results)}, indent=1))
    else:
        print("\n".join(f"{name}: {facts}" for name, facts in summary(results).items()))


def collected(benchmarks: Sequence[Benchmark], only: Sequence[str], workers: int) -> Iterator[dict]:
    """All results in order, so many at a time."""
    jobs = [(each, case) for each in benchmarks for case in each.cases if case.name.startswith(tuple(only))]
    if workers == 1:
        yield from (each.result(case) for each, case in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(Benchmark.result, *zip(*jobs, strict=True))


if __name__ == "__main__":
    main()
