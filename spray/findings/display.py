"""Inputs shown as the run's thumbnails are: the same scale and size, read off pairs of an input and its thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class LikeThumbnails:
    """``x · scale + offset`` per channel puts an input into [0, 1]; pictures have ``size`` (y, x) pixels."""

    scale: Float[np.ndarray, " rgb"]
    offset: Float[np.ndarray, " rgb"]
    size: tuple[int, int]

    @classmethod
    def of(
        cls, inputs: Float[Tensor, "n c h w"], thumbnails: UInt8[np.ndarray, "n y x rgb"]
    ) -> LikeThumbnails:
        """By least squares over pixels that are neither black nor white, which may have been cut off."""
        size = (int(thumbnails.shape[1]), int(thumbnails.shape[2]))
        values = _sized(inputs, size)[:, : thumbnails.shape[3]].permute(0, 2, 3, 1).double().numpy()
        shown = thumbnails / 255
        scales, offsets = [], []
        for channel in range(thumbnails.shape[3]):
            x, y = values[..., channel].ravel(), shown[..., channel].ravel()
            inside = (y > 0) & (y < 1)
            x, y = (x[inside], y[inside]) if inside.any() else (x, y)
            spread = float(x.var())
            scales.append(float(np.cov(x, y, ddof=0)[0, 1] / spread) if spread > 0 else 1.0)
            offsets.append(float(y.mean() - scales[-1] * x.mean()))
        return cls(np.array(scales), np.array(offsets), size)

    def pictures(self, inputs: Float[Tensor, "n c h w"]) -> UInt8[np.ndarray, "n y x rgb"]:
        """Eight bits a channel, what lies outside cut off."""
        values = _sized(inputs, self.size)[:, : len(self.scale)].permute(0, 2, 3, 1).double().numpy()
        shown = np.clip(np.nan_to_num(values * self.scale + self.offset), 0, 1)
        found: UInt8[np.ndarray, "n y x rgb"] = np.round(255 * shown).astype(np.uint8)
        return found


def _sized(inputs: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c y x"]:
    return (
        inputs if tuple(inputs.shape[-2:]) == size else F.interpolate(inputs.float(), size=size, mode="area")
    )
