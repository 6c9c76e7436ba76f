"""Along which axis of a layer's output its channels are: told by what the modules are, not by how many axes there are.

(n, 64, 24) is 64 channels at 24 times behind a convolution, and 24 channels at 64 tokens behind a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ref

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules import activation, batchnorm, conv, dropout, pooling

from spray.correction.errors import CorrectionError
from spray.correction.sites import Site

_FIRST = (
    conv._ConvNd,
    batchnorm._NormBase,  # instance normalisations, too
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Upsample,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._LPPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
)
"""Their outputs are (n, c, places …)."""
_LAST = (nn.Linear, nn.Bilinear, nn.Embedding, nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Their outputs are (n, places …, c)."""
_NORMS = (nn.LayerNorm, nn.RMSNorm)
"""The same, where they work on one axis."""
_KEEPING = (
    *_NORMS,
    *(getattr(activation, name) for name in activation.__all__ if name not in ("MultiheadAttention", "GLU")),
    dropout._DropoutNd,
    nn.Identity,
)
"""Their outputs have the axes of their input."""


def located(model: nn.Module, sites: Sequence[Site], example: Float[Tensor, "1 ..."]) -> list[Site]:
    """The sites with where their channels are; those where it cannot be known say why not (``Site.unclear``).

    Told by the module itself (a convolution, a linear layer); by the module whose output it works on value by value;
    else by the size that the channels of the module before it, or the last one within it, have. Where that does not
    tell, outputs of four axes are told by their shape, and three axes are (n, token, c), but in a model of signals,
    where time may be either.

    Raises:
        CorrectionError: a site says other than its module does.
    """
    watch = _Watch()
    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(partial(watch.keep, name)).remove)
        model(example)
    return [_located(site, model.get_submodule(site.name), watch, example) for site in sites]


def _located(site: Site, module: nn.Module, watch: _Watch, example: Float[Tensor, "1 ..."]) -> Site:
    own = _by_kind(module)
    if site.channels:
        if own and own != site.channels:
            raise CorrectionError(
                f"layer '{site.name}@{site.channels}': it is a {type(module).__name__}, whose channels come {own}. "
                f"Name it without '@{site.channels}'."
            )
        return site
    shape = watch.shapes.get(site.name, ())
    if len(shape) not in (3, 4):
        return site  # has no places, or is refused when it is looked at
    if shape[0] != len(example):
        return replace(
            site,
            unclear=f"it returns {tuple(shape)} for one sample, so samples are not its first axis: name a neighbour",
        )
    channels = watch.told[site.name] or ("" if len(shape) == 4 else watch.by_size[site.name])
    if channels or len(shape) == 4 or example.ndim != 3:
        return replace(site, channels=channels)
    return replace(
        site,
        unclear=f"whether channels or times come first in its output (n, {shape[1]}, {shape[2]}) cannot be told by its "
        f"module, a {type(module).__name__}: name it as {site.name}@first or {site.name}@last",
    )


class _Watch:
    """What every module returned in one pass, and where its channels are: "first", "last", or "" where unknown."""

    def __init__(self) -> None:
        self.shapes: dict[str, Sequence[int]] = {}
        self.told: dict[str, str] = {}
        """By the module itself, or by the one whose output it works on value by value."""
        self.by_size: dict[str, str] = {}
        self._known: dict[int, tuple[ref[Tensor], str]] = {}
        """Outputs by their identity, while they live."""
        self._size = 0
        """Of the channels of the last output of which it is known."""

    def keep(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """As a forward hook."""
        out = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(out, Tensor) or out.ndim < 2:
            return
        told = self._told(module, inputs, out)
        sized = self._sized(out)
        self.shapes[name], self.told[name], self.by_size[name] = out.shape, told, sized
        if channels := told or sized:
            self._known[id(out)] = ref(out), channels
            self._size = out.shape[1 if channels == "first" else -1]

    def _told(self, module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> str:
        if own := _by_kind(module):
            return own
        same = [out, *inputs[:1]] if isinstance(module, _KEEPING) else [out]
        for one in same:
            known, channels = self._known.get(id(one), (None, ""))
            if known is not None and known() is one:
                return channels
        return ""

    def _sized(self, out: Tensor) -> str:
        """Where the output has as many channels as the last one known, if that is at one end only."""
        first, last = out.shape[1] == self._size, out.shape[-1] == self._size
        if out.ndim == 2:
            return "last"
        return "" if first == last else "first" if first else "last"


def _by_kind(module: nn.Module) -> str:
    """What the kind of a module says; "" where that says nothing."""
    if isinstance(module, _FIRST):
        return "first"
    alone = isinstance(module, _NORMS) and len(module.normalized_shape) == 1
    return "last" if alone or isinstance(module, _LAST) else ""
