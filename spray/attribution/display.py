"""Model inputs shown as pictures: the inverse of the normalisation, the same for every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from spray.engine.errors import BadInput


@dataclass(frozen=True)
class Display:
    """``x · scale + offset`` per channel puts an input into [0, 1]; one scale for the whole data set.

    A scale per picture would brighten dark images and hide exactly the differences an auditor looks for.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def of(
        cls, inputs: Float[Tensor, "n c ..."], mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> Display:
        """From the normalisation where it is known; else from the range of a first block of inputs.

        Raises:
            BadInput: mean and std are for another number of channels.
        """
        if mean is not None and std is not None:
            channels = inputs.shape[1]
            if not len(mean) == len(std) or len(mean) not in (1, channels):
                raise BadInput(
                    f"the data set's mean has {len(mean)} and its std {len(std)} entries, and inputs have "
                    f"{channels} channels. Give one entry per channel, or one for all."
                )
            return cls(tuple(float(s) for s in std), tuple(float(m) for m in mean))
        finite = inputs[torch.isfinite(inputs)]
        low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        scale = 1 / max(high - low, 1e-12)
        return cls((scale,), (-low * scale,))

    def pictures(self, inputs: Float[Tensor, "n c ..."], longest: int) -> UInt8[np.ndarray, "n y x rgb"]:
        """8-bit pictures of at most ``longest`` pixels a side; one channel or the first three.

        A signal is drawn as a curve from left to right, several channels one below the other.
        """
        shape = (1, -1, *(1,) * (inputs.ndim - 2))
        values = inputs.detach().float() * torch.tensor(self.scale, device=inputs.device).view(shape)
        values = torch.nan_to_num(values + torch.tensor(self.offset, device=inputs.device).view(shape))
        if values.ndim == 3:
            return curves(values.clamp(0, 1), longest, max(1, longest // 2))
        values = values[:, :3] if values.shape[1] >= 3 else values[:, :1]
        height, width = values.shape[-2:]
        if max(height, width) > longest:
            ratio = longest / max(height, width)
            size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
            values = F.interpolate(values, size=size, mode="area")
        values = values.clamp(0, 1).mul(255).round()
        return values.permute(0, 2, 3, 1).to("cpu", torch.uint8).contiguous().numpy()


def curves(values: Float[Tensor, "n c t"], width: int, height: int) -> UInt8[np.ndarray, "n y x grey"]:
    """Signals in [0, 1] drawn black on white; each column shows all values that fall into it, none is left out."""
    values = values[:, :height]
    lane = height // values.shape[1]
    steps = max(1, values.shape[-1] - 1)
    size = (values.shape[-1] - 1) * -(-4 * width // steps) + 1  # every sample is among the points drawn
    fine = F.interpolate(values, size=size, mode="linear", align_corners=True)
    high, low = F.adaptive_max_pool1d(fine, width), -F.adaptive_max_pool1d(-fine, width)
    high[..., :-1] = torch.maximum(high[..., :-1], low[..., 1:])  # no gap between a column and the next
    low[..., :-1] = torch.minimum(low[..., :-1], high[..., 1:])
    rows = torch.arange(lane, device=values.device).view(1, 1, -1, 1)
    top, bottom = ((1 - edge).mul(lane - 1).round().unsqueeze(2) for edge in (high, low))
    ink = (rows >= top) & (rows <= bottom)
    picture = torch.full((len(values), height, width, 1), 255, dtype=torch.uint8)
    picture[:, : lane * values.shape[1], :, 0] = torch.where(ink, 0, 255).to("cpu", torch.uint8).flatten(1, 2)
    return picture.numpy()
