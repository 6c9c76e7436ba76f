"""What a run says of its samples as a whole, read once for all classes."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from stores import Run


class Outcomes:
    """Labels, predictions, logits and metadata of all samples; each is read where it is first asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def hosts(self, target: int) -> Int[np.ndarray, " h"]:
        """Rows of other classes by label and by prediction: images that may become the class when pasted on."""
        return np.flatnonzero(self.run.samples.ok & (self.labels != target) & (self.predictions != target))

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """−1 where unknown."""
        values: Int[np.ndarray, " n"] = self.run.samples.read("label")
        return values

    @cached_property
    def predictions(self) -> Int[np.ndarray, " n"]:
        """The predicted classes."""
        values: Int[np.ndarray, " n"] = self.run.samples.read("prediction")
        return values

    def probability(self, target: int, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """P(target) of some samples."""
        logits = self.run.samples.read("logits", rows).astype(np.float64)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        found: Float[np.ndarray, " m"] = odds[:, target] / odds.sum(1)
        return found
