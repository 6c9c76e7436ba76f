"""Rules for the first layer that do not look at the input's values: flat (Lapuschkin et al. 2019) and w².

flat:  R shared evenly over the receptive field, as if every weight and every input were 1.
w²:    R_in = W²ᵀ(R / ΣW²) (Montavon et al. 2017), for inputs without bounds.
Both give relevance to inputs that are zero, so they hand on R itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.rules.base import RelevanceRule, quotient


@dataclass(frozen=True)
class Flat(RelevanceRule):
    """Flat: relevance shared evenly over the receptive field; how fine the map can be, not what it looks at."""

    name: ClassVar[str] = "flat"

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], relevance: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """1ᵀ(R / number of inputs in reach), summed over output channels first: one box filter per group."""
        flat, ones = layer.geometry.single_channel(layer.weight)
        pooled = layer.geometry.sum_channels(relevance)
        probe = layer.geometry.one_per_group(x)
        reach = flat.forward(torch.ones_like(probe[:1]), ones, None)
        per_group = x[:1].numel() // probe[:1].numel()
        r = quotient(pooled, reach.mul_(per_group))
        layer.settle_rest(layer.total(relevance), r, reach)
        return layer.geometry.spread(flat.adjoint(r, ones, probe), x)


@dataclass(frozen=True)
class WSquare(RelevanceRule):
    """w²: relevance in proportion to the squared weight.

    ``bias`` adds b² to the denominator, as some implementations do; it then absorbs relevance.
    """

    name: ClassVar[str] = "w_square"
    bias: bool = False

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], relevance: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """W²ᵀ(R / ΣW²)."""
        squared = layer.squared_weight
        bias = layer.bias.square() if self.bias and layer.bias is not None else None
        total = layer.forward(torch.ones_like(x[:1]), squared, bias)
        r = quotient(relevance, total)
        layer.settle_rest(layer.total(relevance), r, total, bias)
        return layer.adjoint(r, squared, x)
