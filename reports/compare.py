"""Two audits on one page: what ``stores.comparison`` holds, as static HTML that runs no script and needs no network."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

import stores
from reports.carriers import style
from reports.images import quantise
from reports.theme import COLOUR_MAPS, LEVELS, style_variables
from stores.comparison import ClassSide, Comparison, Pair, Strategy
from stores.files import whole

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
CARDS = 40
"""At most so many strategies are shown with pictures; the CSV has all."""
PICTURES = 6
COLUMNS = ("class", "samples", "accuracy", "findings", "flagged", "suspicion", "strategies", "adjusted Rand")
ABOUT = (
    "Suspicion, necessity and sufficiency are each audit's own measurements. A strategy that vanished is one that the "
    "second audit does not find; it may still be there below what an audit of this size sees. Common members say that "
    "two strategies group the same samples, not that the model uses the same thing in them: look at both pictures."
)


def write_comparison(
    found: Comparison, out_path: str | os.PathLike[str], *, title: str | None = None
) -> Path:
    """Write a comparison as one HTML file, which appears whole or not at all; pictures are read from both stores.

    Raises:
        stores.StoreError: a store is not where it was when the two were compared.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here / "templates"), autoescape=True)
    css = style_variables() + style("base") + style("compare")
    text = environment.get_template("compare.html").render(
        policy=POLICY, style=Markup(css), **contents(found, title)
    )
    out = Path(out_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    return out


def contents(found: Comparison, title: str | None = None) -> dict[str, Any]:
    """What the page says, as plain values; the template escapes them."""
    left, right = found.left, found.right
    runs = [stores.open(side.store) for side in (left, right)]
    samples = f"{found.shared:,} samples in common" if found.shared else "no samples in common"
    compared = "which samples they group" if found.by == "members" else "where their relevance lies"
    scores = [max((value for value in _scores(found, side)), default=None) for side in ("left", "right")]
    return {
        "title": title or f"{left.name} → {right.name}",
        "left": left,
        "right": right,
        "headline": found.counts(),
        "matched": f"{left.samples:,} and {right.samples:,} samples, {samples}; strategies are matched by {compared}.",
        "notes": found.notes,
        "tiles": [
            {"name": "flagged", "left": left.flagged, "right": right.flagged},
            {"name": "highest suspicion", "left": number(scores[0]), "right": number(scores[1])},
            {"name": "accuracy of all samples", "left": share(left.accuracy), "right": share(right.accuracy)},
            {"name": "findings", "left": left.findings, "right": right.findings},
        ],
        "cards": [card(pair, found, runs) for pair in found.pairs[:CARDS]],
        "hidden": max(0, len(found.pairs) - CARDS),
        "columns": COLUMNS,
        "classes": [
            class_row(entry.class_name, entry.left, entry.right, entry.adjusted_rand)
            for entry in found.classes
        ],
        "about": ABOUT,
    }


def card(pair: Pair, found: Comparison, runs: Sequence[stores.Run]) -> dict[str, Any]:
    """One strategy of either audit, or of both."""
    told = []
    if pair.jaccard is not None:
        told.append(f"{share(pair.jaccard)} of the members in common")
    if pair.overlap is not None:
        told.append(f"regions overlap by {share(pair.overlap)}")
    if pair.likeness is not None and pair.jaccard is None:
        told.append(f"maps alike by {number(pair.likeness)}")
    if pair.shift is not None:
        told.append(f"moved by {pair.shift[0]} cells down, {pair.shift[1]} right")
    sides = zip((pair.left, pair.right), (found.left.name, found.right.name), runs, strict=True)
    return {
        "change": pair.change,
        "class_name": pair.class_name,
        "flagged": pair.flagged,
        "missing": "This class was not analysed here." if pair.change == "unseen" else "No such strategy.",
        "elsewhere": ""
        if pair.elsewhere is None
        else f"Accuracy of the same samples here: {share(pair.elsewhere)}.",
        "told": " · ".join(told).replace("-", "−"),
        "sides": [None if strategy is None else side(strategy, name, run) for strategy, name, run in sides],
    }


def side(strategy: Strategy, store: str, run: stores.Run) -> dict[str, Any]:
    """A strategy of one audit with its pictures."""
    shown = None if strategy.mean_map is None else np.asarray(strategy.mean_map)
    height, width = (0, 0) if shown is None else shown.shape
    fits = strategy.region is not None and strategy.region.shape == (height, width)
    return {
        "name": strategy.name,
        "store": store,
        "flagged": strategy.flagged,
        "samples": f"{strategy.samples:,}",
        "score": number(strategy.score),
        "necessity": number(strategy.necessity),
        "sufficiency": number(strategy.sufficiency),
        "accuracy": share(strategy.accuracy),
        "summary": strategy.summary,
        "map": "" if shown is None else data_uri(coloured(shown)),
        "outline": outline(strategy.region) if fits and strategy.region is not None else "",
        "height": height,
        "width": width,
        "pictures": thumbnails(run, strategy.rows),
    }


def thumbnails(run: stores.Run, rows: Sequence[int]) -> list[str]:
    """Pictures of some members, evenly spaced; none where the store keeps none."""
    if "thumbnail" not in run.samples.columns or not rows:
        return []
    chosen = [rows[int(i)] for i in np.unique(np.linspace(0, len(rows) - 1, PICTURES).round().astype(int))]
    return [data_uri(picture) for picture in run.samples.read("thumbnail", chosen)]


def coloured(values: Float[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """A relevance map in colours, symmetric about zero."""
    codes, _ = quantise(np.asarray(values)[None])
    colours: UInt8[np.ndarray, "y x 3"] = COLOUR_MAPS["bwr"].table()[codes[0].astype(int) + LEVELS]
    return colours


def outline(region: Bool[np.ndarray, "y x"]) -> str:
    """The border of a region as an SVG path, one unit per cell."""
    padded = np.pad(region, 1)
    parts = []
    for y, x in zip(*np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1]), strict=True):
        parts.append(f"M{x} {y}h1")
    for y, x in zip(*np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1]), strict=True):
        parts.append(f"M{x} {y}v1")
    return "".join(parts)


def data_uri(picture: UInt8[np.ndarray, "y x c"]) -> str:
    """A picture of one or three channels as a PNG in the page itself."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def class_row(
    name: str, left: ClassSide | None, right: ClassSide | None, adjusted_rand: float | None
) -> tuple[str, ...]:
    """A row of the table of classes; one figure where both sides have the same."""

    def both(told: Any) -> str:
        first, second = ("–" if it is None else told(it) for it in (left, right))
        return first if first == second else f"{first} → {second}"

    return (
        name,
        both(lambda it: f"{it.samples:,}"),
        both(lambda it: share(it.accuracy)),
        both(lambda it: str(it.findings)),
        both(lambda it: str(it.flagged)),
        both(lambda it: number(it.suspicion)),
        both(lambda it: str(it.strategies)),
        number(adjusted_rand),
    )


def number(value: float | None) -> str:
    """Two decimals."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def share(value: float | None) -> str:
    """Per cent, one decimal."""
    return "–" if value is None else f"{100 * value:.1f} %"


def _scores(found: Comparison, which: str) -> list[float]:
    sides = [getattr(entry, which) for entry in found.classes]
    return [it.suspicion for it in sides if it is not None and it.suspicion is not None]
