"""LRP-0 and LRP-ε (Bach et al. 2015, eq. 56 and 58): relevance in proportion to each input's contribution.

LRP-0:  R_in = x · Wᵀ(R / z), in the form c = R/x simply the gradient, c_in = Wᵀc.
LRP-ε:  R_in = x · Wᵀ(R / s(z)),  s(z) = z + ε·sign(z).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.rules.base import LinearRule, QuotientRule, check_epsilon, divided, stabilize


@dataclass(frozen=True)
class Zero(LinearRule):
    """LRP-0: relevance in proportion to the contribution x·w, the bias taking its own share."""

    name: ClassVar[str] = "zero"

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], c: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """Wᵀc: with c = R/z no division is left, and 0/0 never arises."""
        layer.settle((c, layer.bias, 0.0))
        return layer.adjoint(c, layer.weight, x)


@dataclass(frozen=True)
class Epsilon(QuotientRule):
    """LRP-ε: as LRP-0, with ε absorbing relevance where contributions cancel.

    With ``relative`` the stabiliser is ε times the root mean square of the layer's output for that sample.
    """

    name: ClassVar[str] = "epsilon"
    epsilon: float = 1e-6
    relative: bool = False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def backward(
        self,
        layer: Layer,
        x: Float[Tensor, "n ..."],
        z: Float[Tensor, "n ..."],
        relevance: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """Wᵀr with r = R / s(z)."""
        if layer.rectified and self.epsilon > 0 and not self.relative:
            r = relevance.div_(z + self.epsilon)
            layer.settle((r, layer.bias, self.epsilon))
            return layer.adjoint(r, layer.weight, x)
        came = layer.total(relevance)
        r = divided(relevance, stabilize(z, self._stabiliser(layer, x, z)), stabilised=self.epsilon > 0)
        layer.settle_rest(came, r, z, layer.bias)
        return layer.adjoint(r, layer.weight, x)

    def _stabiliser(self, layer: Layer, x: Tensor, z: Tensor) -> float | Tensor:
        if not self.relative:
            return self.epsilon
        whole = layer.forward(x, layer.weight, layer.bias) if layer.rectified else z
        return layer.mean(whole.square()).sqrt().mul(self.epsilon)
