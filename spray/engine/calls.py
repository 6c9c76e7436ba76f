"""Weighted layers as autograd functions, and what is carried ahead of the first of them.

The engine carries c = R/x. A rule that gives relevance to inputs of zero (flat, w², z^B) has to carry R
itself, from its layer on to the input. Which of the two a tensor will carry is settled during the forward
pass, by its consumers: each demands one of them, and the demand is led on towards the input.
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from spray.engine.errors import UnsupportedOperation
from spray.engine.layer import Fold, Layer
from spray.engine.rules import LinearRule, QuotientRule, RelevanceRule, Rule

Carried = Literal["quotient", "relevance"]


class Early:
    """A tensor between the input and the first layers that carry c: it may be asked to carry R instead."""

    def __init__(self, what: str, parents: tuple[Early, ...] = (), *, carries: bool) -> None:
        self.what = what
        self.carries = carries
        self.carried: Carried | None = None
        self._parents = parents

    def demand(self, carried: Carried) -> None:
        """A consumer of this tensor hands back c or R.

        Raises:
            UnsupportedOperation: R has to pass an operation that cannot carry it, or one consumer hands
            back c and
                another R.
        """
        if self.carried == carried:
            return
        if self.carried is not None or (carried == "relevance" and not self.carries):
            raise UnsupportedOperation(
                f"{self.what}: a rule for the first layer (flat, w², z^B) hands back relevance itself, which can "
                "pass elementwise operations and reshapes on its way to the input, but not this one. Use a "
                "composite without such a rule (epsilon_plus instead of epsilon_plus_flat)."
            )
        self.carried = carried
        for parent in self._parents:
            parent.demand(carried)


class _Either(Function):
    """An elementwise operation ahead of the first layer: c follows its gradient, R passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, early: Early) -> Tensor:
        ctx.early = early
        return y.detach()

    @staticmethod
    def backward(ctx: Any, carried: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.early.carried == "relevance":
            return carried, None, None
        return None, carried, None


def either(x: Tensor, y: Tensor, early: Early) -> Tensor:
    """y = f(x) elementwise, such that R, where it is carried, passes from y to x unchanged."""
    out: Tensor = _Either.apply(x, y, early)
    return out


class LayerCall:
    """One call of a weighted layer: its rule, the input and output it saw, and what became of its output.

    Two things about the output are settled only when the pass is over, so each is assumed as soon as it looks so,
    and taken back when another use of the output comes by: that a normalisation is folded into the layer, and that
    the output's only use is an activation. R passes an activation unchanged, so the c that the activation is given,
    times its value, is R of the layer, and nothing is left to do for the activation itself.
    """

    def __init__(self, layer: Layer, rule: Rule, early: Early | None) -> None:
        self.layer = layer
        self.rule = rule
        self.early = early
        self.uses = 0
        self.x: Tensor
        self.z: Tensor
        self.activated: Tensor | None = None
        """The value of the activation that is the only use of z."""

    def run(self, x: Tensor) -> Tensor:
        """The layer's output, whose gradient is the rule."""
        out: Tensor = _Weighted.apply(x, self)
        return out

    def consumed(self, z: Tensor, *, folded: bool) -> None:
        """Something uses the output z, of the layer itself or of the normalisation folded into it."""
        if self.layer.fold is not None and not folded:
            self.layer.fold = None
            self._stands(z)
        elif folded == (self.layer.fold is not None):
            self.uses += 1
            if self.activated is not None:
                self._stands(z)

    def fold(self, fold: Fold, normalised: Tensor) -> None:
        """Draw a normalisation, the only consumer so far, into the layer: its output becomes the layer's."""
        self.uses = 0
        self.layer.fold = fold
        self.z = normalised

    def activates(self, *, folded: bool) -> bool:
        """Whether the operation at hand is the only use of the output so far."""
        return self.uses == 1 and folded == (self.layer.fold is not None)

    def activate(self, value: Tensor, *, rectified: bool) -> None:
        """Let the value of an activation, the only consumer so far, give R; that of a ReLU stands for z as well."""
        if isinstance(self.rule, LinearRule):
            return
        self.activated, self.layer.rectified = value, rectified
        if rectified:
            self.z = value

    def relevance(self, carried: Tensor) -> Tensor:
        """R of the output."""
        return carried * (self.z if self.activated is None else self.activated)

    def _stands(self, z: Tensor) -> None:
        self.z, self.activated, self.layer.rectified = z.detach(), None, False

    def backward(self, carried: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """What the input carries, c or R by the kind of rule; in the last pass nothing is kept beyond its use."""
        rule, layer, x, z = self.rule, self.layer, self.x, self.z
        value = z if self.activated is None else self.activated
        if layer.last_pass:
            del self.x, self.z
            self.activated = None
        if isinstance(rule, QuotientRule):

            def share(part: Layer, x: Tensor, z: Tensor, value: Tensor, carried: Tensor) -> Tensor:
                return rule.backward(part, x, z, carried * value)

            return layer.in_slices(share, x, z, value, carried)
        if isinstance(rule, LinearRule):
            return rule.backward(layer, x, carried)
        if isinstance(rule, RelevanceRule):
            given = self.early is not None and self.early.carried == "relevance"
            relevance = carried if given else carried * value
            del z, value
            return rule.backward(layer, x, relevance)
        raise TypeError(f"{rule!r} is neither a LinearRule, a QuotientRule nor a RelevanceRule.")


class _Weighted(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, call: LayerCall) -> Tensor:
        ctx.call = call
        call.x = x.detach()
        z = call.layer.forward(call.x, call.layer.weight, call.layer.bias)
        call.z = z.detach()
        return z

    @staticmethod
    def backward(ctx: Any, carried: Tensor) -> tuple[Tensor, None]:
        return ctx.call.backward(carried), None
