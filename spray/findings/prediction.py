"""A model's probability of one class over many images, in batches, without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spray.blocks import channels_last


@dataclass(frozen=True)
class ClassScorer:
    """Scores of class ``group``, computed on ``device`` in batches of ``batch`` images."""

    model: nn.Module
    group: int
    device: torch.device
    batch: int = 256

    def probability(self, images: Float[Tensor, "n c h w"]) -> Float[np.ndarray, " n"]:
        """P(class)."""
        return self.judge(images)[0]

    def judge(
        self, images: Float[Tensor, "n c h w"]
    ) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """P(class), and whether the class is predicted, from one pass."""
        logits = self._logits(images)
        return logits.softmax(1)[:, self.group].numpy(), (logits.argmax(1) == self.group).numpy()

    def log_odds(self, images: Float[Tensor, "n c h w"]) -> Float[np.ndarray, " n"]:
        """log P(class) − log P(any other class): unlike a probability it does not saturate."""
        logits = self._logits(images)
        own = logits[:, self.group].clone()
        logits[:, self.group] = -torch.inf
        return (own - logits.logsumexp(1)).numpy()

    @torch.no_grad()
    def _logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        if not len(images):
            return torch.zeros(0, self.group + 2, dtype=torch.float64)
        parts = [
            self.model(channels_last(part.to(self.device))).double().cpu()
            for part in images.split(self.batch)
        ]
        return torch.cat(parts)
