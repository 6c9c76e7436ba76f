"""What an audit keeps of each sample: computed blocks as columns of the store's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spray.attribution.display import Display
from spray.attribution.pooling import MapLayout
from spray.blocks import Block
from spray.data import MASK, AuditData, input_digest
from spray.engine import Explanation
from spray.engine.errors import BadInput
from stores import Column, sample_columns

Columns = dict[str, "np.ndarray | list[str]"]
DTYPES = {str: "str", int: "int64", float: "float64"}
ABSENT: dict[type, str | int | float] = {str: "", int: -1, float: float("nan")}
"""What stands for a metadata entry that a sample does not have."""


def refuse_unknown_kinds(metadata: Mapping[str, type]) -> None:
    """Refuse metadata that no column can hold.

    Raises:
        BadInput: an entry is declared to be of another type than text or number, and is no mask.
    """
    others = [
        name for name, kind in metadata.items() if kind not in DTYPES and (name, kind) != (MASK, Tensor)
    ]
    if others:
        kind = metadata[others[0]]
        raise BadInput(
            f"metadata '{others[0]}' is declared as {getattr(kind, '__name__', kind)}; use str, int or float "
            "(a truth value as int: 0 or 1), and torch.Tensor for 'mask' alone."
        )


@dataclass(frozen=True)
class Layer:
    """A module whose output's relevance is kept; ``last`` says that four-axis outputs have channels last."""

    name: str
    last: bool = False

    @classmethod
    def parse(cls, text: str) -> Layer:
        """From ``NAME`` or ``NAME@last``."""
        name, _, suffix = text.partition("@")
        if suffix not in ("", "last"):
            raise BadInput(f"layer '{text}': after @ only 'last' (channels are the last axis) is known.")
        if name == "input":
            raise BadInput(
                "a module called 'input' would take the place of the model's input: name a neighbour."
            )
        return cls(name, suffix == "last")


@dataclass(frozen=True)
class SampleRecord:
    """Columns of the table ``samples``."""

    data: AuditData
    display: Display
    thumbnails: int
    grid: int

    def columns(self, block: Block, logits: Float[Tensor, "rows classes"]) -> Columns:
        """One block's ids, labels, predictions, logits, pixel digests, pictures, masks and metadata."""
        inputs = block.inputs[: len(block.rows)]
        columns: Columns = {
            "id": [self.data.ids[row] for row in block.rows],
            "label": block.labels.numpy(),
            "prediction": logits.argmax(1).numpy(),
            "logits": logits.numpy(),
            "digest": np.array([input_digest(pixels) for pixels in inputs], np.int64),
        }
        if self.thumbnails and inputs.ndim in (3, 4):
            columns["thumbnail"] = self.display.pictures(inputs, self.thumbnails)
        if self._masked:
            columns[MASK] = object_shares([facts.get(MASK) for facts in block.metadata], inputs[0], self.grid)
        for name, kind in self._written.items():
            values = [kind(facts.get(name, ABSENT[kind])) for facts in block.metadata]
            columns[f"meta.{name}"] = values if kind is str else np.array(values, DTYPES[kind])
        return columns

    def declaration(self, filler: Float[Tensor, ...], classes: int) -> list[Column]:
        """The columns' types, for inputs like ``filler``."""
        pictured = self.thumbnails > 0 and filler.ndim in (2, 3)
        thumbnail = self.display.pictures(filler[None], self.thumbnails).shape[1:] if pictured else None
        metadata = {name: DTYPES[kind] for name, kind in self._written.items()}
        mask = None
        if self._masked:
            if filler.ndim not in (2, 3):
                raise BadInput(
                    f"masks tell where an object is, and an input of shape {tuple(filler.shape)} is no picture."
                )
            mask = object_shares([None], filler, self.grid).shape[1:]
        declared = sample_columns(classes, thumbnail=thumbnail, mask=mask, metadata=metadata)
        return [*declared, Column("digest", "int64")]

    @property
    def _masked(self) -> bool:
        """Whether the samples say where the object is."""
        return self.data.metadata.get(MASK) is Tensor

    @property
    def _written(self) -> dict[str, type]:
        """The metadata that is text or numbers."""
        return {name: kind for name, kind in self.data.metadata.items() if kind in DTYPES}


def object_shares(
    masks: Sequence[Bool[np.ndarray, ...] | None], filler: Float[Tensor, "c ..."], grid: int
) -> Float[np.ndarray, "n y x"]:
    """Which share of each cell of the pooled maps is the object; NaN where there is no mask."""
    places = filler.shape[1:]
    given = [
        np.full(places, np.nan, np.float32) if mask is None else mask.astype(np.float32) for mask in masks
    ]
    known = torch.from_numpy(np.stack([*given, np.ones(places, np.float32)]))
    pooled = MapLayout().by_place(known.unsqueeze(1), grid)
    shares: Float[np.ndarray, "n ..."] = (pooled[:-1] / pooled[-1]).numpy()
    return shares[:, None] if shares.ndim == 2 else shares  # of signals, which are pictures one cell high


@dataclass(frozen=True)
class RelevanceRecord:
    """Columns of a relevance table."""

    layers: Sequence[Layer]
    grid: int
    full: bool

    def columns(self, explanation: Explanation, count: int) -> dict[str, np.ndarray]:
        """Pooled (and full) input maps, layer relevance by channel and by place, targets and the engine's checks."""
        maps = explanation.relevance[:count].float()
        signal = maps.ndim == 3  # its maps by place are one cell high, and so pictures like others
        columns = {"input.place": MapLayout().by_place(maps, self.grid)}
        if self.full:
            columns["input.full"] = maps
        for layer in self.layers:
            values = explanation.layers[layer.name][:count].float()
            # Three axes in a model of images are (n, token, channel); in a model of signals (n, channel, time).
            tokens = values.ndim == 3 and not signal
            layout = MapLayout(-1 if layer.last or tokens else 1)
            columns[f"{layer.name}.channel"] = layout.by_channel(values)
            if values.ndim > 2:
                columns[f"{layer.name}.place"] = layout.by_place(values, self.grid)
        if signal:
            columns |= {
                name: maps.unsqueeze(1)
                for name, maps in columns.items()
                if name.endswith(".place") and maps.ndim == 2
            }
        arrays = {name: values.cpu().numpy() for name, values in columns.items()}
        arrays["target"] = explanation.targets[:count].cpu().numpy().astype(np.int64)
        return arrays | {
            name: values[:count].double().cpu().numpy() for name, values in explanation.checks.items()
        }

    def declaration(self, probe: Explanation) -> list[Column]:
        """The columns' types, as found in one explanation."""
        declared = []
        for name, values in self.columns(probe, 1).items():
            shape = values.shape[1:]
            axes = _axes(name, len(shape))
            encoding: Literal["scaled_float16", "plain"] = "plain"
            if name == "input.full":
                encoding = "scaled_float16"
            declared.append(Column(name, str(values.dtype), shape, axes, encoding))
        return declared


def _axes(name: str, ndim: int) -> tuple[str, ...]:
    """Names of a relevance column's axes: feature vectors, token rows, pictures and signals (y, x), volumes."""
    if ndim == 0:
        return ()
    if name.endswith(".channel"):
        return ("channel",)
    if name == "input.full":
        return ("channel", *("z", "y", "x")[4 - ndim :]) if ndim > 1 else ("feature",)
    if ndim == 1:
        return ("feature",) if name == "input.place" else ("token",)
    return ("z", "y", "x")[3 - ndim :]
