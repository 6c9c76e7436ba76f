"""What corrections and comparisons print for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from spray.cli.output import plain, printable
from spray.percent import share

if TYPE_CHECKING:
    from spray.correction import Corrected
    from stores.comparison import Comparison

SHOWN_PAIRS = 12


def show_correction(done: Corrected) -> None:
    """Layer scores, and accuracy before and after."""
    console = Console()
    if done.layers:
        console.print(_layers(done))
    title = f"{done.method}" + (f" at {printable(done.layer)}" if done.layer else "")
    table = Grid(title=title, title_justify="left")
    for name in ("", "before", "after"):
        table.add_column(name, justify="left" if not name else "right")
    for row in done.before.told(done.after):
        table.add_row(*row)
    console.print(table)
    if done.note:
        console.print(plain(done.note))
    if done.doubt:
        click.echo(f"WARNING: {done.doubt}", err=True)


def _layers(done: Corrected) -> Grid:
    """What was seen at each layer, on samples to fit on."""
    imitated = any(score.agreement is not None for score in done.layers)
    title = (
        "layers: what writing the artifact there does" if imitated else "layers: what P-ClArC there would do"
    )
    table = Grid(title=title, title_justify="left")
    words = ["", "layer", "against", *([] if imitated else ["aim"])]
    numbers = ["acts as the attack"] if imitated else ["clean, balanced", "at most lost", "attacked"]
    for name in words:
        table.add_column(name)
    for name in ("AUC of the direction", *numbers):
        table.add_column(name, justify="right")
    for score in done.layers:
        read = plain(score.refused or _number(score.auc, 3))
        told = [score.agreement] if imitated else [score.clean, score.cost, score.attacked]
        cells: list[Text | str] = [plain(score.layer), score.against or "–"]
        cells += [] if imitated else [score.aim or "–"]
        table.add_row("→" if score.layer == done.layer else "", *cells, read, *map(share, told))
    return table


def show_comparison(found: Comparison) -> None:
    """Counts, classes and the most suspicious strategies of both audits."""
    console = Console()
    one, other = found.left, found.right
    compared = "common samples" if found.by == "members" else "where relevance lies"
    for line in (
        f"{one.name} ({one.samples} samples) → {other.name} ({other.samples}), {found.shared} in common.",
        f"Strategies matched by {compared}: {found.counts()}.",
        f"Flagged {one.flagged} → {other.flagged}; accuracy {share(one.accuracy)} → {share(other.accuracy)}.",
    ):
        console.print(plain(line))
    for note in found.notes:
        console.print(plain(note))
    table = Grid(title="strategies, the most suspicious first", title_justify="left")
    for name in ("", "class", "finding", "samples", "suspicion", "common", "overlap"):
        table.add_column(name, justify="left" if name in ("", "class", "finding") else "right")
    for pair in found.pairs[:SHOWN_PAIRS]:
        sides = (pair.left, pair.right)
        table.add_row(
            pair.change,
            plain(pair.class_name),
            plain(
                _both(None if side is None else ("⚑ " if side.flagged else "") + side.name for side in sides)
            ),
            _both(None if side is None else str(side.samples) for side in sides),
            _both(None if side is None else _number(side.score) for side in sides),
            share(pair.jaccard),
            share(pair.overlap),
        )
    console.print(table)
    table = Grid(title="classes", title_justify="left")
    for name in ("class", "samples", "accuracy", "findings", "flagged", "suspicion", "Rand"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for entry in found.classes:
        both = (entry.left, entry.right)
        table.add_row(
            plain(entry.class_name),
            _both(None if side is None else str(side.samples) for side in both),
            _both(None if side is None else share(side.accuracy) for side in both),
            _both(None if side is None else str(side.findings) for side in both),
            _both(None if side is None else str(side.flagged) for side in both),
            _both(None if side is None else _number(side.suspicion) for side in both),
            _number(entry.adjusted_rand),
        )
    console.print(table)


def _both(sides: Iterable[str | None]) -> str:
    """Two sides as one cell; one of them where they are the same, or where the other is not there."""
    told = list(dict.fromkeys(side for side in sides if side is not None))
    return " → ".join(told) or "–"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
