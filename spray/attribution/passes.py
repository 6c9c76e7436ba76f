"""Relevance of a whole block for every target, in one pass; in several where memory runs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spray.attribution.step import Attribution
from spray.attribution.targets import Goal, Target
from spray.data import UNKNOWN_LABEL
from spray.engine import Explainer, Explanation
from spray.engine.errors import AttributionError, BadInput
from spray.memory import ran_out, release


class Passes:
    """A model with the targets of a step.

    ``batch`` is how many samples go through it at a time; it is halved, and stays so, whenever memory runs out.
    """

    def __init__(
        self, model: nn.Module, step: Attribution, layers: Sequence[str], device: torch.device
    ) -> None:
        self.explainer = Explainer(model, step.composite, layers)
        self.goals = {target: Goal.parse(target) for target in step.targets}
        self.start, self.device = step.start, device
        self.batch = step.block

    def explain(
        self,
        inputs: Float[Tensor, "b ..."],
        labels: Int[Tensor, " rows"] | None = None,
        wanted: Iterable[Target] = (),
    ) -> dict[Target, Explanation]:
        """The explanations of the targets that are wanted (none: all), from one forward pass for all of them.

        ``labels`` are those of the first samples; what is not told is unknown.

        Raises:
            BadInput: as the engine; ``rows`` are places in the block.
            AttributionError: not even a single sample fits into memory.
        """
        goals = {target: self.goals[target] for target in (tuple(wanted) or self.goals)}
        known = self._labels(labels, len(inputs))
        parts: list[list[Explanation]] = []
        at = 0
        while at < len(inputs):
            rows = slice(at, at + self.batch)
            if (part := self._attempt(inputs[rows], known[rows], list(goals.values()), at)) is None:
                release(self.device)
                self.batch = -(-min(self.batch, len(inputs)) // 2)
            else:
                parts.append(part)
                at += self.batch
        return {target: _concatenated([part[i] for part in parts]) for i, target in enumerate(goals)}

    def undefined(
        self, target: Target, explanation: Explanation, labels: Int[Tensor, " rows"]
    ) -> Bool[Tensor, " n"]:
        """Samples of which this target, a difference of logits, compares a class with itself."""
        logits = explanation.logits
        known = self._labels(labels, len(logits)).to(logits.device)
        return self.goals[target].undefined(logits, explanation.targets, known).cpu()

    def _attempt(
        self, inputs: Float[Tensor, "b ..."], labels: Int[Tensor, " b"], goals: Sequence[Goal], at: int
    ) -> list[Explanation] | None:
        """One pass; None where memory ran out. It has ended then, with all that it held."""
        try:
            inputs, labels = inputs.to(self.device, non_blocking=True), labels.to(self.device)
            targets = [_ByLogits(goal, labels) for goal in goals]
            starts = [goal.start(self.start, labels) for goal in goals]
            return self.explainer.explain_each(inputs, targets, starts)
        except BadInput as error:
            raise BadInput(str(error), tuple(at + row for row in error.rows)) from error
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if len(inputs) == 1:
                raise AttributionError(
                    f"A pass over a single sample does not fit into the memory of {self.device} ({error}). What is "
                    "committed is safe. Free memory, keep fewer layers and targets at a time, or take another device."
                ) from error
            return None

    @staticmethod
    def _labels(labels: Int[Tensor, " rows"] | None, count: int) -> Int[Tensor, " count"]:
        """Labels of a whole block; those of the padding are unknown."""
        padded = torch.full((count,), UNKNOWN_LABEL, dtype=torch.int64)
        if labels is not None:
            padded[: len(labels)] = labels
        return padded


@dataclass(frozen=True)
class _ByLogits:
    """The classes of a goal for samples with these labels, once their logits are known."""

    goal: Goal
    labels: Int[Tensor, " n"]

    def __call__(self, logits: Float[Tensor, "n classes"]) -> Int[Tensor, " n"]:
        return self.goal.chosen(logits, self.labels)


def _concatenated(parts: Sequence[Explanation]) -> Explanation:
    """The explanations of consecutive samples, as one."""
    if len(parts) == 1:
        return parts[0]

    def joined(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([tensors[name] for tensors in each]) for name in each[0]}

    return Explanation(
        torch.cat([part.relevance for part in parts]),
        torch.cat([part.logits for part in parts]),
        torch.cat([part.targets for part in parts]),
        joined([part.layers for part in parts]),
        joined([part.checks for part in parts]),
    )
