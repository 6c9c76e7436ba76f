"""Where the relevance starts: which output is explained, and how much relevance it is given.

With c = R/logit at the outputs, Σ c·logit is the relevance put in. It is stored with every map; a negative one turns
the meaning of the map's signs around, so such samples are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spray.engine.errors import BadInput, few


@runtime_checkable
class Start(Protocol):
    """How relevance is put in at the logits."""

    name: ClassVar[str]

    def seed(
        self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """c at every logit."""


@dataclass(frozen=True)
class Logit:
    """R = the target's logit, c = 1 (never the softmax, which explains all classes at once)."""

    name: ClassVar[str] = "logit"

    def seed(
        self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """1 at the target."""
        return torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)


@dataclass(frozen=True)
class Unit:
    """R = 1: maps of one size, at the price that the map of a negative logit is turned around."""

    name: ClassVar[str] = "unit"

    def seed(
        self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """1/logit at the target.

        Raises:
            BadInput: a logit is 0.
        """
        logit = logits.gather(1, targets[:, None])
        rows = tuple(torch.nonzero(logit.flatten() == 0).flatten().tolist())
        if rows:
            raise BadInput(
                f"start='unit' divides by the logit, which is 0 in rows {few(rows)}. Use 'logit'.", rows
            )
        return torch.zeros_like(logits).scatter_(1, targets[:, None], logit.reciprocal())


@dataclass(frozen=True)
class Difference:
    """R = logit of the target − logit of another class: what speaks for the one and against the other.

    ``against`` is a class; None means for each sample the best class that is not its target.
    """

    name: ClassVar[str] = "difference"
    against: int | None = None

    def seed(
        self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """1 at the target, −1 at the other class.

        Raises:
            BadInput: the other class is the target itself, or there is none.
        """
        own = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
        if logits.shape[1] < 2:
            raise BadInput("a difference of logits needs at least two classes.")
        if self.against is None:
            other = logits.masked_fill(own.bool(), float("-inf")).argmax(1)
        elif not 0 <= self.against < logits.shape[1]:
            raise BadInput(f"class {self.against} to compare with is not among 0 to {logits.shape[1] - 1}.")
        else:
            other = torch.full_like(targets, self.against)
        same = tuple(torch.nonzero(other == targets).flatten().tolist())
        if same:
            raise BadInput(
                f"the target is class {self.against} itself in rows {few(same)}; a difference is 0 there.",
                same,
            )
        return own.scatter_(1, other[:, None], -1.0)


STARTS: dict[str, Start] = {start.name: start for start in (Logit(), Unit(), Difference())}


def start(given: str | Start) -> Start:
    """The start of that name, or the start itself.

    Raises:
        BadInput: no start has that name, or it is none; the message lists those there are.
    """
    if isinstance(given, Start) and not isinstance(given, type):
        return given
    if not isinstance(given, str) or given not in STARTS:
        raise BadInput(f"there is no start {given!r}. There are: {', '.join(map(repr, STARTS))}.")
    return STARTS[given]
