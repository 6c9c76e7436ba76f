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
from spray.engine.rules.base import QuotientRule, check_epsilon, divided, is_zero, where_positive


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
        check_epsilon(self.epsilon)

    def backward(
        self,
        layer: Layer,
        x: Float[Tensor, "n ..."],
        z: Float[Tensor, "n ..."],
        relevance: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """One backward pass where all inputs and all outputs in question are positive, else two."""
        if layer.nonnegative(x):
            return self._nonnegative(layer, x, z, relevance)
        half = self.gamma / 2
        agreeing = layer.derive(f"gamma {self.gamma} agreeing", lambda W: half * W.abs())
        plain = layer.derive(f"gamma {self.gamma} plain", lambda W: (1 + half) * W)
        d = layer.forward(x.abs(), agreeing, layer.raised(layer.absolute_bias, self.epsilon, half))
        d.add_(z.abs(), alpha=1 + half)
        k = divided(relevance, d, stabilised=self.epsilon > 0)  # R/|d|, r = sign(z)·k
        r = k * torch.sign(z)
        bias, absolute = layer.bias, layer.absolute_bias
        if bias is not None and absolute is not None:
            bias, absolute = (1 + half) * bias, half * absolute
        layer.settle((k, absolute, self.epsilon), (r, bias, 0.0))
        return layer.adjoint(r, plain, x).addcmul_(layer.adjoint(k, agreeing, x), torch.sign(x))

    def _nonnegative(self, layer: Layer, x: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
        """With d = z + γp by one forward pass of W + γW⁺; where z < 0, |d| = z + γp − (2 + γ)·z."""
        bias, gamma = layer.bias, self.gamma
        up = layer.derive(f"gamma {gamma} up", lambda W: W + gamma * W.clamp(min=0))
        up_bias = None if bias is None else bias + gamma * bias.clamp(min=0)
        d = layer.forward(x, up, layer.raised(up_bias, self.epsilon))
        if layer.rectified and self.epsilon > 0:
            r = relevance.div_(d.clamp_(min=self.epsilon))  # below ε, even 0, only where the ReLU cuts z off
            del d
            layer.settle((r, up_bias, self.epsilon))
            return layer.adjoint(r, up, x)
        d.add_(z.clamp(max=0), alpha=-2 - gamma)
        k = divided(relevance, d, stabilised=self.epsilon > 0)
        del d
        r = where_positive(k, z)
        v = k.sub_(r)  # −R/s(d) where z < 0
        down_bias = None if bias is None else -bias - gamma * bias.clamp(max=0)
        layer.settle((r, up_bias, self.epsilon), (v, down_bias, self.epsilon))
        out = layer.adjoint(r, up, x)
        del r
        if is_zero(v):
            return out
        down = layer.derive(f"gamma {gamma} down", lambda W: -W - gamma * W.clamp(max=0))
        return out.add_(layer.adjoint(v, down, x))
