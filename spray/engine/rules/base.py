"""What a rule is: how a weighted layer hands the relevance of its output down to its input.

Notation, as in the papers: x input, W weight, b bias, z = Wx + b output, R relevance, c = R/x the relevance
per unit of value. The engine propagates c, because an operation that is positively homogeneous of degree 1
(ReLU, pooling, residual sum, …) then needs no rule: autograd's own gradient carries c correctly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.layer import Layer
from spray.engine.strides import in_memory_order


@dataclass(frozen=True)
class Rule(ABC):
    """One way to share relevance among the inputs of a weighted layer; its fields are all of its parameters."""

    name: ClassVar[str]


@dataclass(frozen=True)
class QuotientRule(Rule):
    """A rule under which an input of zero gets no relevance, so that c = R/x is all there is to hand on."""

    @abstractmethod
    def backward(
        self,
        layer: Layer,
        x: Float[Tensor, "n ..."],
        z: Float[Tensor, "n ..."],
        relevance: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """R_in / x from R_out; what bias and stabiliser absorb is told to ``layer.settle``.

        ``relevance`` is the rule's own to overwrite, x and z are not. Where ``layer.rectified`` z is max(z, 0) and
        no relevance comes from outputs of zero.
        """


@dataclass(frozen=True)
class LinearRule(Rule):
    """A rule without division: c_in from c_out, as a gradient."""

    @abstractmethod
    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], c: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """R_in / x from c = R_out / z; what the bias absorbs is told to ``layer.settle``."""


@dataclass(frozen=True)
class RelevanceRule(Rule):
    """A rule that gives relevance to inputs of zero: from there on to the input, R itself is carried."""

    def refuses(self, given: torch.Size, made: torch.Size) -> str | None:
        """Why the rule cannot stand in a layer that turns the one shape into the other; None where it can."""
        return None

    @abstractmethod
    def backward(
        self, layer: Layer, x: Float[Tensor, "n ..."], relevance: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """R_in from R_out, which is not to be overwritten; what bias and stabiliser absorb is told to the layer."""


def check_epsilon(epsilon: float) -> None:
    """Refuse a stabiliser that would take denominators to zero instead of away from it.

    Raises:
        ValueError: ε is negative or no finite number.
    """
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon is {epsilon}, but a stabiliser needs a finite epsilon ≥ 0, such as 1e-6.")


def stabilize(z: Tensor, epsilon: float | Tensor) -> Tensor:
    """s(z) = z + ε·sign(z) with sign(0) = +1, so that no denominator is zero and none changes its sign."""
    offset = torch.as_tensor(epsilon, dtype=z.dtype, device=z.device)
    signed = z + 0.0  # -0.0 + 0.0 is 0.0, whose sign is +
    return torch.copysign(offset, signed, out=signed).add_(z)


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator with 0/0 = 0: where nothing contributed, there is nothing to share."""
    return torch.where(denominator == 0, 0, numerator / denominator)


def divided(numerator: Tensor, denominator: Tensor, *, stabilised: bool) -> Tensor:
    """numerator / denominator in place of the numerator, and 0 where no ε keeps the denominator from being 0."""
    quotients = numerator.div_(denominator)
    return quotients if stabilised else quotients.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def where_positive(
    values: Tensor, condition: Tensor, above: float = 0.0, into: Tensor | None = None
) -> Tensor:
    """The values where the condition is > 0 (or ``above``), else 0; one pass, unlike comparing and choosing."""
    chosen = torch.empty_like(values) if into is None else into
    torch.ops.aten.threshold_backward.grad_input(values, condition, above, grad_input=chosen)
    return chosen


def is_zero(values: Tensor) -> bool:
    """Whether all values are 0; one pass, unlike ``any``."""
    return values.numel() == 0 or not any(map(float, in_memory_order(values).aminmax()))


def all_above(values: Tensor, bound: float) -> bool:
    """Whether all values are greater."""
    return values.numel() == 0 or bool(in_memory_order(values).min() > bound)
