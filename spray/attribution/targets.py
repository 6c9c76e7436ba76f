"""What a map explains: a class of each sample, or the difference of two of its logits, written as a short text.

label, prediction, rank2, 7        the true, the predicted, the second most likely class, or class 7
label-prediction, 3-5, label-other a difference of logits: for the one and against the other (other: the best
                                   class that is not the one)
top3                               short for rank1, rank2, rank3
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spray.engine import Ranked, Start
from spray.engine.errors import BadInput
from spray.engine.preflight import check_targets

Target = str | int
Choice = str | int | Ranked
"""One class of each sample: "label", "prediction", "other", an index, or a rank."""

KNOWN = "label, prediction, rankK, topK, a class index, or a difference such as label-other"
OTHER = "other"


@dataclass(frozen=True)
class Goal:
    """One map per sample: of the class ``own``, or of its logit minus that of ``against``."""

    text: str
    own: Choice
    against: Choice | None = None

    @classmethod
    def parse(cls, target: Target) -> Goal:
        """From the text of a single target.

        Raises:
            BadInput: it is none of those there are.
        """
        text = str(target)
        own, separator, against = text.partition("-")
        goal = cls(text, _choice(own, text), _choice(against, text) if separator else None)
        if goal.own == OTHER or goal.own == goal.against:
            raise BadInput(f"target is '{text}', a difference with nothing to compare; there are {KNOWN}.")
        return goal

    def chosen(
        self, logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"] | None
    ) -> Int[Tensor, " n"]:
        """The class of each sample; where no label is known, the prediction stands for it."""
        return _classes(self.own, logits, labels)

    def start(self, start: Start, labels: Int[Tensor, " n"] | None) -> Start:
        """Where the relevance of a batch with these labels starts."""
        return start if self.against is None else Contrast(self.against, labels)

    def undefined(
        self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"], labels: Int[Tensor, " n"] | None
    ) -> Bool[Tensor, " n"]:
        """Samples whose two classes are one, so that there is no difference to explain."""
        if self.against is None:
            return torch.zeros_like(targets, dtype=torch.bool)
        return Contrast(self.against, labels).other(logits, targets) == targets


@dataclass(frozen=True)
class Contrast:
    """R = logit of the target − logit of another class, which may be another one for each sample.

    No relevance starts where the two are the same class.
    """

    against: Choice
    labels: Int[Tensor, " n"] | None
    name: ClassVar[str] = "contrast"

    def seed(
        self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n classes"]:
        """1 at the target, −1 at the other class, 0 where they are one."""
        at_target = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
        minus = torch.full_like(logits[:, :1], -1.0)
        return at_target.scatter_add_(1, self.other(logits, targets)[:, None], minus)

    def other(self, logits: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The class that is compared with, for each sample."""
        if self.against != OTHER:
            return _classes(self.against, logits, self.labels)
        return logits.scatter(1, targets[:, None], float("-inf")).argmax(1)


def expanded(target: Target | Sequence[Target]) -> tuple[Target, ...]:
    """Every single target: lists as they are, ``topK`` as its ranks.

    Raises:
        BadInput: a target is none of those there are, or comes twice.
    """
    singles: list[Target] = []
    for each in (target,) if isinstance(target, str | int) else target:
        top = re.fullmatch(r"top([1-9]\d*)", str(each))
        singles += [f"rank{rank + 1}" for rank in range(int(top[1]))] if top else [each]
    if not singles or len({Goal.parse(each) for each in singles}) < len(singles):
        raise BadInput(f"targets are {', '.join(map(str, singles)) or 'none'}; name at least one, each once.")
    return tuple(singles)


def _choice(text: str, whole: str) -> Choice:
    if text in ("label", "prediction", OTHER):
        return text
    if text.isdecimal() and text.isascii():
        return int(text)
    if rank := re.fullmatch(r"rank([1-9]\d*)", text, re.ASCII):
        return Ranked(int(rank[1]) - 1)
    raise BadInput(f"target is '{whole}'; there are {KNOWN}.")


def _classes(
    choice: Choice, logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"] | None
) -> Int[Tensor, " n"]:
    predicted = check_targets(None, logits)
    if choice == "label" and labels is not None:
        known = labels.to(predicted.device)
        return torch.where(known < 0, predicted, known)
    return predicted if isinstance(choice, str) else check_targets(choice, logits)
