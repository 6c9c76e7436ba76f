"""The z⁺ rule (Montavon et al. 2017) and LRP-αβ (Bach et al. 2015, eq. 60): contributions parted by sign.

With x⁺ = max(x, 0), x⁻ = min(x, 0), the positive and negative parts of the output are
    p = W⁺x⁺ + W⁻x⁻ + b⁺,      q = W⁻x⁺ + W⁺x⁻ + b⁻,      p + q = z.
z⁺:   R_in = x⁺·W⁺ᵀr + x⁻·W⁻ᵀr,  r = R / s(p).
αβ:   R_in = α·(positive contributions / p)·R − β·(negative contributions / q)·R,  α − β = 1.

One pass for inputs of any sign: with m = |W||x| + |b|, p = ½(z + m) and q = ½(z − m), and the backward passes of
W and |W| give both parts at once. Where x ≥ 0, p = W⁺x + b⁺ and q = z − p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.rules.base import QuotientRule

ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}
"""Parts below this share of Σ|contributions| are rounding of ½(z ± m), not contributions."""


def signed_parts(
    layer: Layer, x: Float[Tensor, "n ..."], z: Float[Tensor, "n ..."], *, bias: bool = True
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "n ..."]]:
    """p and q of the layer's output, for inputs of any sign; parts that are only rounding are exactly 0."""
    m = layer.forward(x.abs(), layer.absolute_weight, layer.absolute_bias if bias else None)
    if not bias and layer.bias is not None:
        z = z - layer.broadcast(layer.bias)
    p, q = (z + m).mul_(0.5), (z - m).mul_(0.5)
    floor = m.mul_(ROUNDING[z.dtype])
    return p.masked_fill_(p <= floor, 0), q.masked_fill_(q >= -floor, 0)


@dataclass(frozen=True)
class ZPlus(QuotientRule):
    """z⁺ (α1β0): relevance in proportion to the positive contributions only.

    ``bias=False`` leaves b⁺ out of the denominator, so that inputs take all, as in deep Taylor decomposition.
    Where an output has no positive contribution at all, its negative ones take R (``one_sided``): else R would be
    lost there, most of it in networks with depthwise convolutions. ``one_sided=False`` is the rule as published.
    """

    name: ClassVar[str] = "z_plus"
    epsilon: float = 1e-6
    bias: bool = True
    one_sided: bool = True

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], z: Float[Tensor, "n ..."], c: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """W⁺ᵀr where x ≥ 0, else ½(Wᵀr + sign(x)·|W|ᵀr); with the negative parts where only these are there."""
        if not layer.nonnegative(x):
            p, q = signed_parts(layer, x, z, bias=self.bias)
            r, v = self._share(layer, z, c, p), self._alone(layer, z, c, p, q)
            plain = layer.adjoint(r if v is None else r + v, layer.weight, x)
            signed = layer.adjoint(r if v is None else r - v, layer.absolute_weight, x)
            return plain.add_(signed.mul_(torch.sign(x))).mul_(0.5)
        bias = layer.positive_bias if self.bias else None
        p = layer.forward(x, layer.positive_weight, bias)
        # Ahead of a ReLU p ≥ z > 0 wherever there is relevance; elsewhere p is 0 at few outputs, if at all.
        if self.epsilon > 0 and ((layer.rectified and self.bias) or bool(p.min() > 0)):
            r = (c * z).div_(p.add_(self.epsilon))
            layer.settle_stabilised(r, self.epsilon, bias)
            return layer.adjoint(r, layer.positive_weight, x)
        out = layer.adjoint(self._share(layer, z, c, p), layer.positive_weight, x)
        v = self._alone(
            layer, z, c, p, z if self.bias or layer.bias is None else z - layer.broadcast(layer.bias)
        )
        return out if v is None else out.add_(layer.adjoint(v, layer.negative_weight, x))

    def _share(self, layer: Layer, z: Tensor, c: Tensor, p: Tensor) -> Tensor:
        """Relevance per unit of positive contribution."""
        r = (c * z).div_(p + self.epsilon).masked_fill_(p == 0, 0)
        layer.settle(c, z, r, p)
        layer.settle_bias(r, layer.positive_bias if self.bias else None)
        return r

    def _alone(self, layer: Layer, z: Tensor, c: Tensor, p: Tensor, q: Tensor) -> Tensor | None:
        """Relevance per unit of negative contribution where there is no positive one; None if nowhere."""
        alone = (p == 0) & (q < 0) & (c != 0)
        if not self.one_sided or not alone.any():
            return None
        v = torch.where(alone, c * z / (q - self.epsilon), 0)
        layer.settle_further(v, q)
        layer.settle_bias(v, layer.negative_bias if self.bias else None)
        return v


@dataclass(frozen=True)
class AlphaBeta(QuotientRule):
    """LRP-αβ: positive contributions weighted by α, negative ones by β = α − 1.

    Where an output has only one of the two parts, that part takes all of R (``one_sided``): else R would be
    multiplied by α or −β there. ``one_sided=False`` keeps the formula as published, without conservation.
    """

    name: ClassVar[str] = "alpha_beta"
    alpha: float = 2.0
    epsilon: float = 1e-6
    one_sided: bool = True

    def __post_init__(self) -> None:
        if self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}, but α − β = 1 with β ≥ 0 needs alpha ≥ 1 (1, 2, …).")

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], z: Float[Tensor, "n ..."], c: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """α·W⁺ᵀr⁺ − β·W⁻ᵀr⁻ where x ≥ 0, else ½(Wᵀ(u + v) + sign(x)·|W|ᵀ(u − v)), u = α·r⁺, v = −β·r⁻."""
        simple = layer.nonnegative(x)
        if simple:
            p = layer.forward(x, layer.positive_weight, layer.positive_bias)
            q = (z - p).clamp_(max=0)
            q.masked_fill_(q >= -ROUNDING[z.dtype] * p, 0)
        else:
            p, q = signed_parts(layer, x, z)
        u, v = self._share(c * z, p, q)
        layer.settle(c, z, u, p, v, q)
        layer.settle_bias(u, layer.positive_bias)
        layer.settle_bias(v, layer.negative_bias)
        if simple:
            return layer.adjoint(u, layer.positive_weight, x).add_(layer.adjoint(v, layer.negative_weight, x))
        plain = layer.adjoint(u + v, layer.weight, x)
        return plain.add_(layer.adjoint(u - v, layer.absolute_weight, x).mul_(torch.sign(x))).mul_(0.5)

    def _share(self, relevance: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance per unit of positive and of negative contribution."""
        u, v = self.alpha * relevance / (p + self.epsilon), (1 - self.alpha) * relevance / (q - self.epsilon)
        if self.one_sided:
            u = torch.where(q == 0, relevance / (p + self.epsilon), u)
            v = torch.where(p == 0, relevance / (q - self.epsilon), v)
        return u.masked_fill_(p == 0, 0), v.masked_fill_(q == 0, 0)
