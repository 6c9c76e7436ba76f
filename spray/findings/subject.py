"""The model and the data set at hand for interventions, checked against what the store was made with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spray.blocks import channels_last
from spray.data import AuditData, as_audit_data, input_digest
from spray.models import model_digest
from spray.signals import OnSignals, as_pictures, holds_signals
from stores import Run

COMPARED = 4
"""Samples whose answers are compared with the stored ones."""
TOLERANCE = 0.02
"""Of the largest stored answer: other devices and number formats round otherwise."""


class MismatchError(Exception):
    """The model or the data set at hand is not the one that the store was made with."""


@dataclass(frozen=True)
class Subject:
    """A model on its device, and the data set of a run; signals come as pictures one pixel high."""

    run: Run
    model: nn.Module
    data: AuditData
    device: torch.device

    @classmethod
    def of(cls, run: Run, model: nn.Module, dataset: object, device: str | torch.device) -> Subject:
        """Checked by the model's digest and the samples' ids.

        Raises:
            MismatchError: one of them differs from the store's.
        """
        known, found = run.provenance.get("model"), model_digest(model)
        if known != found:
            raise MismatchError(
                f"The model at hand has digest {found[:12]}…, the store was made with {str(known)[:12]}…. "
                "Interventions on another model would prove nothing: give the same model and weights."
            )
        data = as_audit_data(dataset)
        if list(data.ids) != [str(name) for name in run.samples.read("id")]:
            raise MismatchError("The data set at hand has other ids than the store: give the same data set.")
        model = model.to(device)
        subject = cls(
            run, OnSignals(model).eval() if holds_signals(run) else model, data, torch.device(device)
        )
        subject._check_answers()
        return subject

    def _check_answers(self) -> None:
        """That the model answers as it did: its digest is that of its weights, and tells no other way of using them."""
        columns = self.run.samples.columns
        rows = np.flatnonzero(self.run.samples.ok)
        if not len(rows) or "logits" not in columns:
            return
        rows = rows[np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).astype(int)]
        known = self.run.samples.read("logits", rows).astype(np.float64)
        with torch.no_grad():
            found = self.model(channels_last(self.read(rows).to(self.device))).double().cpu().numpy()
        tolerance = TOLERANCE * (1 + np.abs(known).max())
        if found.shape != known.shape or not (np.abs(found - known) <= tolerance).all():
            raise MismatchError(
                "The model at hand has the weights that the store was made with and gives other answers for its "
                "samples: another forward pass, activation or scale, or no evaluation mode. Give the same model."
            )

    @cached_property
    def _digests(self) -> Int[np.ndarray, " n"]:
        """Of all samples: eight bytes each, and read for every finding else."""
        values: Int[np.ndarray, " n"] = self.run.samples.read("digest")
        return values

    def read(self, rows: Int[np.ndarray, " n"]) -> Float[Tensor, "n ..."]:
        """Inputs by row number, each compared with the digest that was stored when it was attributed.

        Raises:
            MismatchError: an input has changed.
        """
        inputs = [self.data.sample(int(row)).input.float() for row in rows]
        for row, pixels, digest in zip(rows, inputs, self._digests[rows], strict=True):
            if input_digest(pixels) != digest:
                raise MismatchError(
                    f"Sample {self.data.ids[row]!r} has other pixels than when it was attributed. "
                    "Give the same data with the same preprocessing (no random augmentation)."
                )
        return as_pictures(torch.stack(inputs))
