"""What a run says of its samples beside their relevance."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from stores import Run

META = "meta."
BOX = ("box_left", "box_top", "box_right", "box_bottom")


class Outcomes:
    """Labels, predictions, logits and metadata of all samples; each is read where it is first asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def hosts(self, target: int) -> Int[np.ndarray, " h"]:
        """Rows of other classes by label and by prediction: images that may become the class when pasted on."""
        return np.flatnonzero(self.run.samples.ok & (self.labels != target) & (self.predictions != target))

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """−1 where unknown."""
        values: Int[np.ndarray, " n"] = self.run.samples.read("label")
        return values

    @cached_property
    def predictions(self) -> Int[np.ndarray, " n"]:
        """The predicted classes."""
        values: Int[np.ndarray, " n"] = self.run.samples.read("prediction")
        return values

    def metadata(self, rows: Int[np.ndarray, " m"]) -> dict[str, np.ndarray]:
        """Metadata columns of some samples, by name; where an object lies is no property to be associated with."""
        names = [name.removeprefix(META) for name in self.run.samples.columns if name.startswith(META)]
        return {name: self.run.samples.read(f"{META}{name}", rows) for name in names if name not in BOX}

    def digests(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"] | None:
        """The digest of each input."""
        found: Int[np.ndarray, " m"] | None = self._read("digest", rows)
        return found

    def thumbnails(self, rows: Int[np.ndarray, " m"]) -> UInt8[np.ndarray, "m y x c"] | None:
        """Small pictures."""
        found: UInt8[np.ndarray, "m y x c"] | None = self._read("thumbnail", rows)
        return found

    def objects(
        self, rows: Int[np.ndarray, " m"], grid: tuple[int, int]
    ) -> Float[np.ndarray, "m y x"] | None:
        """Which share of each cell of the grid is the object; None where neither masks nor boxes are given.

        Masks are the sample column ``mask`` (y, x), the share of each cell that is the object; boxes the metadata
        ``box_left``, ``box_top``, ``box_right`` and ``box_bottom``, as shares of the input's width and height.
        """
        masks = self._read("mask", rows)
        if masks is not None:
            return _pooled(masks, grid)
        if not all(f"{META}{side}" in self.run.samples.columns for side in BOX):
            return None
        left, top, right, bottom = (
            self.run.samples.read(f"{META}{side}", rows).astype(np.float64) for side in BOX
        )
        inside: Float[np.ndarray, "m y x"] = (
            _covered(top, bottom, grid[0])[:, :, None] * _covered(left, right, grid[1])[:, None, :]
        )
        return inside

    def _read(self, column: str, rows: Int[np.ndarray, " m"]) -> Any:
        return self.run.samples.read(column, rows) if column in self.run.samples.columns else None

    def probability(self, target: int, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """P(target) of some samples."""
        logits = self.run.samples.read("logits", rows).astype(np.float64)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        found: Float[np.ndarray, " m"] = odds[:, target] / odds.sum(1)
        return found


def _pooled(masks: Float[np.ndarray, "m h w"], grid: tuple[int, int]) -> Float[np.ndarray, "m y x"]:
    """The mean over each cell of a coarser grid (the same, if it is none); cells are cut as even as they can be."""
    pooled = masks.astype(np.float64)
    for axis, cells in zip((1, 2), grid, strict=True):
        edges = np.linspace(0, pooled.shape[axis], cells + 1)
        starts = np.minimum(edges[:-1].astype(int), pooled.shape[axis] - 1)
        sums = np.add.reduceat(pooled, starts, axis=axis)
        sizes = np.diff(np.append(starts, pooled.shape[axis])).clip(min=1)
        pooled = sums / sizes.reshape([-1 if it == axis else 1 for it in range(3)])
    return pooled


def _covered(
    low: Float[np.ndarray, " m"], high: Float[np.ndarray, " m"], cells: int
) -> Float[np.ndarray, "m cells"]:
    """The share of each cell of a unit interval that lies between two ends; NaN where one is unknown."""
    edges = np.linspace(0, 1, cells + 1)
    overlap = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    covered: Float[np.ndarray, "m cells"] = np.where(
        np.isnan(low + high)[:, None], np.nan, np.clip(overlap * cells, 0, 1)
    )
    return covered
