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
from spray.engine.preflight import check_model
from spray.memory import enough_memory, no_image_fits, ran_out
from spray.models import answers_apart, model_digest
from spray.signals import OnSignals, as_pictures, holds_signals
from stores import Run

COMPARED = 4
"""Samples whose answers are compared with the stored ones."""
TOLERANCE = 0.02
"""Of the stored answers: other devices and number formats round otherwise."""


class MismatchError(Exception):
    """The model or the data set at hand is not the one that the store was made with."""


def asked(run: Run) -> Int[np.ndarray, " k"]:
    """A few rows, spread over the run, whose answers tell whether a model is the one that the store was made with."""
    rows = np.flatnonzero(run.samples.ok)
    return rows[np.unique(np.linspace(0, len(rows) - 1, COMPARED).astype(int))] if len(rows) else rows


def refuse_other_answers(
    run: Run, model: nn.Module, rows: Int[np.ndarray, " k"], inputs: Float[Tensor, "k ..."]
) -> None:
    """Refuse a model of the same weights that uses them in another way: its digest does not tell.

    Raises:
        MismatchError: it answers other than the store says of these rows.
    """
    if "logits" not in run.samples.columns:
        return
    if not answers_apart(model, inputs, run.samples.read("logits", rows)) <= TOLERANCE:
        raise MismatchError(
            "The model at hand has the weights that the store was made with and gives other answers for its "
            "samples: another forward pass, activation or scale. Give the same model."
        )


@dataclass(frozen=True)
class Subject:
    """A model on its device, and the data set of a run; signals come as pictures one pixel high."""

    run: Run
    model: nn.Module
    data: AuditData
    device: torch.device

    @classmethod
    def of(cls, run: Run, model: nn.Module, dataset: object, device: str | torch.device) -> Subject:
        """Checked by the model's digest and answers, and by the samples' ids.

        Raises:
            BadModel: it is in training mode, compiled, scripted or spread over devices.
            MismatchError: one of them differs from the store's.
            SpaceError: memory does not suffice for one image.
        """
        check_model(model)  # before any pass: in training mode a pass changes the model
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
        if len(rows := asked(run)):
            with enough_memory(no_image_fits(subject.device)):
                refuse_other_answers(
                    run, subject.model, rows, channels_last(subject.read(rows).to(subject.device))
                )
        return subject

    @cached_property
    def _digests(self) -> Int[np.ndarray, " n"]:
        """Of all samples: eight bytes each, and read for every finding else."""
        values: Int[np.ndarray, " n"] = self.run.samples.read("digest")
        return values

    def read(self, rows: Int[np.ndarray, " n"]) -> Float[Tensor, "n ..."]:
        """Inputs by row number, each compared with the digest that was stored when it was attributed.

        Raises:
            MismatchError: an input has changed, or cannot be read any more.
        """
        inputs = [self._input(int(row)) for row in rows]
        for row, pixels, digest in zip(rows, inputs, self._digests[rows], strict=True):
            if input_digest(pixels) != digest:
                raise MismatchError(
                    f"Sample {self.data.ids[row]!r} has other pixels than when it was attributed. "
                    "Give the same data with the same preprocessing (no random augmentation)."
                )
        return as_pictures(torch.stack(inputs))

    def _input(self, row: int) -> Float[Tensor, ...]:
        """One of them, before its digest is compared."""
        try:
            sample = self.data.sample(row)
        except Exception as error:  # whatever a stranger's loader raises
            if ran_out(error):
                raise
            raise MismatchError(
                f"Sample {self.data.ids[row]!r} was read when it was attributed and cannot be read now ({error}). Put "
                "it back as it was, or attribute the data set as it is now, to a new store."
            ) from error
        return sample.input.float()
