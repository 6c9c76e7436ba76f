"""Rules that look at no weight: pass (R unchanged) and norm (R in proportion to the value)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.rules.base import QuotientRule, RelevanceRule, check_epsilon, divided, stabilize


@dataclass(frozen=True)
class Pass(RelevanceRule):
    """Pass: R_in = R_out, for a layer whose input and output have one shape."""

    name: ClassVar[str] = "pass"

    def refuses(self, given: torch.Size, made: torch.Size) -> str | None:
        """Where the shape changes there is no place for each R to go."""
        if given == made:
            return None
        return (
            f"the rule pass hands relevance on unchanged, but the layer turns {tuple(given)} into {tuple(made)}. "
            "Use the norm or the flat rule for it."
        )

    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], relevance: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """R unchanged."""
        return relevance


@dataclass(frozen=True)
class Norm(QuotientRule):
    """Norm: relevance in proportion to the value of each input in reach, R_in = x · 1ᵀ(R / s(1x))."""

    name: ClassVar[str] = "norm"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def backward(
        self,
        layer: Layer,
        x: Float[Tensor, "n ..."],
        z: Float[Tensor, "n ..."],
        relevance: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """1ᵀ(R / s(1x)): LRP-ε with every weight 1 and no bias."""
        ones = layer.derive("ones", torch.ones_like)
        sums, came = layer.forward(x, ones), layer.total(relevance)
        r = divided(relevance, stabilize(sums, self.epsilon), stabilised=self.epsilon > 0)
        layer.settle_rest(came, r, sums)
        return layer.adjoint(r, ones, x)
