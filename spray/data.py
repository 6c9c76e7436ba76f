"""Data sets as the audit sees them: samples with an input, a label, an id and metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

UNKNOWN_LABEL = -1
Metadata = Mapping[str, "str | int | float"]


@dataclass(frozen=True)
class Sample:
    """One sample as the model sees it: the preprocessed input, its class index (−1: unknown) and metadata."""

    input: Float[Tensor, ...]
    label: int = UNKNOWN_LABEL
    metadata: Metadata = field(default_factory=dict)


@runtime_checkable
class AuditData(Protocol):
    """What an audit needs of a data set. ``as_audit_data`` makes one from any map-style torch data set."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names, by index; empty: the classes are numbered."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """One id per sample, in order; any text, also repeated."""
        ...

    @property
    def metadata(self) -> Mapping[str, type]:
        """Metadata columns that samples have: name to ``str``, ``int`` or ``float``."""
        ...

    @property
    def mean(self) -> Sequence[float] | None:
        """Per-channel mean of the normalisation, where known, to show an input as a picture."""
        ...

    @property
    def std(self) -> Sequence[float] | None:
        """Per-channel standard deviation of the normalisation."""
        ...

    def sample(self, row: int) -> Sample:
        """Sample ``row``; raises where it cannot be read (the row is then recorded as failed)."""
        ...


@dataclass(frozen=True)
class TorchData:
    """A map-style torch data set of ``(input, label)`` pairs or plain inputs, ready for an audit."""

    dataset: Sequence[object]
    classes: Sequence[str]
    ids: Sequence[str]
    metadata: Mapping[str, type] = field(default_factory=dict)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def sample(self, row: int) -> Sample:
        """Item ``row`` of the data set.

        Raises:
            TypeError: the item is neither an input nor an ``(input, label[, metadata])`` tuple.
        """
        item = self.dataset[row]
        values = item if isinstance(item, tuple | list) else (item,)
        if not values or len(values) > 3:
            raise TypeError(
                f"item {row} has {len(values)} parts; expected input, (input, label) or with metadata"
            )
        if not isinstance(values[0], Tensor):
            raise TypeError(
                f"item {row} holds {type(values[0]).__name__}; expected a tensor. "
                "Give the data set the model's own preprocessing, ending in ToTensor and Normalize."
            )
        label = int(values[1]) if len(values) > 1 else UNKNOWN_LABEL
        return Sample(values[0], label, cast(Metadata, values[2]) if len(values) > 2 else {})


def as_audit_data(
    dataset: object,
    *,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> AuditData:
    """An ``AuditData`` from itself or from a map-style torch data set (``__len__`` and ``__getitem__``).

    Class names come from ``classes``, else from the data set's own ``classes``, else from the labels that
    its ``targets`` hold, else the classes are numbered when the model's logits are known. Ids come from
    ``ids``, else from the data set's ``ids`` or ``samples`` (torchvision's folders), else they are row
    numbers.

    Raises:
        TypeError: the data set cannot be indexed or has no length.
        ValueError: the number of ids differs from the number of samples.
    """
    if isinstance(dataset, AuditData):
        return dataset
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"{type(dataset).__name__} is no map-style data set: it needs __len__ and __getitem__. "
            "An IterableDataset can be turned into a list first."
        )
    names = classes if classes is not None else getattr(dataset, "classes", None) or ()
    found = ids if ids is not None else _own_ids(dataset)
    if len(found) != len(dataset):
        raise ValueError(f"{len(found)} ids for {len(dataset)} samples; give one id per sample, in order.")
    metadata = getattr(dataset, "metadata", {})
    return TorchData(
        cast("Sequence[object]", dataset),
        tuple(str(name) for name in names),
        found,
        metadata if isinstance(metadata, Mapping) else {},
        mean if mean is not None else getattr(dataset, "mean", None),
        std if std is not None else getattr(dataset, "std", None),
    )


def _own_ids(dataset: Sized) -> Sequence[str]:
    ids = getattr(dataset, "ids", None)
    if ids is not None:
        return [str(name) for name in ids]
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, list) and all(isinstance(entry, tuple) for entry in samples):
        return [str(entry[0]) for entry in samples]
    return [str(row) for row in range(len(dataset))]


def data_digest(data: AuditData) -> str:
    """SHA-256 over class names and ids, in order: says which samples, not what is in them."""
    digest = hashlib.sha256()
    for part in (data.classes, data.ids):
        digest.update(f"{len(part)};".encode())
        for text in part:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(raw)}:".encode() + raw)
    return digest.hexdigest()


def input_digest(inputs: Float[Tensor, ...]) -> int:
    """CRC-32C of one input's float32 bytes: tells on a later visit whether the pixels are still the same."""
    import google_crc32c

    return int(google_crc32c.value(inputs.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()))
