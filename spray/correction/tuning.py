"""Fine-tuning a copy of a model for a few passes over the samples to fit on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spray.correction.errors import CorrectionError
from spray.correction.material import Batch, Pixels, Rows
from spray.progress import Report

Loss = Callable[[Rows, Float[Tensor, "b ..."], Int[Tensor, " b"]], Float[Tensor, ""]]
During = Callable[[Rows], AbstractContextManager[object]]


@dataclass(frozen=True)
class FineTuning:
    """Adam over seeded orders of the samples, its rate falling to zero (cosine); normalisations and dropout as in use.

    Args:
        epochs: passes over the samples.
        rate: learning rate at the start; a tenth of what trained the model is a good begin.
        decay: weight decay.
    """

    epochs: int = 3
    rate: float = 1e-3
    batch: int = 128
    decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.rate > 0 or self.decay < 0:
            raise CorrectionError(
                f"epochs is {self.epochs}, batch {self.batch}, rate {self.rate}, decay {self.decay}; epochs and batch "
                "are at least 1, the rate is above 0."
            )

    def run(
        self,
        model: nn.Module,
        pixels: Pixels,
        rows: Rows,
        report: Report,
        *,
        penalty: Loss | None = None,
        during: During = lambda rows: nullcontext(),
    ) -> None:
        """Train the model in place on cross-entropy, plus a penalty; ``during`` is entered for every forward pass.

        Raises:
            CorrectionError: the loss is not finite: the rate is too high.
        """
        rng = np.random.default_rng([self.seed, 7])
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.rate, weight_decay=self.decay)
        steps = -(-len(rows) // self.batch) * self.epochs
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        model.eval()  # statistics of normalisations stay those of the model, as in later use
        done = 0
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.seed)
            for _ in range(self.epochs):
                for batch in pixels.batches(rng.permutation(rows), self.batch):
                    optimizer.zero_grad()
                    for share, (chosen, inputs, labels) in _portions(batch, pixels.batch):
                        with during(chosen):
                            loss = F.cross_entropy(model(inputs), labels)
                        if penalty is not None:
                            loss = loss + penalty(chosen, inputs, labels)
                        if not torch.isfinite(loss):
                            raise CorrectionError(
                                f"the loss of fine-tuning is no longer finite: choose a lower rate than {self.rate}."
                            )
                        (share * loss).backward()
                    optimizer.step()
                    schedule.step()
                    done += 1
                    report(min(done, steps), steps, "fine-tune")
        report(steps, steps, "fine-tune")


def _portions(batch: Batch, most: int) -> Iterator[tuple[float, Batch]]:
    """A batch in portions that fit into memory, each with its share of it: their gradients add up to the batch's."""
    rows, inputs, labels = batch
    for at in range(0, len(rows), most):
        part = slice(at, at + most)
        yield len(rows[part]) / len(rows), (rows[part], inputs[part], labels[part])
