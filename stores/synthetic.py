"""A complete small run without a model: shapes per class, relevance on their outlines, and a planted tag.

Tests, notebooks and the report's development share it. Every class has two honest strategies (it is
recognised by the upper or by the lower half of its shape); a fifth of one class carries a bright tag in a
corner, and there the relevance lies on the tag. What an audit would measure with a model at hand is made up,
and the provenance says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from stores.analysis import Clustering, Finding, GroupAnalysis
from stores.places import Location
from stores.provenance import Json, Provenance
from stores.run import Run, create
from stores.schema import relevance_columns, sample_columns

RELEVANCE = "relevance/epsilon_plus_flat"
"""The relevance table of a synthetic run."""

_TAGGED = 2
_STRATEGIES = (
    "the upper half of the shape",
    "the lower half of the shape",
    "a bright tag in the upper right corner",
)
_SHARD = 256
_PICTURED = 6
"""Samples that a finding shows before and after interventions."""


@dataclass(frozen=True)
class _Truth:
    """What was drawn: images in [0, 1], relevance, class and strategy of every sample."""

    images: Float[np.ndarray, "n c y x"]
    relevance: Float[np.ndarray, "n c y x"]
    labels: Int[np.ndarray, " n"]
    strategies: Int[np.ndarray, " n"]
    predictions: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n class"]


def make(
    path: Location,
    *,
    samples: int = 600,
    classes: int = 3,
    size: int = 28,
    planted: bool = True,
    seed: int = 0,
    channels: int = 1,
    names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    metadata: Mapping[str, Sequence[Any]] | None = None,
    failures: int = 0,
    overwrite: bool = False,
) -> Run:
    """Write a synthetic run: samples, ``RELEVANCE`` (pooled, full, one layer), one analysis with findings.

    Args:
        path: where; a run of the same arguments that is there already is opened.
        samples: number of samples, spread over the classes; up to some thousand per class.
        classes: number of classes; the last one gets the tag if ``planted``.
        size: height and width of the images.
        planted: whether a fifth of the last class carries the tag.
        seed: same arguments and seed, same bytes.
        channels: 1 or 3.
        names: names of the classes.
        ids: ids of the samples; "synthetic/<class>/<number>.png" otherwise.
        metadata: further columns of text or numbers, one value per sample.
        failures: this many samples, spread over the run, are failed rows.
        overwrite: whether to remove a folder that is there first.
    """
    if overwrite and Path(path).exists():
        shutil.rmtree(path)
    class_names = list(names) if names is not None else [f"shape {index}" for index in range(classes)]
    options = {
        "samples": samples, "classes": classes, "size": size, "planted": planted, "seed": seed,
        "channels": channels, "failures": failures,
    }  # fmt: skip
    run = create(path, classes=class_names, samples=samples, provenance={"synthetic": options})
    truth = _draw(samples, classes, size, planted, seed, channels)
    spread = np.linspace(0, samples - 1, failures + 2)[1:-1]
    failed = {int(row): "cannot be decoded (synthetic)" for row in spread}
    _write_samples(run, truth, ids, metadata or {}, failed, options)
    pooled = _write_relevance(run, truth, failed, options)
    _write_analysis(run, truth, pooled, failed, options)
    return run


def _draw(samples: int, classes: int, size: int, planted: bool, seed: int, channels: int) -> _Truth:
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    strategies = rng.integers(0, 2, samples)
    if planted:
        last = np.flatnonzero(labels == classes - 1)
        strategies[rng.choice(last, round(len(last) / 5), replace=False)] = _TAGGED
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    images, relevance = np.empty((2, samples, size, size))
    for row in range(samples):
        shift = rng.uniform(-0.12, 0.12, 2)
        shape = _shape(int(labels[row]), y - shift[0], x - shift[1], rng.uniform(0.5, 0.65))
        outline = np.hypot(*np.gradient(shape))
        half = (y < shift[0]) if strategies[row] == 0 else (y >= shift[0])
        heat = outline * (0.08 + half) - 0.25 * outline.mean() * shape
        image = 0.75 * shape * rng.uniform(0.8, 1.2) + 0.08 * rng.random((size, size))
        if strategies[row] == _TAGGED:
            tag = (np.abs(x - 0.75) < 0.15) & (np.abs(y + 0.75) < 0.15)
            image = np.where(tag, 0.95, image)
            heat = 0.15 * heat + 1.2 * outline.max() * tag
        images[row] = image
        relevance[row] = heat + rng.normal(0, 0.02 * heat.max(), heat.shape)
    tint = np.linspace(1, 0.7, channels)[:, None, None]
    logits = rng.normal(0, 1, (samples, classes))
    logits[np.arange(samples), labels] += np.where(strategies == _TAGGED, 7.0, 3.5)
    predictions = logits.argmax(axis=1)
    share = tint / tint.sum()
    scores = logits[np.arange(samples), predictions]
    relevance *= (np.abs(scores) / np.abs(relevance).sum(axis=(1, 2)))[:, None, None]
    return _Truth(
        np.clip(images[:, None] * tint, 0, 1),
        relevance[:, None] * share,
        labels,
        strategies,
        predictions,
        logits,
    )


def _shape(kind: int, y: Float[np.ndarray, "y x"], x: Float[np.ndarray, "y x"], r: float) -> np.ndarray:
    """A soft-edged disc, box, ring, cross, diamond or pair of bars."""
    distance = (
        lambda: np.hypot(y, x) - r,
        lambda: np.maximum(np.abs(y), np.abs(x)) - 0.85 * r,
        lambda: np.abs(np.hypot(y, x) - 0.8 * r) - 0.2 * r,
        lambda: (
            np.minimum(np.maximum(np.abs(y) / 3, np.abs(x)), np.maximum(np.abs(y), np.abs(x) / 3)) - 0.35 * r
        ),
        lambda: np.abs(y) + np.abs(x) - 1.2 * r,
        lambda: np.maximum(np.abs(np.abs(x) - 0.6 * r) - 0.25 * r, np.abs(y) - r),
    )[kind % 6]()
    return np.asarray(1 / (1 + np.exp(14 * distance)))


def _write_samples(
    run: Run,
    truth: _Truth,
    ids: Sequence[str] | None,
    metadata: Mapping[str, Sequence[Any]],
    failed: Mapping[int, str],
    options: Mapping[str, Any],
) -> None:
    rng = np.random.default_rng([options["seed"], 1])
    tagged = truth.strategies == _TAGGED
    second = rng.random(run.n) < np.where(tagged, 0.95, 0.3)
    values: dict[str, Any] = {
        "id": list(ids) if ids is not None else _ids(truth.labels),
        "label": truth.labels,
        "prediction": truth.predictions,
        "logits": truth.logits,
        "thumbnail": _thumbnails(truth.images),
        "meta.source": ["archive B" if it else "archive A" for it in second],
        "meta.brightness": truth.images.mean(axis=(1, 2, 3)),
    }
    dtypes = {"source": "str", "brightness": "float32"}
    for name, column in metadata.items():
        text = any(isinstance(value, str) for value in column)
        dtypes[name] = "str" if text else "float64"
        values[f"meta.{name}"] = list(column) if text else np.asarray(column, np.float64)
    _, channels, height, width = truth.images.shape
    columns = sample_columns(len(run.classes), thumbnail=(height, width, channels), metadata=dtypes)
    table = run.create_table("samples", columns, rows_per_shard=_SHARD, provenance=_made("samples", options))
    _write_all(table, values, failed)


def _write_relevance(
    run: Run, truth: _Truth, failed: Mapping[int, str], options: Mapping[str, Any]
) -> Float[np.ndarray, "n y x"]:
    _, channels, height, width = truth.relevance.shape
    grid = (height // 2, width // 2)
    pooled = truth.relevance.sum(axis=1)[:, : grid[0] * 2, : grid[1] * 2]
    pooled = pooled.reshape(-1, grid[0], 2, grid[1], 2).sum(axis=(2, 4))
    parts = np.stack([truth.strategies == part for part in range(8)], axis=1) + 0.1
    scores = truth.logits[np.arange(run.n), truth.predictions]
    values = {
        "input.place": pooled,
        "input.full": truth.relevance,
        "features.3.channel": parts * scores[:, None] / parts.sum(axis=1, keepdims=True),
        "start": scores,
        "sum": truth.relevance.sum(axis=(1, 2, 3)),
        "absolute": np.abs(truth.relevance).sum(axis=(1, 2, 3)),
        "absorbed": scores - truth.relevance.sum(axis=(1, 2, 3)),
        "target": truth.predictions,
    }
    columns = relevance_columns(grid, full=(channels, height, width), layers={"features.3": (8,)})
    made = _made("relevance", options)
    table = run.create_table(RELEVANCE, columns, rows_per_shard=_SHARD, provenance=made)
    _write_all(table, values, failed)
    return np.asarray(pooled)


def _write_all(table: Any, values: Mapping[str, Any], failed: Mapping[int, str]) -> None:
    for shard in table.missing():
        rows = table.shards[shard]
        part = {name: column[rows.start : rows.stop] for name, column in values.items()}
        table.write(shard, part, {row: reason for row, reason in failed.items() if row in rows})


def _write_analysis(
    run: Run,
    truth: _Truth,
    pooled: Float[np.ndarray, "n y x"],
    failed: Mapping[int, str],
    options: Mapping[str, Any],
) -> None:
    facts: dict[str, Any] = {"relevance": RELEVANCE, "column": "input.place", "group_by": "label"}
    provenance = _made("analysis", options)
    facts |= {"grid": list(pooled.shape[1:])}
    handle = run.create_analysis(provenance, facts=facts, groups=range(len(run.classes)))
    findings = []
    for group in range(len(run.classes)):
        rows = np.array([row for row in np.flatnonzero(truth.labels == group) if row not in failed], np.int64)
        maps = pooled[rows] / np.linalg.norm(pooled[rows], axis=(1, 2), keepdims=True)
        rng = np.random.default_rng([options["seed"], 2, group])
        analysis = _group(group, rows, maps, truth.strategies[rows], rng)
        handle.write(analysis)
        findings += _findings(analysis, maps, truth, rng)
    findings.sort(key=lambda finding: -finding.score)
    handle.write_findings(findings, _made("findings", options))


def _group(
    group: int,
    rows: Int[np.ndarray, " m"],
    maps: Float[np.ndarray, "m y x"],
    strategies: Int[np.ndarray, " m"],
    rng: np.random.Generator,
) -> GroupAnalysis:
    empty = np.zeros(0, np.int64)
    if len(rows) < 2:
        status, m = ("single", 1) if len(rows) else ("empty", 0)
        return GroupAnalysis(
            group, status, rows, empty, empty, np.zeros(0), np.zeros((m, 0)), m, m, {}, {}, {}
        )
    eigenvalues, vectors = _spectrum(maps.reshape(len(maps), -1), k=min(12, len(rows)))
    gaps = np.diff(eigenvalues)[:6]
    order = np.argsort(-gaps, kind="stable")
    k = int(order[0]) + 1
    null: dict[str, Json] = {"quantile": 0.95, "gap": float(gaps.max() / 3), "p_value": 0.01, "draws": 99}
    eigengap: dict[str, Json] = {
        "k": k,
        "gap": float(gaps[order[0]]),
        "runners_up": [{"k": int(i) + 1, "gap": float(gaps[i])} for i in order[1:3]],
        "null": null,
    }
    embedded = vectors[:, : max(k, 2)]
    embedded = embedded / np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), 1e-12)
    noise = rng.random(len(rows)) < 0.04
    outlier = np.where(noise, rng.uniform(0.6, 1.0, len(rows)), rng.uniform(0.0, 0.5, len(rows)))
    clusterings = {
        "kmeans": Clustering(_kmeans(embedded, len(np.unique(strategies))), None, {"seed": 0}),
        "hdbscan": Clustering(np.where(noise, -1, strategies), outlier, {"min_cluster_size": 5}),
    }
    centred = embedded - embedded.mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    picture = plane + rng.normal(0, 0.12, plane.shape)
    components = max(1, int((eigenvalues < 1e-9).sum()))
    return GroupAnalysis(
        group, "ok", rows, empty, empty, eigenvalues, vectors, components, k, eigengap, clusterings,
        {"umap": picture.astype(np.float32)}, {"neighbours": 10},
    )  # fmt: skip


def _spectrum(
    features: Float[np.ndarray, "m d"], k: int
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "m k"]]:
    """Smallest eigenpairs of L_sym of the symmetrised 10-nearest-neighbour graph, densely; signs fixed."""
    squares = (features**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * features @ features.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(10, len(features) - 1)]
    graph = np.zeros_like(distances)
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    graph = (graph + graph.T) / 2
    root = np.sqrt(graph.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(len(graph)) - graph / np.outer(root, root))
    vectors = vectors[:, :k]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(k)])
    return np.clip(values[:k], 0, 2), vectors * signs


def _kmeans(points: Float[np.ndarray, "m d"], k: int) -> Int[np.ndarray, " m"]:
    """Lloyd's iteration from farthest-first centres."""
    centres = [points[0]]
    while len(centres) < k:
        gap = np.min([((points - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
        centres.append(points[gap.argmax()])
    labels = np.zeros(len(points), np.int64)
    for _ in range(50):
        labels = np.argmin([((points - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
        groups = [points[labels == index] for index in range(k)]
        centres = [
            group.mean(axis=0) if len(group) else old for group, old in zip(groups, centres, strict=True)
        ]
    return labels


def _findings(
    analysis: GroupAnalysis,
    maps: Float[np.ndarray, "m y x"],
    truth: _Truth,
    rng: np.random.Generator,
) -> list[Finding]:
    """One finding per strategy; effects of interventions are drawn at random, high for the tag."""
    found: list[Finding] = []
    strategies = truth.strategies[analysis.rows]
    if analysis.status != "ok":
        return found
    for index, strategy in enumerate(np.unique(strategies).tolist()):
        members = strategies == strategy
        mean = maps[members].mean(axis=0)
        rest = maps[~members].mean(axis=0) if (~members).any() else np.zeros_like(mean)
        difference = mean - rest
        region = difference >= max(np.quantile(difference, 0.97), 0.25 * difference.max())
        spread = np.sqrt(maps[members].var(axis=0).sum())
        positive = np.clip(mean, 1e-12, None)
        planted = strategy == _TAGGED
        removal, transplant = rng.uniform(0.35, 0.5, 2) if planted else rng.uniform(0.0, 0.08, 2)
        effect = float(np.sqrt(removal * transplant))
        parts: dict[str, float | None] = {
            "separation": float(np.linalg.norm(difference) / (spread + 1e-12)),
            "gap": float(np.diff(analysis.eigenvalues).max()),
            "place": float(positive[region].sum() / positive.sum()),
            "confidence": 0.99 if planted else float(rng.uniform(0.85, 0.95)),
            "causal": effect,
        }
        evidence = {
            "removal": _effect(float(removal), int(members.sum())),
            "transplant": _effect(float(transplant), 200),
        }
        summary = (
            f"{int(members.sum())} samples share {_STRATEGIES[strategy]}. Removing it lowers the class "
            f"probability by {removal:.2f}; pasting it elsewhere raises it by {transplant:.2f}."
        )
        found.append(
            Finding(
                f"c{analysis.group}.f{index}",
                analysis.group,
                "hdbscan",
                (strategy,),
                analysis.rows[members],
                effect,
                planted,
                parts,
                region,
                mean.astype(np.float32),
                evidence,
                summary,
                pictures=_pictures(truth, analysis.rows[members], analysis.group, region),
            )
        )
    return found


def _pictures(
    truth: _Truth, members: Int[np.ndarray, " m"], group: int, region: Bool[np.ndarray, "y x"]
) -> dict[str, UInt8[np.ndarray, "n y x c"]]:
    """The region of a few members replaced by their mean, and pasted on as many samples of other classes."""
    shown = members[:_PICTURED]
    hosts = np.flatnonzero(truth.labels != group)[: len(shown)]
    before = truth.images[shown]
    inside = np.zeros(before.shape[-2:], bool)
    fine = region.repeat(2, axis=0).repeat(2, axis=1)
    inside[: len(fine), : fine.shape[1]] = fine
    shots = {
        "members": before,
        "removed": np.where(inside, before.mean(axis=(2, 3), keepdims=True), before),
        "hosts": truth.images[hosts],
        "pasted": np.where(inside, before[: len(hosts)], truth.images[hosts]),
    }
    return {name: _thumbnails(images) for name, images in shots.items()}


def _effect(effect: float, n: int) -> dict[str, Json]:
    """What an intervention measures: its effect, that of controls, and what is left beside the strongest."""
    net = effect - 0.02
    return {
        "mean": effect, "net": net, "net_interval": [net - 0.05, net + 0.05], "images": n, "way": "local mean",
        "controls": {"matched": 0.02, "random": 0.0},
    }  # fmt: skip


def _made(what: str, options: Mapping[str, Any]) -> Provenance:
    return Provenance(({"name": "synthetic", "what": what, **options},))


def _ids(labels: Int[np.ndarray, " n"]) -> list[str]:
    return [f"synthetic/{label}/{row:05d}.png" for row, label in enumerate(labels.tolist())]


def _thumbnails(images: Float[np.ndarray, "n c y x"]) -> UInt8[np.ndarray, "n y x c"]:
    return np.round(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
