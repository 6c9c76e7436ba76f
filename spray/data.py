"""Data sets as the audit sees them: samples with an input, a label, an id and metadata."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Subset

UNKNOWN_LABEL = -1
Metadata = Mapping[str, Any]
"""By name: text and numbers as the data set declares them; ``MASK`` is where the object is."""
MASK = "mask"
"""The one entry that is declared as ``torch.Tensor``: not 0 where the object is, at the places of the input."""


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
        """Metadata that samples have: name to ``str``, ``int`` or ``float``; a ``mask`` of the object: ``Tensor``."""
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
    labels: Sequence[object] | None = None
    """Labels as far as they are known without reading a sample."""

    def sample(self, row: int) -> Sample:
        """Item ``row`` of the data set.

        Raises:
            TypeError: the item is neither an input nor an ``(input, label[, metadata])`` tuple.
        """
        item = self.dataset[row]
        parts = tuple(item) if isinstance(item, tuple | list) else (item,)
        if not 1 <= len(parts) <= 3:
            raise TypeError(f"item has {len(parts)} parts; expected input, (input, label) or with metadata")
        values = parts[0]
        if not isinstance(values, Tensor):
            raise TypeError(
                f"item holds {type(values).__name__}; expected a tensor. "
                "Give the data set the model's own preprocessing, ending in ToTensor and Normalize."
            )
        metadata = parts[2] if len(parts) == 3 else {}
        if not isinstance(metadata, Mapping):
            raise TypeError(
                f"item's third part is {type(metadata).__name__}; expected metadata, a dict by name"
            )
        return Sample(values, _class_index(parts[1]) if len(parts) > 1 else UNKNOWN_LABEL, metadata)


def as_audit_data(
    dataset: object,
    *,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> AuditData:
    """An ``AuditData`` from itself or from a map-style torch data set (``__len__`` and ``__getitem__``).

    What is not given comes from the data set's own attributes of these names, where it has them; a ``Subset``
    asks the data set that it is taken from. Ids are then paths relative to the root in torchvision's folders, and row
    numbers elsewhere; without class names the classes are numbered.

    Raises:
        TypeError: the data set cannot be indexed or has no length.
        ValueError: the number of ids differs from the number of samples, or names are given for a data set that
            brings its own.
    """
    given = {"classes": classes, "ids": ids, "mean": mean, "std": std}
    if isinstance(dataset, AuditData):
        if names := [name for name, value in given.items() if value is not None]:
            raise ValueError(
                f"{type(dataset).__name__} brings its own {' and '.join(names)}: set them there, not here."
            )
        return dataset
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"{type(dataset).__name__} is no map-style data set: it needs __len__ and __getitem__. "
            "An IterableDataset can be turned into a list first."
        )
    facts = {**_own_facts(dataset), **{name: value for name, value in given.items() if value is not None}}
    found = facts.get("ids", range(len(dataset)))
    if len(found) != len(dataset):
        raise ValueError(f"{len(found)} ids for {len(dataset)} samples; give one id per sample, in order.")
    return TorchData(
        cast("Sequence[object]", dataset),
        tuple(_class_name(name) for name in facts.get("classes", ())),
        [str(name) for name in found],
        facts.get("metadata", {}),
        _per_channel(facts.get("mean")),
        _per_channel(facts.get("std")),
        facts.get("targets"),
    )


def _own_facts(dataset: object) -> dict[str, Any]:
    """What a data set says about itself; methods of these names, as arrays have, say nothing."""
    if isinstance(dataset, Subset):
        facts = _own_facts(dataset.dataset)
        # As many as there are: an index may be negative, and so count from the end.
        count = (
            len(dataset.dataset)
            if isinstance(dataset.dataset, Sized)
            else 1 + max(dataset.indices, default=-1)
        )
        for name, default in (("ids", range(count)), ("targets", None)):
            if (values := facts.get(name, default)) is not None:
                facts[name] = [values[row] for row in dataset.indices]
        return facts
    names = ("classes", "ids", "targets", "metadata", "mean", "std")
    found = {name: getattr(dataset, name, None) for name in names}
    facts = {name: value for name, value in found.items() if value is not None and not callable(value)}
    if not isinstance(facts.get("metadata", {}), Mapping):
        del facts["metadata"]
    samples = getattr(dataset, "samples", None)
    if "ids" not in facts and isinstance(samples, list) and all(isinstance(part, tuple) for part in samples):
        facts["ids"] = [_relative(str(part[0]), str(getattr(dataset, "root", ""))) for part in samples]
    return facts


def _relative(path: str, root: str) -> str:
    """A path below root without it, so that ids do not tell where a copy of the data lies."""
    return Path(path).relative_to(root).as_posix() if root and Path(path).is_relative_to(root) else path


def _class_name(name: object) -> str:
    """A class name; torchvision's ImageNet has tuples of synonyms."""
    return ", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name)


def _per_channel(values: Any) -> tuple[float, ...] | None:
    return (
        None if values is None else tuple(torch.as_tensor(values, dtype=torch.float64).reshape(-1).tolist())
    )


def _class_index(label: Any) -> int:
    if label is None:
        return UNKNOWN_LABEL
    try:
        return operator.index(label)
    except TypeError:
        raise TypeError(f"label {label!r} is no class index; expected one integer per sample") from None


def known_label(data: AuditData, row: int) -> int:
    """The label of a sample that cannot be read, where the data set tells labels apart from samples."""
    labels = getattr(data, "labels", None)
    try:
        return UNKNOWN_LABEL if labels is None else _class_index(labels[row])
    except (TypeError, IndexError, KeyError):
        return UNKNOWN_LABEL


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
