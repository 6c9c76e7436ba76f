"""Interventions on content, pixels or activations: fill a region (removal), or paste it elsewhere (transplant)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import splu
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """Images with the regions to be filled, and what a fill may draw from."""

    images: Float[Tensor, "n c h w"]
    masks: Bool[Tensor, "#n 1 h w"]
    others: Float[Tensor, "n c h w"]
    """Images of the same class without the finding, one for each image."""
    generator: torch.Generator


@dataclass(frozen=True)
class Fill(ABC):
    """Replaces the content of a region by something that carries no information about it."""

    name: ClassVar[str]

    def apply(
        self,
        images: Float[Tensor, "n c h w"],
        masks: Bool[Tensor, "#n 1 h w"],
        others: Float[Tensor, "n c h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n c h w"]:
        """Filled copies: new content inside the masks, the images themselves outside. Arguments as of ``Scene``."""
        return torch.where(masks, self.content(Scene(images, masks, others, generator)), images)

    @abstractmethod
    def content(self, scene: Scene) -> Float[Tensor, "#n c #h #w"]:
        """What takes the place of the regions; only the part inside the masks is used."""


@dataclass(frozen=True)
class NeighbourFill(Fill):
    """The same place of another image of the class: content that is natural there (stays on the data)."""

    name: ClassVar[str] = "neighbour"

    def content(self, scene: Scene) -> Float[Tensor, "n c h w"]:
        """The other images."""
        return scene.others


@dataclass(frozen=True)
class LocalMeanFill(Fill):
    """The mean of the pixels just outside the region, per channel.

    Args:
        reach: width of the ring outside the region, as a share of the picture's shorter side.
    """

    reach: float = 0.1
    name: ClassVar[str] = "local mean"

    def content(self, scene: Scene) -> Float[Tensor, "n c 1 1"]:
        """The mean over the ring; over the whole image where nothing lies outside the region."""
        images, masks = scene.images, scene.masks.to(scene.images)
        side = 2 * max(1, round(self.reach * shorter_side(images))) + 1
        grown = F.max_pool2d(masks, side, stride=1, padding=side // 2)
        ring = (grown - masks).expand(len(images), 1, -1, -1)
        weight = ring.sum((2, 3), keepdim=True)
        mean = (images * ring).sum((2, 3), keepdim=True) / weight.clamp(min=1)
        return torch.where(weight > 0, mean, images.mean((2, 3), keepdim=True))


@dataclass(frozen=True)
class HarmonicFill(Fill):
    """The smoothest continuation of what surrounds the region: Laplace's equation with the pixels outside as boundary.

    It draws no edge, so that a model cannot take it for a mark of its own: a patch of the local mean, which has edges,
    raised the class in images that never had the mark. At the picture's border nothing flows out (Neumann).

    Source: Pérez, Gangnet and Blake 2003, eq. 2 with no guidance field.
    """

    name: ClassVar[str] = "harmonic"

    def content(self, scene: Scene) -> Float[Tensor, "n c h w"]:
        """Copies with the solution inside the regions; the mean of the image where the region is all of it."""
        images, masks = scene.images, scene.masks[:, 0].cpu().numpy()
        start = torch.where(scene.masks.all((2, 3), keepdim=True), images.mean((2, 3), keepdim=True), images)
        # One picture for each mask, with all that shares it in its channels.
        pictures = start.flatten(0, 1)[None] if len(masks) == 1 else start
        values = pictures.double().cpu().permute(0, 2, 3, 1).numpy().copy()
        _continue_into(masks & ~masks.all((1, 2), keepdims=True), values)
        return torch.from_numpy(values).permute(0, 3, 1, 2).reshape(images.shape).to(images)


@dataclass(frozen=True)
class NoiseFill(Fill):
    """Pixels of the same image, drawn at random from outside the region."""

    name: ClassVar[str] = "noise"

    def content(self, scene: Scene) -> Float[Tensor, "n c h w"]:
        """A drawn pixel for every place."""
        images = scene.images
        count, _, height, width = images.shape
        weights = (~scene.masks).expand(count, 1, height, width).flatten(1).float().cpu()
        drawn = torch.multinomial(weights, height * width, replacement=True, generator=scene.generator)
        index = drawn.to(images.device)[:, None].expand(-1, images.shape[1], -1)
        return images.flatten(2).gather(2, index).view_as(images)


@dataclass(frozen=True)
class BlurFill(Fill):
    """A heavily blurred copy of the image itself.

    Args:
        reach: side of the (three times applied) box, as a share of the picture's shorter side.
    """

    reach: float = 0.25
    name: ClassVar[str] = "blur"

    def content(self, scene: Scene) -> Float[Tensor, "n c h w"]:
        """The blurred images."""
        blurred = scene.images
        side = 2 * max(1, round(self.reach * shorter_side(blurred) / 2)) + 1
        for _ in range(3):
            blurred = F.avg_pool2d(blurred, side, stride=1, padding=side // 2, count_include_pad=False)
        return blurred


@dataclass(frozen=True)
class ChannelMeanFill(Fill):
    """The mean over other images, at each place: for activations, where a place has no ring around it."""

    name: ClassVar[str] = "mean of others"

    def content(self, scene: Scene) -> Float[Tensor, "1 c ..."]:
        """The mean of the other images."""
        return scene.others.mean(0, keepdim=True)


def shorter_side(images: Float[Tensor, "... h w"]) -> int:
    """In pixels; of signals, which are pictures one pixel high, the length."""
    return min((side for side in images.shape[-2:] if side > 1), default=1)


def _continue_into(masks: Bool[np.ndarray, "k h w"], pictures: Float[np.ndarray, "k h w c"]) -> None:
    """Solve Laplace's equation inside all masks at once, one sparse system of a block for each, in place."""
    picture, y, x = np.nonzero(masks)
    if not len(y) or not pictures.size:
        return
    number = np.full(masks.shape, -1)
    number[picture, y, x] = np.arange(len(y))
    degree, boundary = np.zeros(len(y)), np.zeros((len(y), pictures.shape[3]))
    coupled: list[Int[np.ndarray, "2 e"]] = []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside = (
            (y + down >= 0) & (y + down < masks.shape[1]) & (x + right >= 0) & (x + right < masks.shape[2])
        )
        cells = np.flatnonzero(inside)
        beside = picture[cells], y[cells] + down, x[cells] + right
        degree[cells] += 1
        unknown = number[beside] >= 0
        coupled.append(np.stack([cells, number[beside]])[:, unknown])
        boundary[cells[~unknown]] += pictures[beside][~unknown]
    pairs = np.concatenate(coupled, axis=1)
    laplacian = diags_array(degree) - coo_array((np.ones(pairs.shape[1]), pairs), (len(y), len(y)))
    solver = splu(laplacian.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    pictures[picture, y, x] = solver.solve(boundary)


def transplant(
    hosts: Float[Tensor, "n c h w"], donors: Float[Tensor, "n c h w"], masks: Bool[Tensor, "#n 1 h w"]
) -> Float[Tensor, "n c h w"]:
    """Copies of the hosts with the donors' content in the region, in place."""
    return torch.where(masks, donors, hosts)


def jittered(
    hosts: Float[Tensor, "n c h w"],
    donors: Float[Tensor, "n c h w"],
    masks: Bool[Tensor, "#n 1 h w"],
    reach: int,
    rng: np.random.Generator,
) -> Float[Tensor, "n c h w"]:
    """As ``transplant``, each content moved by up to ``reach`` pixels a side, never back to its place if it can move.

    A region stays whole: one at the border moves along or away from it.
    """
    pasted = []
    for host, donor, mask in zip(hosts, donors, masks.expand(len(hosts), -1, -1, -1), strict=True):
        move = (_move(mask.any(2)[0], reach, rng), _move(mask.any(1)[0], reach, rng))
        pasted.append(torch.where(mask.roll(move, (-2, -1)), donor.roll(move, (-2, -1)), host))
    return torch.stack(pasted) if pasted else hosts


def _move(occupied: Bool[Tensor, " side"], reach: int, rng: np.random.Generator) -> int:
    """A step along one axis that keeps what is occupied inside; 0 only where nothing else does."""
    places = torch.nonzero(occupied)[:, 0]
    if not len(places):
        return 0
    low, high = -min(reach, int(places[0])), min(reach, len(occupied) - 1 - int(places[-1]))
    steps = [step for step in range(low, high + 1) if step] or [0]
    return int(rng.choice(steps))


FILLS: dict[str, Fill] = {
    fill.name: fill for fill in (NeighbourFill(), HarmonicFill(), LocalMeanFill(), NoiseFill(), BlurFill())
}
"""Ways of removing a region of pixels, by name."""
