"""What a model says about one class, over many images, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from spray.blocks import channels_last
from spray.memory import enough_memory, in_batches, no_image_fits

MEASURES = ("probability", "logit", "flip")
"""P(class); log P(class) − log P(any other), which does not saturate; whether the class is predicted (1 or 0)."""
PROBABILITY, LOGIT, FLIP = range(3)

Readings = Float[np.ndarray, "n 3"]
"""One row per image, one column per measure."""


class AnswerError(Exception):
    """The model answers NaN or infinity for an image, so that no effect can be told."""


class Judge:
    """Reads ``model`` for class ``target`` on ``device``, ``batch`` images at once, fewer where memory runs out."""

    def __init__(self, model: nn.Module, target: int, device: torch.device, batch: int = 256) -> None:
        self.model, self.target, self.device, self.batch = model, target, device, batch

    def read(self, images: Float[Tensor, "n ..."]) -> Readings:
        """The measures of each image."""
        parts = self.batched(
            len(images), lambda part: self.model(channels_last(images[part].to(self.device)))
        )
        return self.measures(parts)

    def measures(self, logits: Iterable[Float[Tensor, "b classes"]]) -> Readings:
        """The measures of the model's outputs, batch by batch.

        Raises:
            AnswerError: some of them are no finite numbers.
        """
        parts = [_measured(part.double().cpu(), self.target) for part in logits]
        found = np.concatenate([np.zeros((0, len(MEASURES))), *parts])
        odd = int((~np.isfinite(found).all(1)).sum())
        if odd:
            raise AnswerError(
                f"The model answers NaN or infinity for {odd} of {len(found)} images, changed ones or those they were "
                "made from, so no effect could be told. Look for a division by an image's own spread, or for half "
                "precision that overflows."
            )
        return found

    @torch.no_grad()
    def batched(self, count: int, forward: Callable[[slice], Tensor]) -> list[Tensor]:
        """``forward`` over slices of 0…count. A batch that does not fit into memory is halved, and so are later ones.

        Raises:
            SpaceError: even one image does not fit.
        """
        with enough_memory(no_image_fits(self.device)):
            found, self.batch = in_batches(count, self.batch, forward, self.device)
        return found


def _measured(logits: Float[Tensor, "n classes"], target: int) -> Readings:
    own, others = logits[:, target], logits.clone()
    others[:, target] = -torch.inf
    columns = (logits.softmax(1)[:, target], own - others.logsumexp(1), (logits.argmax(1) == target).double())
    return torch.stack(columns, dim=1).numpy()
