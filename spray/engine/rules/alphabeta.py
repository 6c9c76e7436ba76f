"""The z⁺ rule (Montavon et al. 2017) and LRP-αβ (Bach et al. 2015, eq. 60): contributions parted by sign.

With x⁺ = max(x, 0), x⁻ = min(x, 0), the positive and negative parts of the output are
    p = W⁺x⁺ + W⁻x⁻ + b⁺,      q = W⁻x⁺ + W⁺x⁻ + b⁻,      p + q = z.
z⁺:   R_in = x⁺·W⁺ᵀr + x⁻·W⁻ᵀr,  r = R / s(p).
αβ:   R_in = α·(positive contributions / p)·R − β·(negative contributions / q)·R,  α − β = 1.

One pass for inputs of any sign: with m = |W||x| + |b|, p = ½(z + m) and q = ½(z − m), and the backward passes of
W and |W| give both parts at once. Where x ≥ 0, p = W⁺x + b⁺ and q = z − p. Below n = −q ≥ 0 stands for q.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.rules.base import QuotientRule, all_above, check_epsilon, divided, is_zero, where_positive

ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}
"""Parts below this share of Σ|contributions| are rounding of ½(z ± m), not contributions."""


def parts_apart(layer: Layer, x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """c of the input for inputs of any sign, from half the quotients of the positive and the negative part.

    Wᵀ(r + v) + sign(x)·|W|ᵀ(r − v), in which the weights of each part cancel out of the other's. ``positive`` is
    overwritten.
    """
    plain = layer.adjoint(positive + negative, layer.weight, x)
    signed = layer.adjoint(positive.sub_(negative), layer.absolute_weight, x)
    return plain.addcmul_(signed, torch.sign(x))


def quotients(numerator: Tensor, denominator: Tensor, epsilon: float) -> Tensor:
    """numerator / (denominator + ε), in place; 0/0 = 0 where there is no ε. Both are overwritten.

    Denominators are ≥ 0 but for rounding, which is taken off, so that none can be −ε.
    """
    return divided(numerator, denominator.clamp_(min=0).add_(epsilon), stabilised=epsilon > 0)


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

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def backward(
        self,
        layer: Layer,
        x: Float[Tensor, "n ..."],
        z: Float[Tensor, "n ..."],
        relevance: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """W⁺ᵀr where x ≥ 0, else ½(Wᵀr + sign(x)·|W|ᵀr); with the negative parts where only these are there."""
        if layer.nonnegative(x):
            return self._nonnegative(layer, x, z, relevance)
        m = layer.forward(x.abs(), layer.absolute_weight, layer.absolute_bias if self.bias else None)
        double = self._contributions(layer, x, z) + m  # 2p
        there = torch.add(double, m, alpha=-2 * ROUNDING[z.dtype])
        real = where_positive(relevance, there, into=there)
        alone = relevance.sub_(real)
        half = quotients(real, double, 2 * self.epsilon)
        bias = layer.positive_bias if self.bias else None
        part = (half, None if bias is None else 2 * bias, 2 * self.epsilon)
        v = self._alone(layer, alone, lambda: m, part)
        if v is not None:
            return parts_apart(layer, x, half, v.mul_(0.5))
        plain = layer.adjoint(half, layer.weight, x)
        return plain.addcmul_(layer.adjoint(half, layer.absolute_weight, x), torch.sign(x))

    def _nonnegative(self, layer: Layer, x: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
        bias, W, epsilon = layer.positive_bias if self.bias else None, layer.positive_weight, self.epsilon
        p = layer.forward(x, W, layer.raised(bias, epsilon))  # p + ε
        # Ahead of a ReLU p ≥ z > 0 wherever there is relevance; elsewhere p is 0 at few outputs, if at all.
        if epsilon > 0 and ((layer.rectified and self.bias) or all_above(p, epsilon)):
            r = relevance.div_(p)
            del p
            layer.settle((r, bias, epsilon))
            return layer.adjoint(r, W, x)
        real = where_positive(relevance, p, above=epsilon)
        alone = relevance.sub_(real)
        r = divided(real, p, stabilised=epsilon > 0)
        v = self._alone(
            layer, alone, lambda: self._contributions(layer, x, z).clamp(max=0).neg_(), (r, bias, epsilon)
        )
        out = layer.adjoint(r, W, x)
        return out if v is None else out.add_(layer.adjoint(v, layer.negative_weight, x))

    def _contributions(self, layer: Layer, x: Tensor, z: Tensor) -> Tensor:
        """Wx with or without b; computed anew, since z − b has no digits left where the bias is nearly all of z."""
        return z if self.bias or layer.bias is None else layer.forward(x, layer.weight)

    def _alone(
        self,
        layer: Layer,
        alone: Tensor,
        negative: Callable[[], Tensor],
        positive: tuple[Tensor, Tensor | None, float],
    ) -> Tensor | None:
        """R/q where there is relevance but no positive contribution, None if nowhere; and the books of both parts.

        ``negative`` gives −q where p is 0.
        """
        if is_zero(alone):
            layer.settle(positive)
            return None
        if not self.one_sided:
            layer.settle(positive, lost=alone)
            return None
        n = negative()
        shared = alone if self.bias else where_positive(alone, n)
        lost = None if self.bias else alone - shared
        v = quotients(shared.neg(), n, self.epsilon)
        layer.settle(positive, (v, layer.negative_bias if self.bias else None, -self.epsilon), lost=lost)
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
        check_epsilon(self.epsilon)

    def backward(
        self,
        layer: Layer,
        x: Float[Tensor, "n ..."],
        z: Float[Tensor, "n ..."],
        relevance: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """α·W⁺ᵀr⁺ − β·W⁻ᵀr⁻ where x ≥ 0, else ½(Wᵀ(u + v) + sign(x)·|W|ᵀ(u − v)), u = α·r⁺, v = −β·r⁻."""
        if layer.nonnegative(x):
            return self._nonnegative(layer, x, z, relevance)
        m = layer.forward(x.abs(), layer.absolute_weight, layer.absolute_bias)
        n, p = m - z, m.add_(z)  # twice each part
        del m
        lost = None
        if self.one_sided and layer.rectified:  # p ≥ z > 0 wherever there is relevance
            there = torch.add(n, p, alpha=-ROUNDING[z.dtype])
            v = where_positive(relevance, there, into=there)
            u = relevance.add_(v, alpha=self.alpha - 1)
            v.mul_(self.alpha - 1)
        else:
            there = torch.add(p, n, alpha=-ROUNDING[z.dtype])
            u, v, lost = self._shares(relevance, n, p, there, into=there)
        del there
        u = quotients(u, p, 2 * self.epsilon)
        del p
        v = quotients(v, n, 2 * self.epsilon)
        del n
        self._settle(layer, u, v, 2.0, lost)
        return parts_apart(layer, x, u, v)

    def _nonnegative(self, layer: Layer, x: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
        positive, rounding, epsilon = layer.positive_weight, ROUNDING[z.dtype], self.epsilon
        p = layer.forward(x, positive, layer.raised(layer.positive_bias, epsilon))  # p + ε
        lost = None
        if self.one_sided and epsilon > 0 and (layer.rectified or all_above(p, epsilon)):
            # Only negative contributions can be missing: shares α and β where they are there, else 1 and 0.
            n = p - z
            there = torch.add(n, p, alpha=-rounding)
            v = where_positive(relevance, there, above=epsilon, into=there)
            u = relevance.add_(v, alpha=self.alpha - 1).div_(p)
            del p
            v = (v if self.alpha == 2 else v.mul_(self.alpha - 1)).div_(n.clamp_(min=epsilon))
        else:
            p = layer.forward(x, positive, layer.positive_bias) if epsilon else p
            n = p - z
            to_p, to_n, lost = self._shares(relevance, n, p, p)
            u, v = quotients(to_p, p, epsilon), quotients(to_n, n, epsilon)
        del n
        self._settle(layer, u, v, 1.0, lost)
        out = layer.adjoint(u, positive, x)
        del u
        return out.add_(layer.adjoint(v, layer.negative_weight, x))

    def _shares(
        self, relevance: Tensor, n: Tensor, p: Tensor, has_p: Tensor, into: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """α·R for the positive and β·R for the negative part, each where it is there; and what went to neither.

        All of R goes to one part alone. ``has_p`` is > 0 where there is a positive part. R is overwritten, and
        ``into``, which may be ``has_p``, is for one of the results.
        """
        beta = self.alpha - 1
        has_n = torch.add(n, p, alpha=-ROUNDING[n.dtype])
        if all_above(has_n, 0.0) and all_above(has_p, 0.0):
            return self.alpha * relevance, relevance.mul_(beta), None
        negative = where_positive(relevance, has_n, into=has_n)
        if not self.one_sided:
            positive = where_positive(relevance, has_p, into=into).mul_(self.alpha)
            negative.mul_(beta)
            return positive, negative, relevance.sub_(positive).add_(negative)
        positive = where_positive(relevance.add_(negative, alpha=beta), has_p, into=relevance)
        both = where_positive(negative, has_p, into=into)
        return positive, both.mul_(self.alpha).sub_(negative), None

    def _settle(self, layer: Layer, u: Tensor, v: Tensor, scale: float, lost: Tensor | None) -> None:
        positive, negative, epsilon = layer.positive_bias, layer.negative_bias, scale * self.epsilon
        if positive is not None and negative is not None:
            positive, negative = scale * positive, scale * negative
        layer.settle((u, positive, epsilon), (v, negative, -epsilon), lost=lost)
