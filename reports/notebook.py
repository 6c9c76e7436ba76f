"""Figures for notebooks: plain Bokeh figures that show themselves. No extension is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int8, UInt8

from reports.blocks import MAPS
from reports.images import quantise
from reports.inline import framed
from reports.model import FINDINGS, Group, ReportModel, Subject
from reports.payload import pictures_of
from reports.theme import CLUSTER_COLOURS, COLOUR_MAPS, FLAGGED, LEVELS, LIGHT
from stores import Run

TILE = 96
"""Pixels a side of a picture in ``plot_cluster``."""


def shown(plot: Any, height: int) -> Any:
    """The figure, made to show itself at the end of a notebook's cell, without an extension and without a network.

    ``bokeh.io.show`` works as ever.
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    def html() -> str:
        page = file_html(plot, INLINE, title="")
        return framed(page, height + 24)

    plot._repr_html_ = html
    return plot


def plot_embedding(
    run: Run, group: int, *, picture: str | None = None, colour: str = FINDINGS, analysis: str | None = None
) -> Any:
    """The 2-D picture of a class as a Bokeh figure: flagged findings vermilion, ids and predictions on hover.

    Args:
        run: An open store.
        group: Index of the class.
        picture: "umap", "tsne", … as the analysis has it; the first where None.
        colour: "findings", or the name of a clustering.
        analysis: Id of the analysis; the one that ``audit.report()`` opens with where None.

    Raises:
        KeyError: the analysis has no such class, picture or clustering.
    """
    from bokeh.models import HoverTool

    from reports.panels.embedding import build

    model = ReportModel.from_run(run, analysis)
    entry = model.group(group)
    pictures = pictures_of(entry)
    name = picture or next(iter(pictures), "none")
    if name not in pictures:
        raise KeyError(f"class {group} has no picture {name!r}; it has {', '.join(pictures) or 'none'}")
    subjects = [s for s in entry.subjects if s.clustering == colour and s.name != "noise"]
    if not subjects and colour != FINDINGS:
        known = dict.fromkeys(s.clustering for s in entry.subjects)
        raise KeyError(f"class {group} has no clustering {colour!r}; it has {', '.join(known) or 'none'}")
    colours = np.full(len(entry.samples.rows), LIGHT["dot"], dtype=object)
    palette = iter(CLUSTER_COLOURS)
    hues = [FLAGGED if subject.flagged else next(palette, LIGHT["dot"]) for subject in subjects]
    # Findings may share members: these have the colour of a flagged one, else of the most suspicious, as on the page.
    coloured_last = sorted(zip(reversed(subjects), reversed(hues), strict=True), key=lambda it: it[0].flagged)
    for subject, hue in coloured_last:
        colours[subject.members] = hue
    plot: Any = build()
    xy = pictures[name]
    points = plot.select_one({"name": "points"})
    points.data = {
        "x": xy[:, 0],
        "y": xy[:, 1],
        "colour": colours.tolist(),
        "id": list(entry.samples.ids),
        "prediction": [model.classes[i] if i >= 0 else "" for i in entry.samples.prediction],
        "confidence": entry.samples.confidence,
    }
    named = [entry for entry in subjects if len(entry.members)][: len(CLUSTER_COLOURS)]
    middles = np.array([np.median(xy[entry.members], axis=0) for entry in named]).reshape(-1, 2)
    plot.select_one({"name": "labels"}).data = {
        "x": middles[:, 0],
        "y": middles[:, 1],
        "text": [entry.name for entry in named],
        "colour": [LIGHT["alarm"] if entry.flagged else LIGHT["ink"] for entry in named],
        "lift": [-22 if len(entry.members) < 4 else 0 for entry in named],
    }
    for axis, values in ((plot.x_range, xy[:, 0]), (plot.y_range, xy[:, 1])):
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        air = 0.06 * (high - low or 1.0)
        axis.start, axis.end = low - air, high + air
    hover = plot.select_one(HoverTool)
    hover.tooltips = [("id", "@id"), ("predicted", "@prediction"), ("confidence", "@confidence{0.00}")]
    plot.title.text = plain(f"{entry.name}: {name} of the relevance maps")
    plot.sizing_mode, plot.width, plot.height = "fixed", 640, 460
    return shown(plot, 460)


def plot_spectrum(run: Run, group: int, *, analysis: str | None = None) -> Any:
    """The smallest eigenvalues of a class as a Bokeh figure, the eigengap that suggests the strategies shaded.

    Raises:
        KeyError: the analysis has no such class.
    """
    from reports.panels.spectrum import build

    entry = ReportModel.from_run(run, analysis).group(group)
    values, k = np.asarray(entry.analysis.eigenvalues, dtype=float), entry.analysis.strategies
    plot: Any = build()
    plot.select_one({"name": "eigenvalues"}).data = {
        "k": np.arange(1, len(values) + 1),
        "value": values,
        "colour": [CLUSTER_COLOURS[0] if i < k else LIGHT["muted"] for i in range(len(values))],
    }
    plot.x_range.end = max(2, len(values)) + 0.7
    plot.y_range.end = 1.1 * max(0.05, float(values.max(initial=0.0)))
    if 0 < k < len(values):
        cut, gap = plot.select_one({"name": "cut"}), plot.select_one({"name": "gap"})
        cut.location, cut.visible = k + 0.5, True
        gap.bottom, gap.top, gap.visible = float(values[k - 1]), float(values[k]), k > 1
    count = "one strategy" if k == 1 else f"{k} strategies"
    plot.title.text = plain(f"{entry.name}: {count} by the eigengap")
    plot.sizing_mode, plot.width, plot.height = "fixed", 520, 260
    return shown(plot, 260)


