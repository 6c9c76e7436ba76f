"""How values lie in memory: channels side by side, which convolutions and pooling on a CPU are twice as fast on.

Torch reads the memory format off the strides and takes its usual one where they leave it open, as those of one
channel, one place or one sample may; one such tensor turns the rest of a network back.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def channels_last(values: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The channels of a place side by side, with strides that say so even of one channel or one place.

    Without them torch takes such a tensor as it usually lays them out, and all that is computed from it.
    """
    laid = values.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = values.shape
    return laid.as_strided(
        values.shape, (channels * height * width, 1, width * channels, channels), laid.storage_offset()
    )


def is_channels_last(values: Tensor) -> bool:
    """Whether the channels of a place lie side by side."""
    return (
        values.ndim == 4 and values.stride(1) == 1 and values.is_contiguous(memory_format=torch.channels_last)
    )


def in_memory_order(values: Tensor) -> Tensor:
    """A view of the same values in the order of memory: reductions of other views copy them first."""
    return values.permute(0, 2, 3, 1) if is_channels_last(values) else values
