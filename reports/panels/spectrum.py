"""The smallest eigenvalues of the class's Laplacian, with the eigengap that suggests the number of strategies."""

from __future__ import annotations

from bokeh.models import BasicTicker, ColumnDataSource, FixedTicker, Range1d, Scatter, Segment
from bokeh.models.annotations import BoxAnnotation, Span
from bokeh.plotting import figure

from reports.theme import FLAGGED

TICKS = (1, 5, 10, 15, 20, 25, 30)


def build() -> figure:
    """An empty spectrum; the page finds its parts by name: ``eigenvalues``, ``gap``, ``cut``."""
    plot = figure(
        name="spectrum",
        tools=[],
        toolbar_location=None,
        sizing_mode="stretch_both",
        min_border=2,
        x_range=Range1d(start=0.4, end=20.6),
        y_range=Range1d(start=0, end=1),
        x_axis_label="index of the eigenvalue",
        y_axis_label="λ",
    )
    plot.min_border_right = 8
    plot.outline_line_color = plot.background_fill_color = plot.border_fill_color = None
    plot.xgrid.visible = False
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
    plot.xaxis.ticker = FixedTicker(ticks=list(TICKS), minor_ticks=[])
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "11px"
    plot.axis.major_label_text_font_size = "11px"
    plot.axis.major_tick_out = 3
    plot.axis.axis_label_standoff = 3
    values = ColumnDataSource({"k": [], "value": [], "colour": []}, name="eigenvalues")
    stem = Segment(x0="k", y0=0, x1="k", y1="value", line_color="colour", line_width=2, line_alpha=0.55)
    plot.add_glyph(values, stem)
    plot.add_glyph(values, Scatter(x="k", y="value", size=7, fill_color="colour", line_color=None))
    gap = BoxAnnotation(name="gap", fill_color=FLAGGED, fill_alpha=0.16, line_color=None, visible=False)
    cut = Span(name="cut", dimension="height", location=0, line_color=FLAGGED, visible=False)
    cut.line_dash = "dashed"
    cut.line_width = 1.5
    plot.add_layout(gap)
    plot.add_layout(cut)
    return plot
