"""LRP-γ (Montavon et al. 2019), generalised to inputs and outputs of any sign (Andéol et al. 2021).

Contributions that agree with the output's sign count 1 + γ times. With p and q the positive and negative parts of
z as in ``alphabeta``, the denominator is d = z + γ·p where z > 0 and d = z + γ·q where z < 0, r = R / s(d), and
    x ≥ 0:   c = (W + γW⁺)ᵀ r[z > 0] + (W + γW⁻)ᵀ r[z < 0]
    any x:   c = (1 + γ/2)·Wᵀr + (γ/2)·sign(x)·|W|ᵀ(sign(z)·r).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.rules.base import QuotientRule, quotient


@dataclass(frozen=True)
class Gamma(QuotientRule):
    """LRP-γ: between LRP-ε (γ = 0) and z⁺ (γ → ∞)."""

    name: ClassVar[str] = "gamma"
    gamma: float = 0.25
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(
                f"gamma is {self.gamma}, but a favour for agreeing contributions needs gamma ≥ 0."
            )

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], z: Float[Tensor, "n ..."], c: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """One backward pass where all inputs and all outputs in question are positive, else two."""
        if layer.nonnegative(x):
            return self._nonnegative(layer, x, z, c)
        half = self.gamma / 2
        m = layer.forward(x.abs(), layer.absolute_weight, layer.absolute_bias)
        d = (1 + half) * z + half * torch.sign(z) * m
        r = self._share(layer, z, c, d)
        agreeing = layer.adjoint(r * torch.sign(z), layer.absolute_weight, x).mul_(torch.sign(x))
        return layer.adjoint(r, layer.weight, x).mul_(1 + half).add_(agreeing, alpha=half)

    def _nonnegative(self, layer: Layer, x: Tensor, z: Tensor, c: Tensor) -> Tensor:
        p = layer.forward(x, layer.positive_weight, layer.positive_bias)
        if layer.rectified and self.epsilon > 0:
            r = (c * z).div_(p.mul_(self.gamma).add_(z).add_(self.epsilon))
            bias = None if layer.bias is None else layer.bias + self.gamma * layer.bias.clamp(min=0)
            layer.settle_stabilised(r, self.epsilon, bias)
            return layer.adjoint(r, self._up(layer), x)
        d = torch.where(z > 0, z + self.gamma * p, (1 + self.gamma) * z - self.gamma * p)
        r = self._share(layer, z, c, d)
        up = self._up(layer)
        if not ((z < 0) & (r != 0)).any():  # as ahead of a ReLU, which gives no relevance to negative outputs
            return layer.adjoint(r, up, x)
        down = layer.derive(f"gamma {self.gamma} down", lambda W: W + self.gamma * W.clamp(max=0))
        return layer.adjoint(r * (z > 0), up, x).add_(layer.adjoint(r * (z < 0), down, x))

    def _up(self, layer: Layer) -> Tensor:
        return layer.derive(f"gamma {self.gamma} up", lambda W: W + self.gamma * W.clamp(min=0))

    def _share(self, layer: Layer, z: Tensor, c: Tensor, d: Tensor) -> Tensor:
        """r = R / s(d), booked; d has the sign of z."""
        magnitude = d.abs()
        r = quotient(c * z.abs(), magnitude.add_(self.epsilon))
        layer.settle(c, z, r, d)
        if layer.bias is not None:
            layer.settle_bias(r, layer.bias)
            layer.settle_bias(r * (self.gamma * (z > 0)), layer.positive_bias)
            layer.settle_bias(r * (self.gamma * (z < 0)), layer.negative_bias)
        return r
