"""Reports at scale: bytes, time until ready, class switch, selection → gallery, and frames while panning.

    python benchmarks/reports.py [--samples 1000 5000 50000 200000] [--served 200000] [--repeats 3] [--json]

Stores are drawn, not attributed: shapes of 32 × 32 pixels, relevance pooled to 16 × 16, ten classes. A browser
(Debian's Chromium, headless, without GPU) opens each report from the disk, or from the server, several times, and
measures itself; medians over all turns, and the worst single turn. ``load`` is the machine's, averaged over a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Beside this script lie others that are named as packages are: they must not be taken for them.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

CLASSES = 10
SIDE, GRID = 32, 16
SHARD = 8192
STRATEGIES = 4
EIGENVALUES = 12
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

SWITCH = """async () => {
    const groups = spray.report.groups;
    const times = [];
    for (const group of groups.slice(1, 6)) {
        const start = performance.now();
        spray.router.go({ group: group.index });
        await new Promise((done) => {
            const look = () => requestAnimationFrame(spray.state.chunk?.index === group.index ? done : look);
            look();
        });
        await spray.awaitPictures(spray.state.chunk, spray.ordered(spray.state).slice(0, 16));
        times.push(performance.now() - start);
    }
    return times;
}"""
SELECT = """async () => {
    const times = [];
    for (let turn = 0; turn < 5; turn += 1) {
        const { n } = spray.state.chunk;
        const selection = Uint32Array.from({ length: Math.floor(n / 2) }, (_, i) => (2 * i + turn) % n).sort();
        const start = performance.now();
        spray.set({ selection, origin: "brush", sample: null });
        await spray.awaitPictures(spray.state.chunk, spray.ordered(spray.state).slice(0, 16));
        await new Promise((done) => requestAnimationFrame(done));
        times.push(performance.now() - start);
    }
    return times;
}"""
PAN = """async () => {
    const range = spray.figures.embedding.model.x_range;
    const step = (range.end - range.start) / 100;
    const times = [];
    for (let turn = 0; turn < 20; turn += 1) {
        const start = performance.now();
        range.setv({ start: range.start + step, end: range.end + step });
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        times.push((performance.now() - start) / 2);
    }
    return times;
}"""


def draw_store(path: Path, samples: int) -> None:
    """A complete run of so many samples, a shard at a time."""
    import stores

    rng = np.random.default_rng(0)
    made = stores.Provenance(({"name": "benchmark", "samples": samples},))
    names = [f"class {c}" for c in range(CLASSES)]
    run = stores.create(path, classes=names, samples=samples, provenance={"model": "drawn"})
    table = run.create_table(
        "samples",
        stores.sample_columns(CLASSES, thumbnail=(SIDE, SIDE, 3), metadata={"source": "str"}),
        rows_per_shard=SHARD,
        provenance=made,
    )
    maps = run.create_table(
        "relevance/epsilon_plus_flat",
        stores.relevance_columns((GRID, GRID)),
        rows_per_shard=SHARD,
        provenance=made,
    )
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    ring = np.exp(-((np.hypot(y - 0.5, x - 0.5) - 0.3) ** 2) / 0.006)
    small = ring.reshape(GRID, 2, GRID, 2).mean((1, 3))
    for shard, rows in enumerate(table.shards):
        n = len(rows)
        label = np.arange(rows.start, rows.stop) % CLASSES
        tint = rng.uniform(60, 200, (n, 1, 1, 3))
        pictures = np.clip(ring[None, :, :, None] * tint + rng.normal(0, 6, (n, SIDE, SIDE, 1)), 0, 255)
        relevance = small * rng.normal(0.6, 0.4, (n, GRID, GRID)) + rng.normal(0, 0.02, (n, GRID, GRID))
        logits = rng.normal(0, 1, (n, CLASSES)).astype(np.float32)
        logits[np.arange(n), label] += 4
        table.write(
            shard,
            {
                "id": [f"drawn/{row:07d}.png" for row in rows],
                "label": label,
                "prediction": logits.argmax(1),
                "logits": logits,
                "thumbnail": pictures.astype(np.uint8),
                "meta.source": ["scanner A" if row % 3 else "scanner B" for row in rows],
            },
        )
        figures = {name: relevance.sum((1, 2)) for name in ("start", "sum", "absolute", "absorbed")}
        maps.write(shard, {"input.place": relevance.astype(np.float32), **figures, "target": label})
    analysis = run.create_analysis(
        made,
        facts={
            "relevance": "relevance/epsilon_plus_flat",
            "column": "input.place",
            "group_by": "label",
            "grid": [GRID] * 2,
        },
    )
    findings = []
    for group in range(CLASSES):
        rows = np.arange(group, samples, CLASSES)
        labels = np.arange(len(rows)) % STRATEGIES
        centres = np.pad(np.eye(STRATEGIES), ((0, 0), (0, EIGENVALUES - STRATEGIES)))
        vectors = centres[labels] + rng.normal(0, 0.1, (len(rows), EIGENVALUES))
        picture = rng.normal(0, 4, (STRATEGIES, 2))[labels] + rng.normal(0, 1, (len(rows), 2))
        eigenvalues = np.r_[
            np.zeros(1), np.full(STRATEGIES - 1, 0.02), np.linspace(0.3, 0.7, EIGENVALUES - STRATEGIES)
        ]
        analysis.write(
            stores.GroupAnalysis(
                group, "ok", rows, np.zeros(0, int), np.zeros(0, int), eigenvalues, vectors, 1, STRATEGIES,
                {"k": STRATEGIES, "gap": 0.28, "runners_up": [], "null": {"gap": 0.1}},
                {"kmeans": stores.Clustering(labels)}, {"umap": picture},
            )
        )  # fmt: skip
        for cluster in range(STRATEGIES):
            members = rows[labels == cluster]
            score, parts = float(rng.uniform(0, 0.5)), {"separation": 0.5}
            findings.append(
                stores.Finding(
                    f"c{group}.f{cluster}", group, "kmeans", (cluster,), members, score, score > 0.45, parts,
                    small > 0.5, small.astype(np.float32), {}, "drawn",
                )
            )  # fmt: skip
    findings.sort(key=lambda finding: -finding.score)
    analysis.write_findings(findings, made)


def visited(browser: Any, url: str) -> dict[str, np.ndarray]:
    """Milliseconds as the page itself sees them, of one visit."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    try:
        page.goto(url)
        page.wait_for_selector("body.ready", timeout=120_000)
        times = {"ready": np.array([page.evaluate("spray.readyAt")])}
        for name, script in (("switch", SWITCH), ("select", SELECT), ("pan", PAN)):
            times[name] = np.array(page.evaluate(script))
        problems = page.evaluate("spray.problems")
        if problems:
            raise RuntimeError(f"{url}: {problems}")
    finally:
        page.close()
    return times


