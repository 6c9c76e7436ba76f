"""A weighted layer as one call of it ran: its linear map, its weights as derived for rules, and its books."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.geometry import Geometry
from spray.engine.ledger import Ledger
from spray.engine.strides import channels_last, in_memory_order
from spray.engine.weights import DerivedWeights

SLICE = 2**18
"""Values of the output that a rule takes at once, more only where weights are many or one sample holds more."""
SLICE_PER_WEIGHT = 4
"""Values of the output at once per weight, at least."""


@dataclass(frozen=True)
class Fold:
    """A normalisation over channels, x ↦ scale·x + shift, drawn into the weighted layer before it."""

    scale: Float[Tensor, " o"]
    shift: Float[Tensor, " o"]
    sources: tuple[Tensor, ...]
    epsilon: float
    """What the normalisation has under its root: no tensor, and so no source."""


class Layer:
    """Wx + b of one call, with W and b after folding, and the derived weights the rules ask for."""

    def __init__(
        self,
        geometry: Geometry,
        weight: Tensor,
        bias: Tensor | None,
        *,
        derived: DerivedWeights | None = None,
        ledger: Ledger | None = None,
        nonnegative: bool = False,
        laid: bool = False,
    ) -> None:
        self.geometry = geometry
        self.fold: Fold | None = None
        self.rectified = False
        """Whether the output's only use is a ReLU: max(z, 0) then stands for z, and where it is 0, R is 0 too."""
        self._nonnegative = nonnegative
        self._laid = laid
        """Whether W is wanted with its channels side by side, as its input has them: else every pass copies it."""
        self._weight, self._bias = weight, bias
        self._derived = derived or DerivedWeights()
        self._ledger = ledger

    @property
    def weight(self) -> Tensor:
        """W, the scale of a folded normalisation included."""
        if self.fold is None and not self._laid:
            return self._weight.detach()
        return self._get("weight", self._own_weight)

    @property
    def bias(self) -> Tensor | None:
        """b, the shift of a folded normalisation included."""
        bias = None if self._bias is None else self._bias.detach()
        if self.fold is None:
            return bias
        return self.fold.shift if bias is None else bias * self.fold.scale + self.fold.shift

    @property
    def positive_weight(self) -> Tensor:
        """W⁺ = max(W, 0)."""
        return self._get("positive", lambda: self.weight.clamp(min=0))

    @property
    def negative_weight(self) -> Tensor:
        """W⁻ = min(W, 0)."""
        return self._get("negative", lambda: self.weight.clamp(max=0))

    @property
    def absolute_weight(self) -> Tensor:
        """|W|."""
        return self._get("absolute", lambda: self.weight.abs())

    @property
    def squared_weight(self) -> Tensor:
        """W², elementwise."""
        return self._get("squared", lambda: self.weight.square())

    @property
    def positive_bias(self) -> Tensor | None:
        """b⁺ = max(b, 0)."""
        return None if self.bias is None else self.bias.clamp(min=0)

    @property
    def negative_bias(self) -> Tensor | None:
        """b⁻ = min(b, 0)."""
        return None if self.bias is None else self.bias.clamp(max=0)

    @property
    def absolute_bias(self) -> Tensor | None:
        """|b|."""
        return None if self.bias is None else self.bias.abs()

    def raised(self, bias: Tensor | None, epsilon: float, factor: float = 1.0) -> Tensor | None:
        """factor·b + ε for every output: as the bias of a forward pass it gives a stabilised denominator at once."""
        if bias is None:
            return self._weight.new_full((self.outputs,), epsilon) if epsilon else None
        return bias * factor + epsilon

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        return self.geometry.outputs(self._weight)

    def derive(self, kind: str, build: Callable[[Tensor], Tensor]) -> Tensor:
        """A rule's own function of W, cached under ``kind``, which names the rule and its parameters."""
        return self._get(kind, lambda: build(self.weight))

    def forward(
        self, x: Float[Tensor, "n ..."], weight: Tensor, bias: Tensor | None = None
    ) -> Float[Tensor, "n ..."]:
        """The layer's linear map with another weight, and with no bias unless given."""
        return self.geometry.forward(x, weight, bias)

    def adjoint(self, r: Float[Tensor, "n ..."], weight: Tensor, x: Tensor) -> Float[Tensor, "n ..."]:
        """Wᵀr with the given weight, shaped like the input x."""
        return self.geometry.adjoint(r, weight, x)

    def nonnegative(self, x: Tensor) -> bool:
        """Whether no input is negative, so that one pass with W⁺ holds all positive contributions."""
        return self._nonnegative or x.numel() == 0 or bool(in_memory_order(x).min() >= 0)

    def settle(
        self,
        *parts: tuple[Float[Tensor, "n ..."], Tensor | None, float],
        lost: Float[Tensor, "n ..."] | None = None,
    ) -> None:
        """Book what was absorbed of relevance shared in parts, each (r, b, ε) with r = R/(d + ε).

        The bias took Σ r·b, and the stabiliser Σ R − r·d = ε·Σ r; negative denominators have r = R/(d − ε) and come
        with −ε. ``lost`` is relevance that went to no part, for want of contributions.
        """
        if self._ledger is None:
            return
        for r, bias, epsilon in parts:
            per_channel = self._per_channel(r)
            self._ledger.book("epsilon", per_channel.sum(1) * epsilon)
            if bias is not None:
                self._ledger.book("bias", per_channel @ bias)
        if lost is not None:
            self._ledger.book("epsilon", self._ledger.rows(lost))

    def settle_rest(
        self, came: Float[Tensor, " n"], r: Tensor, d: Tensor, bias: Tensor | None = None
    ) -> None:
        """As ``settle``, of the relevance that came (see ``total``) whatever the stabiliser: it took came − Σ r·d."""
        if self._ledger is None:
            return
        self._ledger.book("epsilon", came - self._ledger.products(r, d))
        if bias is not None:
            self._ledger.book("bias", self._per_channel(r) @ bias)

    @property
    def last_pass(self) -> bool:
        """Whether no other backward pass will ask for what this call of the layer saw."""
        return self._ledger is not None and self._ledger.last

    def in_slices(
        self, rule: Callable[..., Tensor], x: Float[Tensor, "n ..."], *values: Float[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """rule(layer, x, *values) by slices of the batch where the values of the output, the first, are many.

        Only a few rows at a time then need room for what the rule computes in between, and a CPU finds that in its
        cache. Samples are never parted, and slices hold several times the weights, which every pass lays out anew.
        """
        ledger, output = self._ledger, values[0]
        if (
            ledger is None
            or output.device.type != "cpu"
            or len(output) % ledger.samples
            or self.geometry.per_sample
        ):
            return rule(self, x, *values)
        at_once = max(SLICE, SLICE_PER_WEIGHT * self._weight.numel())
        samples = max(1, at_once * ledger.samples // max(1, output.numel()))
        if samples >= ledger.samples:
            return rule(self, x, *values)
        out, parts, rows = torch.empty_like(x), [], len(output) // ledger.samples
        for first in range(0, ledger.samples, samples):
            part = copy(self)
            part._ledger = ledger.part(min(samples, ledger.samples - first))
            here = slice(first * rows, (first + samples) * rows)
            out[here] = rule(part, x[here], *(each[here] for each in values))
            parts.append(part._ledger)
        ledger.gather(parts)
        return out

    def total(self, values: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """The sum of each sample."""
        return values.new_zeros(1) if self._ledger is None else self._ledger.rows(values)

    def mean(self, values: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The mean over each sample, for each of its rows."""
        samples = len(values) if self._ledger is None else self._ledger.samples
        means = values.reshape(samples, -1).mean(1).repeat_interleave(len(values) // samples)
        return means.view(-1, *[1] * (values.ndim - 1))

    def _per_channel(self, r: Float[Tensor, "n ..."]) -> Float[Tensor, "n channel"]:
        """The sum over the places of each sample."""
        assert self._ledger is not None
        if self.geometry.channel_dim == -1:
            return r.reshape(self._ledger.samples, -1, r.shape[-1]).sum(1)
        per_channel = r.sum(tuple(range(2, r.ndim)))
        return per_channel.reshape(self._ledger.samples, -1, r.shape[1]).sum(1)

    def _own_weight(self) -> Tensor:
        weight = self._weight.detach()
        if self.fold is not None:
            weight = self.geometry.scale_outputs(weight, self.fold.scale)
        return channels_last(weight) if self._laid else weight

    def _get(self, kind: str, build: Callable[[], Tensor]) -> Tensor:
        sources: tuple[Tensor, ...] = (self._weight,)
        if self.fold is not None:
            kind, sources = f"{kind}, folded with {self.fold.epsilon}", (self._weight, *self.fold.sources)
        with torch.no_grad():
            return self._derived.get(kind, sources, build)
