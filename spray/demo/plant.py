"""Planting a shortcut: a small checker tag in one corner of a share of one class's images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CORNERS = ("top left", "top right", "bottom left", "bottom right")
SIDE = 3
MARGIN = 1


@dataclass(frozen=True)
class CornerTag:
    """A 3×3 checker, one pixel off the border, in ``share`` of the images of class ``label``."""

    label: int
    corner: str = "top left"
    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.corner not in CORNERS:
            raise ValueError(f"there is no corner '{self.corner}': choose one of {', '.join(CORNERS)}.")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; expected a number above 0 and up to 1.")

    def chosen(self, labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which images carry the tag: a seeded draw from the class."""
        members = torch.nonzero(labels == self.label)[:, 0]
        order = torch.randperm(len(members), generator=torch.Generator().manual_seed(self.seed))
        mask = torch.zeros(len(labels), dtype=torch.bool)
        mask[members[order[: round(self.share * len(members))]]] = True
        return mask

    def paste(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Copies of the images with the tag on all of them."""
        tagged = images.clone()
        height, width = images.shape[-2:]
        y = MARGIN if "top" in self.corner else height - MARGIN - SIDE
        x = MARGIN if "left" in self.corner else width - MARGIN - SIDE
        checker = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)[None]) % 2 == 0
        tagged[..., y : y + SIDE, x : x + SIDE] = checker.to(images)
        return tagged
