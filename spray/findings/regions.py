"""Shared relevant regions: the few cells where the members of a cluster have relevance that others lack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, uniform_filter


def unit_maps(maps: Float[np.ndarray, "n y x"]) -> Float[np.ndarray, "n y x"]:
    """Maps of L2 norm 1, so that confident samples do not outvote the others; all-zero maps stay zero."""
    norms = np.sqrt(np.square(maps, dtype=np.float64).sum((1, 2), keepdims=True))
    units: Float[np.ndarray, "n y x"] = maps / np.where(norms > 0, norms, 1)
    return units


@dataclass(frozen=True)
class TopRegion:
    """The cells with the largest smoothed relevance, as many as carry it: a corner tag has few, a border many.

    Cells of at least ``level`` of the largest one belong to the region, but never more than ``share`` of the grid, nor
    (while they are positive) fewer than ``least`` of it and one cell.

    Args:
        share: of all cells, at most.
        level: of the largest smoothed relevance.
        least: of all cells.
        smooth: side of the box, in cells, over which relevance is averaged first; single pixels are noise.
    """

    share: float = 0.1
    level: float = 0.2
    least: float = 0.01
    smooth: int = 3

    def of(self, contrast: Float[np.ndarray, "y x"], cells: int | None = None) -> Bool[np.ndarray, "y x"]:
        """The region of one map, or its top ``cells`` if given; empty where no cell is positive."""
        smoothed = self.smoothed(contrast).ravel()
        if cells is None:
            relevant = int((smoothed >= self.level * smoothed.max()).sum())
            cells = min(max(relevant, round(self.least * smoothed.size)), round(self.share * smoothed.size))
        # Stable order: among equal cells the first wins, on every machine.
        top = np.argsort(-smoothed, kind="stable")[: max(1, cells)]
        region = np.zeros(contrast.size, bool)
        region[top] = smoothed[top] > 0
        return region.reshape(contrast.shape)

    def shared(
        self, members: Float[np.ndarray, "m y x"], rest: Float[np.ndarray, "r y x"]
    ) -> Bool[np.ndarray, "y x"]:
        """Where unit maps of the members have more relevance on average than those of the rest of the class."""
        contrast = members.mean(0)
        return self.of(contrast - rest.mean(0) if len(rest) else contrast)

    def smoothed(self, contrast: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
        """Averaged over the box; outside the map there is no relevance."""
        averaged: Float[np.ndarray, "y x"] = uniform_filter(
            contrast.astype(np.float64), self.smooth, mode="constant"
        )
        return averaged


def overlap(first: Bool[np.ndarray, "y x"], second: Bool[np.ndarray, "y x"]) -> float:
    """Intersection over union; 0 for two empty regions."""
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else 0.0


def grown(region: Bool[np.ndarray, "y x"], cells: int) -> Bool[np.ndarray, "y x"]:
    """With so many cells around it, on every side and across corners."""
    larger: Bool[np.ndarray, "y x"] = binary_dilation(region, np.ones((3, 3), bool), iterations=cells)
    return larger


def pixel_mask(region: Bool[np.ndarray, "y x"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A region of the pooled grid at full size: a pixel belongs to the cell that holds its centre."""
    rows = ((np.arange(height) + 0.5) * region.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * region.shape[1] / width).astype(int)
    return region[np.ix_(rows, columns)]


def describe_place(region: Bool[np.ndarray, "y x"]) -> str:
    """Where a region lies, in words: "at the top left", "at the centre", "along the border", …"""
    if not region.any():
        return "nowhere"
    if _is_frame(region):
        return "along the border"
    y, x = (
        float(axis.mean() + 0.5) / size for axis, size in zip(np.nonzero(region), region.shape, strict=True)
    )
    vertical = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    horizontal = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"at the {' '.join(part for part in (vertical, horizontal) if part) or 'centre'}"


def _is_frame(region: Bool[np.ndarray, "y x"]) -> bool:
    """Nearly all of it in the outer sixth of the picture, along a third and more of three sides at least."""
    high, wide = (max(1, size // 6) for size in region.shape)
    sides = (
        region[:high].any(0),
        region[-high:].any(0),
        region[:, :wide].any(1),
        region[:, -wide:].any(1),
    )
    inner = region[high:-high, wide:-wide].sum() / region.sum()
    return bool(inner <= 0.1 and sum(side.mean() >= 1 / 3 for side in sides) >= 3)
