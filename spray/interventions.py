"""Interventions on pictures: fill a region (removal), or paste a region's content elsewhere (transplant)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


class Fill(Protocol):
    """Replaces the content of a region by something that carries no information about it."""

    @property
    def name(self) -> str:
        """Name by which it is chosen and recorded."""
        ...

    def apply(
        self,
        images: Float[Tensor, "n c h w"],
        masks: Bool[Tensor, "#n 1 h w"],
        others: Float[Tensor, "n c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n c h w"]:
        """Filled copies; ``others`` are images of the same class without the finding, one for each image."""
        ...


@dataclass(frozen=True)
class NeighbourFill:
    """The same place of another image of the class: content that is natural there (stays on the data)."""

    name = "neighbour"

    def apply(
        self,
        images: Float[Tensor, "n c h w"],
        masks: Bool[Tensor, "#n 1 h w"],
        others: Float[Tensor, "n c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n c h w"]:
        """Filled copies of the images."""
        return torch.where(masks, others, images)


@dataclass(frozen=True)
class LocalMeanFill:
    """The mean of the pixels just outside the region, per channel.

    Args:
        reach: width of the ring outside the region, as a share of the picture's shorter side.
    """

    reach: float = 0.1
    name = "local mean"

    def apply(
        self,
        images: Float[Tensor, "n c h w"],
        masks: Bool[Tensor, "#n 1 h w"],
        others: Float[Tensor, "n c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n c h w"]:
        """Filled copies of the images."""
        side = 2 * max(1, round(self.reach * min(images.shape[-2:]))) + 1
        grown = F.max_pool2d(masks.to(images), side, stride=1, padding=side // 2)
        ring = (grown - masks.to(images)).expand(len(images), 1, -1, -1)
        weight = ring.sum((2, 3), keepdim=True)
        mean = (images * ring).sum((2, 3), keepdim=True) / weight.clamp(min=1)
        return torch.where(masks, torch.where(weight > 0, mean, images.mean((2, 3), keepdim=True)), images)


@dataclass(frozen=True)
class NoiseFill:
    """Pixels of the same image, drawn at random from outside the region."""

    name = "noise"

    def apply(
        self,
        images: Float[Tensor, "n c h w"],
        masks: Bool[Tensor, "#n 1 h w"],
        others: Float[Tensor, "n c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n c h w"]:
        """Filled copies of the images."""
        count, _, height, width = images.shape
        weights = (~masks).expand(count, 1, height, width).flatten(1).float().cpu()
        drawn = torch.multinomial(weights, height * width, replacement=True, generator=generator)
        index = drawn.to(images.device)[:, None].expand(-1, images.shape[1], -1)
        return torch.where(masks, images.flatten(2).gather(2, index).view_as(images), images)


@dataclass(frozen=True)
class BlurFill:
    """A heavily blurred copy of the image itself.

    Args:
        reach: side of the (three times applied) box, as a share of the picture's shorter side.
    """

    reach: float = 0.25
    name = "blur"

    def apply(
        self,
        images: Float[Tensor, "n c h w"],
        masks: Bool[Tensor, "#n 1 h w"],
        others: Float[Tensor, "n c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n c h w"]:
        """Filled copies of the images."""
        side = 2 * max(1, round(self.reach * min(images.shape[-2:]) / 2)) + 1
        blurred = images
        for _ in range(3):
            blurred = F.avg_pool2d(blurred, side, stride=1, padding=side // 2, count_include_pad=False)
        return torch.where(masks, blurred, images)


def transplant(
    hosts: Float[Tensor, "n c h w"], donors: Float[Tensor, "n c h w"], masks: Bool[Tensor, "#n 1 h w"]
) -> Float[Tensor, "n c h w"]:
    """Copies of the hosts with the donors' content in the region, in place."""
    return torch.where(masks, donors, hosts)


FILLS: dict[str, Fill] = {
    fill.name: fill for fill in (NeighbourFill(), LocalMeanFill(), NoiseFill(), BlurFill())
}