def plot_cluster(
    run: Run, key: str, *, members: int = 8, colour_map: str = "bwr", analysis: str | None = None
) -> Any:
    """A finding or cluster as a Bokeh figure: its mean map, then its most central members with relevance laid over.

    Args:
        run: An open store.
        key: Such as "c6.f0" or "c6.hdbscan.3".
        members: How many members are shown.
        colour_map: One of ``reports.theme.COLOUR_MAPS``.
        analysis: Id of the analysis; the one that ``audit.report()`` opens with where None.

    Raises:
        KeyError: there is no such finding or cluster, or colour map.
    """
    from bokeh.models import Range1d
    from bokeh.plotting import figure

    model = ReportModel.from_run(run, analysis)
    group, subject = find_subject(model, key)
    table = COLOUR_MAPS[colour_map].table()
    pictures = subject_pictures(run, model, group, subject, members, table)
    plot: Any = figure(
        frame_width=TILE * len(pictures),
        frame_height=TILE,
        x_range=Range1d(start=0, end=len(pictures)),
        y_range=Range1d(start=0, end=1),
        tools=[],
        toolbar_location=None,
    )
    plot.axis.visible = plot.grid.visible = False
    plot.outline_line_color = None
    for place, picture in enumerate(pictures):
        pixels = np.ascontiguousarray(picture[::-1]).view(np.uint32)[..., 0]
        plot.image_rgba(image=[pixels], x=place + 0.02, y=0.02, dw=0.96, dh=0.96)
    count = f"{len(subject.members)} of {len(group.samples.rows)}"
    plot.title.text = plain(
        f"{group.name}, {key}: {count} samples; mean relevance and the most central members"
    )
    return shown(plot, TILE + 60)


def find_subject(model: ReportModel, key: str) -> tuple[Group, Subject]:
    """The finding or cluster of that key, with its class."""
    for group in model.groups:
        for subject in group.subjects:
            if subject.key == key:
                return group, subject
    keys = [subject.key for group in model.groups for subject in group.findings]
    raise KeyError(f"there is no finding or cluster {key!r}; the findings are {', '.join(keys) or 'none'}")


def subject_pictures(
    run: Run,
    model: ReportModel,
    group: Group,
    subject: Subject,
    members: int,
    table: UInt8[np.ndarray, "levels 3"],
) -> list[UInt8[np.ndarray, "y x 4"]]:
    """The mean map and the overlays of the first members, as RGBA."""
    rows = group.samples.rows[subject.members]
    relevance = run.table(str(model.facts["relevance"]))
    codes, _ = quantise(np.asarray(relevance.read(MAPS, rows)))
    mean, _ = quantise(codes.mean(axis=0, dtype=np.float64)[None])
    pictures = [outlined(coloured(mean[0], table), subject.region)]
    thumbnails = None
    if "thumbnail" in run.samples.columns:
        thumbnails = np.asarray(run.samples.read("thumbnail", rows[:members]))
    for place, code in enumerate(codes[:members]):
        ground = None if thumbnails is None else thumbnails[place]
        pictures.append(coloured(code, table) if ground is None else overlaid(ground, code, table))
    return pictures


def coloured(
    codes: Int8[np.ndarray, "y x"], table: UInt8[np.ndarray, "levels 3"]
) -> UInt8[np.ndarray, "y x 4"]:
    """A relevance map in colour."""
    rgb = table[codes.astype(int) + LEVELS]
    return np.concatenate([rgb, np.full((*codes.shape, 1), 255, np.uint8)], axis=-1)


def overlaid(
    thumbnail: UInt8[np.ndarray, "h w c"],
    codes: Int8[np.ndarray, "y x"],
    table: UInt8[np.ndarray, "levels 3"],
) -> UInt8[np.ndarray, "h w 4"]:
    """A relevance map over a grey picture: the stronger, the more opaque."""
    height, width = thumbnail.shape[:2]
    at = np.ix_(np.arange(height) * codes.shape[0] // height, np.arange(width) * codes.shape[1] // width)
    near = codes[at].astype(float)
    veil = (np.abs(near) / LEVELS)[..., None] ** 0.7
    grey = np.repeat(thumbnail.mean(axis=-1, keepdims=True) * 0.86, 3, axis=-1)
    hue = table[np.where(near < 0, 0, 2 * LEVELS)]
    rgb = np.rint(grey * (1 - veil) + hue * veil).astype(np.uint8)
    return np.concatenate([rgb, np.full((height, width, 1), 255, np.uint8)], axis=-1)


def outlined(
    picture: UInt8[np.ndarray, "y x 4"], region: Bool[np.ndarray, "y x"] | None
) -> UInt8[np.ndarray, "h w 4"]:
    """The picture enlarged, the border of a region drawn in."""
    factor = max(1, TILE // picture.shape[0])
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    if region is None or region.shape != picture.shape[:2]:
        return large
    inside = np.pad(region.repeat(factor, axis=0).repeat(factor, axis=1), 1)
    core = inside[1:-1, 1:-1]
    inner = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    large = large.copy()
    large[core & ~inner] = (0, 0, 0, 255)
    return large


def plain(text: str) -> str:
    """Text that Bokeh does not take for a formula, which it would fetch a library for."""
    return text.replace("$$", "$ $").replace("\\[", "\\ [").replace("\\(", "\\ (")
