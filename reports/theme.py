"""Colours: relevance maps symmetric about zero, cluster colours, and the two themes of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

LEVELS = 127
"""Relevance travels as int8 in [−127, 127]: a colour map has 2·127 + 1 entries, zero in the middle."""


@dataclass(frozen=True)
class ColourMap:
    """A diverging map from negative to positive relevance, by evenly spaced control points (hex)."""

    name: str
    title: str
    stops: tuple[str, ...]

    def table(self) -> UInt8[np.ndarray, "levels 3"]:
        """Entry ``v + 127`` is the colour of the int8 value ``v``; linear in sRGB between the stops."""
        stops = np.array([rgb(stop) for stop in self.stops], dtype=np.float64)
        at = np.linspace(-LEVELS, LEVELS, len(stops))
        values = np.arange(-LEVELS, LEVELS + 1)
        channels = [np.interp(values, at, stops[:, channel]) for channel in range(3)]
        return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two ``#rrggbb`` colours, in [1, 21]."""

    def luminance(colour: str) -> float:
        srgb = np.array(rgb(colour)) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ np.array([0.2126, 0.7152, 0.0722]))

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


CLUSTER_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442", "#8c6bb1", "#7f7f7f")
"""After Okabe and Ito. Vermilion, #d55e00, is left to flagged findings: nothing else on the page has it."""

FLAGGED = "#d55e00"

LIGHT = {
    "page": "#f2f4f7",
    "card": "#ffffff",
    "raised": "#ffffff",
    "well": "#eef1f5",
    "line": "#dce2e9",
    "ink": "#16202c",
    "muted": "#566273",
    "accent": "#0a58ca",
    "accent-ink": "#ffffff",
    "accent-soft": "#e4eefc",
    "alarm": "#a84300",
    "alarm-fill": FLAGGED,
    "alarm-soft": "#fdf0e6",
    "alarm-line": "#f1c9a8",
    "good": "#0b6e4f",
    "unsure": "#5b4bb0",
    "dot": "#a9b4c0",
}
DARK = {
    "page": "#0d1218",
    "card": "#161d26",
    "raised": "#1d2631",
    "well": "#10161d",
    "line": "#2b3542",
    "ink": "#e9eef4",
    "muted": "#a5b1bf",
    "accent": "#79b4ff",
    "accent-ink": "#0b1522",
    "accent-soft": "#1a2f4c",
    "alarm": "#ffa061",
    "alarm-fill": "#f07a1f",
    "alarm-soft": "#2e1d10",
    "alarm-line": "#6b4020",
    "good": "#5fd0a5",
    "unsure": "#b7a8ff",
    "dot": "#566373",
}
THEMES = {"light": LIGHT, "dark": DARK}

VIRIDIS = (
    "#440154",
    "#472c7b",
    "#3a528b",
    "#2c728e",
    "#20908c",
    "#27ad80",
    "#5bc862",
    "#aadb32",
    "#fde724",
)
"""Nine evenly spaced colours of matplotlib's viridis: lightness alone tells their order, so every eye sees it."""

SCALES = {"light": VIRIDIS[:7], "dark": VIRIDIS[2:]}
"""Colours of numbers, lowest first; without the end that is lost on the card of the theme."""

COLOUR_MAPS = {
    entry.name: entry
    for entry in (
        ColourMap("bwr", "blue–red (bwr)", ("#0000ff", "#ffffff", "#ff0000")),
        ColourMap(
            "RdBu_r",
            "blue–red (RdBu)",
            (
                "#053061",
                "#2166ac",
                "#4393c3",
                "#92c5de",
                "#d1e5f0",
                "#f7f7f7",
                "#fddbc7",
                "#f4a582",
                "#d6604d",
                "#b2182b",
                "#67001f",
            ),
        ),
        ColourMap(
            "PuOr",
            "purple–orange",
            (
                "#2d004b",
                "#542788",
                "#8073ac",
                "#b2abd2",
                "#d8daeb",
                "#f7f7f7",
                "#fee0b6",
                "#fdb863",
                "#e08214",
                "#b35806",
                "#7f3b08",
            ),
        ),
        ColourMap("coldnhot", "cold and hot", ("#66e0ff", "#0040ff", "#000000", "#ff1a00", "#ffe066")),
    )
}


def style_variables() -> str:
    """The themes as CSS custom properties: light, dark by preference, either by hand; paper is light."""

    def block(name: str) -> str:
        return "".join(f"--{key}:{value};" for key, value in THEMES[name].items()) + f"color-scheme:{name};"

    return (
        f":root{{{block('light')}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{block('dark')}}}}}\n"
        f":root[data-theme=dark]{{{block('dark')}}}\n"
        f"@media print{{:root:root{{{block('light')}}}}}\n"
    )
