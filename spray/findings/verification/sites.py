"""Where interventions take place: in the pixels, or in the channels of a named layer, through a forward hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spray.blocks import channels_last
from spray.findings.regions import pixel_mask
from spray.findings.verification.fills import ChannelMeanFill, Fill, HarmonicFill, NeighbourFill
from spray.findings.verification.judge import Judge, Readings
from spray.signals import OnSignals


class SiteError(Exception):
    """Interventions cannot take place there; the message names what there is."""


class Site(Protocol):
    """Content that can be replaced: the model then answers as if the image had led to the new content."""

    judge: Judge
    fills: tuple[Fill, ...]
    """Ways of removing content here, the default."""

    def content(self, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """What is there."""
        ...

    def read(self, images: Float[Tensor, "n ..."], content: Float[Tensor, "n ..."]) -> Readings:
        """What the model says of each image when this content is there instead."""
        ...

    def masks(
        self, regions: Bool[np.ndarray, "k ..."], like: Float[Tensor, "n ..."]
    ) -> Bool[Tensor, "k ..."]:
        """Regions of the relevance as masks over the content."""
        ...


class PixelSite:
    """The input itself."""

    fills: tuple[Fill, ...] = (NeighbourFill(), HarmonicFill())

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def content(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images."""
        return images

    def read(self, images: Float[Tensor, "n c h w"], content: Float[Tensor, "n c h w"]) -> Readings:
        """What the model says of the changed images."""
        return self.judge.read(content)

    def masks(
        self, regions: Bool[np.ndarray, "k y x"], like: Float[Tensor, "n c h w"]
    ) -> Bool[Tensor, "k 1 h w"]:
        """The cells of a region, at full size, in all channels."""
        height, width = like.shape[-2:]
        fine = [pixel_mask(region, height, width) for region in regions]
        return torch.from_numpy(np.array(fine, bool).reshape(-1, 1, height, width))


class LayerSite:
    """The output of one module of the unmodified model; regions are sets of its channels.

    Args:
        layer: the module's name, as in ``named_modules()``; it runs once a pass and returns one tensor.
        channels: how many channels its stored relevance has.

    Raises:
        SiteError: the model has no such module.
    """

    fills: tuple[Fill, ...] = (NeighbourFill(), ChannelMeanFill())

    def __init__(self, judge: Judge, layer: str, channels: int) -> None:
        model = judge.model.model if isinstance(judge.model, OnSignals) else judge.model
        modules = dict(model.named_modules())
        if layer not in modules or not layer:
            near = get_close_matches(layer, modules) or [name for name in modules if name][-5:]
            raise SiteError(
                f"The model has no module '{layer}', whose channels were analysed. Near names: "
                f"{', '.join(near) or 'none'}. Give the model that the relevance was made with."
            )
        self.judge, self.layer, self.channels = judge, layer, channels
        self.module = modules[layer]

    def content(self, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The module's output for each image, on the CPU."""
        seen: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            # A copy: what follows may work in place.
            seen.append(self._one_tensor(output).detach().cpu().clone())

        def forward(part: slice) -> Tensor:
            seen.clear()
            self.judge.model(channels_last(images[part].to(self.judge.device)))
            return self._only(seen)

        with _hooked(self.module, keep):
            return torch.cat(self.judge.batched(len(images), forward))

    def read(self, images: Float[Tensor, "n ..."], content: Float[Tensor, "n ..."]) -> Readings:
        """What the model says when the module returns this content."""
        given: list[Tensor] = []

        def replace(module: nn.Module, args: Any, output: Any) -> Tensor:
            like = self._one_tensor(output)
            return given[0].to(like, copy=True)

        def forward(part: slice) -> Tensor:
            given[:] = [content[part]]
            output: Tensor = self.judge.model(channels_last(images[part].to(self.judge.device)))
            return output

        with _hooked(self.module, replace):
            return self.judge.measures(self.judge.batched(len(images), forward))

    def masks(self, regions: Bool[np.ndarray, "k c"], like: Float[Tensor, "n ..."]) -> Bool[Tensor, "k ..."]:
        """Channels as masks over the module's output, wherever they are.

        Raises:
            SiteError: the output has another number of channels than the stored relevance.
        """
        axis = self._axis(like)
        shape = [len(regions)] + [1] * (like.ndim - 1)
        shape[axis] = self.channels
        return torch.from_numpy(np.ascontiguousarray(regions)).reshape(shape)

    def _axis(self, like: Float[Tensor, "n ..."]) -> int:
        """Channels come second in maps and signals, last in tokens, as relevance is stored; a layer kept with ``@last``
        is told by its size."""
        tokens = like.ndim == 3 and not isinstance(self.judge.model, OnSignals)
        first, second = (like.ndim - 1, 1) if tokens else (1, like.ndim - 1)
        for axis in (first, second):
            if like.shape[axis] == self.channels:
                return axis
        raise SiteError(
            f"Module '{self.layer}' returns {tuple(like.shape[1:])} for an image and its stored relevance has "
            f"{self.channels} channels: there are no such channels. Give the model that the relevance was made with."
        )

    def _one_tensor(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise SiteError(
                f"Module '{self.layer}' returns {type(output).__name__}; its channels can be suppressed and injected "
                "only where it returns one tensor. Analyse a module inside it."
            )
        return output

    def _only(self, seen: list[Tensor]) -> Tensor:
        if len(seen) != 1:
            raise SiteError(
                f"Module '{self.layer}' runs {len(seen)} times a pass; interventions need a module that runs once."
            )
        return seen[0]


@contextmanager
def _hooked(module: nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