def measured(browser: Any, url: str, repeats: int) -> dict[str, float]:
    """Median and worst of several visits, in milliseconds."""
    visits = [visited(browser, url) for _ in range(repeats)]
    figures: dict[str, float] = {"load": os.getloadavg()[0]}
    for name in visits[0]:
        times = np.concatenate([visit[name] for visit in visits])
        figures[f"{name}_ms"] = float(np.median(times))
        figures[f"{name}_worst_ms"] = float(times.max())
    return figures


@contextmanager
def served(store: Path) -> Iterator[str]:
    """Address of a server for the store, in a process of its own."""
    script = (
        "import sys; from reports.server import serve; "
        "serve(sys.argv[1], port=0, ready=lambda url: print(url, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()
        server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, nargs="*", default=[1000, 5000, 50_000, 200_000])
    parser.add_argument("--served", type=int, nargs="*", default=[200_000])
    parser.add_argument("--repeats", type=int, default=3, help="visits of each report")
    parser.add_argument("--stores", type=Path, help="where drawn stores are kept for the next time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    import reports

    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        for samples in sorted({*options.samples, *options.served}):
            store = (options.stores or Path(folder)) / f"{samples}.zarr"
            if not store.exists():
                partial = store.with_suffix(".partial")
                draw_store(partial, samples)
                partial.rename(store)
            if samples in options.samples:
                start = time.perf_counter()
                written = reports.write(store, Path(folder) / f"{samples}.html")
                line = {"samples": samples, "carrier": written.carrier, "bytes": written.bytes}
                line["build_s"] = time.perf_counter() - start
                lines.append({**line, **measured(browser, written.path.as_uri(), options.repeats)})
            if samples in options.served:
                start = time.perf_counter()
                with served(store) as url:
                    line = {"samples": samples, "carrier": "served", "bytes": 0}
                    line["build_s"] = time.perf_counter() - start
                    lines.append({**line, **measured(browser, url, options.repeats)})
        browser.close()
    if options.json:
        print(json.dumps(lines, indent=1))
        return
    names = ("ready", "switch", "select", "pan")
    heads = "  ".join(f"{name} ms (worst)".rjust(18) for name in names)
    print(f"samples  carrier      MB  build s  load  {heads}")
    for line in lines:
        times = "  ".join(f"{line[f'{n}_ms']:9.0f} ({line[f'{n}_worst_ms']:6.0f})" for n in names)
        print(
            f"{line['samples']:7d}  {line['carrier']:7s} {line['bytes'] / 1e6:7.2f} {line['build_s']:8.1f} "
            f"{line['load']:5.1f}  {times}",
            flush=True,
        )


if __name__ == "__main__":
    main()
