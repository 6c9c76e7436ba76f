"""The 2-D picture of the relevance maps: one dot per sample, filled and coloured by the page."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from bokeh.models import (
    BoxSelectTool,
    ColumnDataSource,
    HoverTool,
    InlineStyleSheet,
    LassoSelectTool,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    Scatter,
    TapTool,
    Text,
    WheelZoomTool,
)
from bokeh.plotting import figure

from reports.theme import FLAGGED, LIGHT

PILL: dict[str, Any] = {"border_radius": 5, "padding": 4}
TOOLS = """
@media (pointer: coarse) { :host { --button-width: 44px; --button-height: 44px; } }
.bk-divider { background-color: var(--line); }
"""
"""Tools that a finger hits, and lines between them in the page's colours, light or dark."""
FONT = "Helvetica Neue, Segoe UI, Liberation Sans, Arial, sans-serif"


def build(backend: Literal["canvas", "svg", "webgl"] = "canvas") -> figure:
    """An empty embedding; the page finds its parts by name: ``points``, ``labels``, ``mark``, ``dots``, ``names``."""
    lasso, wheel = LassoSelectTool(continuous=False), WheelZoomTool()
    box = BoxSelectTool(continuous=False)
    plot = figure(
        name="embedding",
        tools=[
            lasso,
            box,
            TapTool(visible=False),
            PanTool(),
            wheel,
            ResetTool(),
            SaveTool(filename="embedding"),
        ],
        sizing_mode="stretch_both",
        min_border=0,  # a lasso that begins outside the frame is none: there is no outside
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        output_backend=backend,
        toolbar_location="right",
    )
    plot.lod_threshold = None
    plot.toolbar.logo = None
    plot.toolbar.stylesheets = [InlineStyleSheet(css=TOOLS)]
    plot.toolbar.active_drag = lasso
    plot.toolbar.active_scroll = wheel
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = plot.background_fill_color = plot.border_fill_color = None
    dots = plot.add_glyph(
        # The page colours dots by packed numbers, 0xrrggbbaa: no text to parse for each.
        ColumnDataSource({"x": [], "y": [], "colour": np.zeros(0, np.uint32)}, name="points"),
        dot(fill_alpha=0.85),
        selection_glyph=dot(fill_alpha=0.95, line_color=LIGHT["card"], line_width=0.6),
        nonselection_glyph=dot(fill_alpha=0.28),
        name="dots",
    )
    mark = Scatter(x="x", y="y", size=16, fill_color=None, line_color=FLAGGED, line_width=2.5)
    plot.add_glyph(source("mark", "x", "y"), mark)
    label = Text(
        x="x",
        y="y",
        y_offset="lift",
        text="text",
        text_color="colour",
        text_align="center",
        text_baseline="middle",
        text_font={"value": FONT},
        text_font_size="13px",
        text_font_style="bold",
        background_fill_color=LIGHT["card"],
        background_fill_alpha=0.88,
        border_line_color="colour",
        **PILL,
    )
    plot.add_glyph(source("labels", "x", "y", "text", "colour", "lift"), label, name="names")
    plot.add_tools(HoverTool(renderers=[dots], tooltips=None, visible=False))
    return plot


def source(name: str, *columns: str) -> ColumnDataSource:
    """Empty columns that the page fills."""
    return ColumnDataSource({column: [] for column in columns}, name=name)


def dot(**style: Any) -> Scatter:
    """A dot whose place and colour are columns."""
    return Scatter(x="x", y="y", size=6, fill_color="colour", **{"line_color": None, **style})
