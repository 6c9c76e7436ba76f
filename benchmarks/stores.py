"""What the store costs beside HDF5 (as CoRelAy keeps maps) and a memory-mapped array, on the same real maps.

    python benchmarks/stores.py [--samples 10000] [--json FILE]

The maps are LRP relevance of a small CNN on the 10,000 Fashion-MNIST test images of the demo. Rates are megabytes of
float32 per second of this process's CPU time, medians of several rounds; noisy machines: compare within one run.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # it would hide the package `stores` behind this file

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch.utils.data import TensorDataset

import spray
import stores
from spray.attribution import Attribution, attribute_dataset
from spray.demo import fashion, network

ROUNDS = 5
PROVENANCE = stores.Provenance(({"name": "benchmark"},))
SHARD = 2048


def real_maps(model: torch.nn.Module, images: torch.Tensor) -> tuple[np.ndarray, float]:
    """Relevance maps, and the CPU seconds that they took: the median of several rounds."""
    kept = []

    def attribute() -> None:
        kept[:] = [spray.attribute(model, batch) for batch in images.split(128)]

    seconds = cpu(attribute)
    return torch.cat(kept).numpy(), seconds


def stage_seconds(model: torch.nn.Module, data: TensorDataset, path: Path, full: bool) -> float:
    """CPU seconds of the stage that attributes, with thumbnails, digests and checks."""
    start = time.process_time()
    attribute_dataset(model, data, path, Attribution(full=full, block=128))
    return time.process_time() - start


def cost_of_writing(
    model: torch.nn.Module, data: TensorDataset, folder: Path, full: bool
) -> dict[str, list[float]]:
    """CPU seconds of the whole stage without and with the writing of its tables, in turns; and what writing is of the
    rest, by the time within ``Table.write``: far less noisy, since both are of one run."""
    bare, whole_stages, within = [], [], []
    write = stores.Table.write
    for number in range(-1, ROUNDS):  # the first warms up
        with unittest.mock.patch.object(stores.Table, "write", lambda *arguments, **options: {}):
            without = stage_seconds(model, data, folder / f"{full}-{number}-bare", full)
        writing = [0.0]

        def timed(*arguments: Any, writing: list[float] = writing, **options: Any) -> Any:
            start = time.process_time()
            try:
                return write(*arguments, **options)
            finally:
                writing[0] += time.process_time() - start

        with unittest.mock.patch.object(stores.Table, "write", timed):
            whole = stage_seconds(model, data, folder / f"{full}-{number}", full)
        if number >= 0:
            bare.append(without)
            whole_stages.append(whole)
            within.append(writing[0] / (whole - writing[0]))
    return {"without": bare, "with": whole_stages, "share": within}


def resumed_stage(model: torch.nn.Module, data: TensorDataset, path: Path) -> float:
    """CPU seconds of the same where everything is there already."""
    return cpu(lambda: attribute_dataset(model, data, path, Attribution(full=True, block=128)))


class Ours:
    """A table with one column."""

    def __init__(self, encoding: Any, name: str) -> None:
        self.encoding, self.name = encoding, name

    def write(self, path: Path, maps: np.ndarray) -> None:
        run = stores.create(path, classes=["a"], samples=len(maps), provenance={})
        column = stores.Column("map", "float32", maps.shape[1:], ("channel", "y", "x"), self.encoding)
        table = run.create_table("relevance/x", [column], rows_per_shard=SHARD, provenance=PROVENANCE)
        for shard, rows in enumerate(table.shards):
            table.write(shard, {"map": maps[rows.start : rows.stop]})

    def read(self, path: Path, rows: Any) -> np.ndarray:
        return stores.open(path).table("relevance/x").read("map", rows)


class Hdf5:
    """One float32 data set, uncompressed and contiguous."""

    name = "HDF5 float32"

    def write(self, path: Path, maps: np.ndarray) -> None:
        with h5py.File(path, "w") as file:
            data = file.create_dataset("attribution", maps.shape, "float32")
            for low in range(0, len(maps), SHARD):
                data[low : low + SHARD] = maps[low : low + SHARD]

    def read(self, path: Path, rows: Any) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return np.asarray(file["attribution"][slice(None) if rows is None else rows])


class Memmap:
    """A .npy file, memory-mapped."""

    name = "memmap float32"

    def write(self, path: Path, maps: np.ndarray) -> None:
        data = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=maps.shape)
        for low in range(0, len(maps), SHARD):
            data[low : low + SHARD] = maps[low : low + SHARD]
        data.flush()

    def read(self, path: Path, rows: Any) -> np.ndarray:
        data = np.load(path, mmap_mode="r")
        return np.array(data if rows is None else data[rows])


def cpu(action: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> float:
    """Median CPU seconds."""
    seconds = []
    for _ in range(ROUNDS):
        prepare()
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    return max(statistics.median(seconds), 1e-6)


def bytes_of(path: Path) -> int:
    return sum(it.stat().st_size for it in ([path] if path.is_file() else path.rglob("*")) if it.is_file())


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def measure(kind: Any, folder: Path, maps: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    path = folder / "store"
    remove(path)
    megabytes = maps.nbytes / 1e6
    writing = cpu(lambda: kind.write(path, maps), lambda: remove(path))
    strewn = np.flatnonzero(labels == 6)
    together = np.arange(len(maps) // 2, len(maps) // 2 + len(strewn))
    figures = {
        "MB": bytes_of(path) / 1e6,
        "write": megabytes / writing,
        "read all": megabytes / cpu(lambda: kind.read(path, None)),
        "class, strewn": maps[strewn].nbytes / 1e6 / cpu(lambda: kind.read(path, strewn)),
        "class, in one piece": maps[together].nbytes / 1e6 / cpu(lambda: kind.read(path, together)),
        "one row, ms": 1e3 * cpu(lambda: kind.read(path, np.array([len(maps) // 3]))),
        "write seconds": writing,
    }
    remove(path)
    return figures


def neighbour_overlap(one: np.ndarray, other: np.ndarray, k: int = 10) -> float:
    """Share of common members among the k nearest neighbours."""
    found = []
    for maps in (one, other):
        flat = maps.reshape(len(maps), -1)
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        found.append(
            NearestNeighbors(n_neighbors=k + 1).fit(flat).kneighbors(flat, return_distance=False)[:, 1:]
        )
    pairs = zip(*found, strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def resume_seconds(folder: Path, maps: np.ndarray) -> float:
    """CPU seconds to open a half-written store and learn what is missing."""
    path = folder / "resume"
    run = stores.create(path, classes=["a"], samples=len(maps), provenance={})
    column = stores.Column("map", "float32", maps.shape[1:], ("channel", "y", "x"), "scaled_float16")
    table = run.create_table("relevance/x", [column], rows_per_shard=64, provenance=PROVENANCE)
    for shard in range(0, len(table.shards), 2):
        rows = table.shards[shard]
        table.write(shard, {"map": maps[rows.start : rows.stop]})
    return cpu(lambda: stores.open(path, "r+").table("relevance/x").missing())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine count as work
    data = fashion.load()
    images, labels = data.images[: chosen.samples], data.labels[: chosen.samples].numpy()
    model = network.train(network.small_cnn(), images, data.labels[: chosen.samples], epochs=1)
    maps, attributing = real_maps(model, images)
    kinds = [Ours("scaled_float16", "ours scaled float16"), Ours("plain", "ours float32"), Hdf5(), Memmap()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = {kind.name: measure(kind, folder, maps, labels) for kind in kinds}
        kinds[0].write(folder / "kept", maps)
        some = slice(0, min(len(maps), 3000))
        overlap = neighbour_overlap(maps[some], kinds[0].read(folder / "kept", some))
        resuming = resume_seconds(folder, maps)
        whole = TensorDataset(images, torch.from_numpy(labels))
        costs = {
            name: cost_of_writing(model, whole, folder, full)
            for name, full in (("pooled maps, the default", False), ("full maps, too", True))
        }
        again = resumed_stage(model, whole, folder / "True-0")
    ours = table["ours scaled float16"]
    facts = {
        "samples": len(maps),
        "bytes against HDF5": ours["MB"] / table["HDF5 float32"]["MB"],
        "writing against attributing": ours["write seconds"] / attributing,
        "a stage with nothing left to do, against one without writing": again
        / statistics.median(costs["full maps, too"]["without"]),
        "neighbour overlap": overlap,
        "resume, ms": 1e3 * resuming,
    }
    columns = [name for name in ours if name != "write seconds"]
    print(f"{'':22}" + "".join(f"{column:>22}" for column in columns))
    for name, figures in table.items():
        print(f"{name:22}" + "".join(f"{figures[column]:22.2f}" for column in columns))
    print("\n".join(f"{name}: {value:.4g}" for name, value in facts.items()))
    for name, cost in costs.items():
        without, whole, share = (sorted(cost[kind]) for kind in ("without", "with", "share"))
        middle = len(share) // 2
        print(
            f"the whole stage ({name}): {without[middle]:.3g} CPU-seconds without writing and {whole[middle]:.3g} with "
            f"all tables (least: {without[0]:.3g} and {whole[0]:.3g}, {whole[0] / without[0] - 1:.1%} more); within "
            f"one run writing is {share[middle]:.1%} of the rest ({share[0]:.1%} to {share[-1]:.1%})"
        )
    print(f"load: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores")
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"table": table, **facts, "stage": costs}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
