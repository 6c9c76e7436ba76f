"""The z^B rule (Montavon et al. 2017, eq. 20): a first layer whose inputs lie in a known box l ≤ x ≤ h.

R_in = x·Wᵀr − l·W⁺ᵀr − h·W⁻ᵀr,   r = R / s(Wx − W⁺l − W⁻h).
The denominator is a sum of contributions (x − l)·w⁺ + (x − h)·w⁻, none of which is negative. Black pixels get
relevance too, so R itself is handed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.errors import BadInput
from spray.engine.layer import Layer
from spray.engine.rules.base import RelevanceRule, check_epsilon, quotient


@dataclass(frozen=True)
class Box(RelevanceRule):
    """z^B: inputs between ``low`` and ``high``, one number each or one per channel, in the layer's own units.

    The defaults hold for images normalised by the mean and standard deviation of ImageNet.
    """

    name: ClassVar[str] = "box"
    low: float | tuple[float, ...] = -3.0
    high: float | tuple[float, ...] = 3.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        for low, high in np.broadcast(self.low, self.high):
            if not low <= high:
                raise ValueError(f"the box reaches from {self.low} to {self.high}, but low ≤ high is needed.")

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], relevance: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """(x − l)·W⁺ᵀr + (x − h)·W⁻ᵀr, r = R / (W⁺(x − l) + W⁻(x − h)): the same, in sums without a negative term.

        Raises:
            BadInput: an input lies outside the box, where contributions would turn negative.
        """
        low, high = self._bound(self.low, layer, x), self._bound(self.high, layer, x)
        outside = (x < low) | (x > high)
        if outside.any():
            rows = tuple(torch.nonzero(outside.flatten(1).any(1)).flatten().tolist())
            raise BadInput(
                f"inputs of the first layer reach from {float(x.min()):.4g} to {float(x.max()):.4g}, outside the "
                f"box [{self.low}, {self.high}] of the z^B rule. Give the box the bounds of your data.",
                rows,
            )
        positive, negative = layer.positive_weight, layer.negative_weight
        above, below = x - low, x - high
        d = layer.forward(above, positive).add_(layer.forward(below, negative))
        r = d + self.epsilon
        r = torch.div(relevance, r, out=r) if self.epsilon else quotient(relevance, d)
        layer.settle_rest(layer.total(relevance), r, d)
        del d
        share = layer.adjoint(r, positive, x).mul_(above)
        return share.addcmul_(layer.adjoint(r, negative, x), below)

    def _bound(self, bound: float | tuple[float, ...], layer: Layer, x: Tensor) -> Tensor:
        """The bound as one sample of inputs."""
        if isinstance(bound, int | float):
            return torch.full_like(x[:1], bound)
        dim = layer.geometry.input_dim
        if dim is None or len(bound) != x.shape[dim]:
            has = "no dimension of channels" if dim is None else f"{x.shape[dim]} channels"
            raise BadInput(f"the box has {len(bound)} bounds, but the first layer's input has {has}.")
        shape = [1] * x.ndim
        shape[dim] = -1
        return x.new_tensor(bound).view(shape).expand_as(x[:1]).contiguous()
