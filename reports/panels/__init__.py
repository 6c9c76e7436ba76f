"""The panels of the page. A panel is ``<name>.html`` and ``<name>.js`` here, and one line in ``PANELS``.

A panel that Bokeh draws also has a module with ``build()``, named in ``figure``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def embedding() -> Any:
    """The embedding's empty figure (bokeh is imported when it is built)."""
    from reports.panels.embedding import build

    return build()


def spectrum() -> Any:
    """The spectrum's empty figure."""
    from reports.panels.spectrum import build

    return build()


@dataclass(frozen=True)
class Panel:
    """One part of a page: ``slot`` says where on the page it stands, in the order of ``PANELS``."""

    name: str
    page: str
    slot: str
    label: str
    """What a screen reader calls it."""
    figure: Callable[[], Any] | None = None

    @property
    def markup(self) -> str:
        """Its static HTML, without any data of the store."""
        return (HERE / f"{self.name}.html").read_text(encoding="utf-8")

    @property
    def script(self) -> str:
        """Its JavaScript: one ``spray.panel({name, mount, update})``."""
        return (HERE / f"{self.name}.js").read_text(encoding="utf-8")


PANELS = {
    panel.name: panel
    for panel in (
        Panel("overview", "overview", "main", "Overview"),
        Panel("classes", "class", "left", "Classes, flagged first, then most suspicious"),
        Panel("finding", "class", "centre", "The machine's suspicion"),
        Panel("embedding", "class", "centre", "Embedding of the relevance maps", embedding),
        Panel("gallery", "class", "centre", "Selected samples"),
        Panel("verdict", "class", "right", "Your verdict"),
        Panel("spectrum", "class", "right", "Eigenvalue spectrum", spectrum),
        Panel("clusters", "class", "right", "Findings and clusters"),
        Panel("prototypes", "class", "right", "Prototypes"),
        Panel("cluster", "cluster", "main", "A finding or cluster by itself, or two side by side"),
        Panel("summary", "summary", "main", "Summary of verdicts"),
        Panel("about", "about", "main", "About this audit"),
    )
}
