"""Samples in fixed blocks: read ahead by workers, unreadable ones set apart with their reason, padded to full size."""

from __future__ import annotations

import operator
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spray.data import MASK, UNKNOWN_LABEL, AuditData, Metadata, Sample, input_digest, known_label

SEARCHED_FOR_A_SAMPLE = 1000
LONGEST_REASON = 500


@dataclass(frozen=True)
class Block:
    """One compute block. Rows that failed, and the padding at the end, hold a copy of a readable input.

    The batch therefore always has the same size: a row's relevance depends on its own pixels only. Failed rows
    keep their label and metadata, as far as these are known.
    """

    rows: Sequence[int]
    inputs: Float[Tensor, "block ..."]
    labels: Int[Tensor, " rows"]
    metadata: Sequence[Metadata]
    failed: Mapping[int, str]


@dataclass(frozen=True)
class BlockReader:
    """Reads rows of a data set as blocks of one input shape.

    Args:
        filler: a readable input; takes the place of failed rows and of padding.
        classes: labels must lie below this number (or be −1, unknown).
        workers: processes that read ahead; a block travels whole, so that samples need no file handle each.
    """

    data: AuditData
    size: int
    filler: Float[Tensor, ...]
    classes: int
    workers: int = 0

    def read(self, blocks: Sequence[Sequence[int]], *, pin: bool = False) -> Iterator[Block]:
        """The blocks, in order; the next are read while one is computed (with ``workers`` > 0)."""
        loader = DataLoader(
            _Blocks(self, blocks),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_serve_until_the_parent_ends,
        )
        for block in loader:
            yield replace(block, inputs=block.inputs.pin_memory()) if pin else block

    def block(self, rows: Sequence[int]) -> Block:
        """Some rows, at most ``size``."""
        inputs = repeated(self.filler, self.size)
        labels = torch.full((len(rows),), UNKNOWN_LABEL, dtype=torch.int64)
        metadata: list[Metadata] = []
        failed = {}
        for place, row in enumerate(rows):
            item = readable(self.data, row)
            if isinstance(item, str):
                failed[row] = item
                item = Sample(self.filler, known_label(self.data, row))
            elif reason := self._refusal(item):
                failed[row] = reason
                known = {name: value for name, value in item.metadata.items() if name != MASK}
                item = replace(item, metadata=known)
            if row not in failed:
                inputs[place] = item.input
            if item.label < self.classes:
                labels[place] = max(item.label, UNKNOWN_LABEL)
            metadata.append(item.metadata)
        return Block(rows, inputs, labels, metadata, failed)

    def _refusal(self, sample: Sample) -> str | None:
        """Why a sample that could be read cannot be used."""
        if sample.input.shape != self.filler.shape:
            return f"input of shape {tuple(sample.input.shape)}, expected {tuple(self.filler.shape)}"
        if not torch.isfinite(sample.input).all():
            return "input holds NaN or infinity"
        mask, places = sample.metadata.get(MASK), tuple(self.filler.shape[1:])
        if isinstance(mask, np.ndarray) and mask.shape != places:
            return f"mask of shape {mask.shape}, expected that of the input's places, {places}"
        if not UNKNOWN_LABEL <= sample.label < self.classes:
            if self.classes == 1:
                return (
                    f"label {sample.label} out of range: the model has one output z, beside which there is no other "
                    "class; wrap it in a model of two, (0, z)"
                )
            return f"label {sample.label} out of range: the model has {self.classes} classes"
        return None


class _Blocks(Dataset[Block]):
    """The blocks of a reader, by number."""

    def __init__(self, reader: BlockReader, blocks: Sequence[Sequence[int]]) -> None:
        self.reader, self.blocks = reader, blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Block:
        return self.reader.block(self.blocks[index])


def _serve_until_the_parent_ends(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: only the parent answers it, and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.excepthook = _unless_the_parent_went


def _unless_the_parent_went(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Tell what went wrong, but not that an interrupted parent let go of a block that was being handed to it.

    The thread of ``multiprocessing`` that hands blocks over reports so through ``sys.excepthook``.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def repeated(filler: Float[Tensor, ...], count: int) -> Float[Tensor, "count ..."]:
    """A block of copies of one input, laid out as all blocks are."""
    return channels_last(filler.expand(count, *filler.shape))


def channels_last(images: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """A copy with the channels of a pixel side by side, where it has pixels: convolutions on CPUs take half the time.

    Also with one channel, where ``contiguous(memory_format=…)`` sees nothing to do.
    """
    if images.ndim != 4:
        return images.contiguous()
    return torch.empty(
        images.shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
    ).copy_(images)


def first_inputs(data: AuditData, count: int) -> Float[Tensor, "n ..."]:
    """Readable inputs from the first ``count`` samples, those of the commonest shape; at least one, if from further on.

    Raises:
        ValueError: none of the first 1000 samples can be read; names the first reason.
    """
    found: dict[torch.Size, list[Tensor]] = {}
    reasons = []
    for row in range(min(len(data.ids), max(count, SEARCHED_FOR_A_SAMPLE))):
        item = readable(data, row)
        if isinstance(item, str):
            reasons.append(f"{data.ids[row]}: {item}")
        elif torch.isfinite(item.input).all():
            found.setdefault(item.input.shape, []).append(item.input)
        else:
            reasons.append(f"{data.ids[row]}: input holds NaN or infinity")
        if found and row + 1 >= count:
            break
    if not found:
        reason = reasons[0] if reasons else "it has no samples"
        raise ValueError(
            f"the data set has no readable sample among its first {SEARCHED_FOR_A_SAMPLE} ({reason})"
        )
    return torch.stack(max(found.values(), key=len)).float()


def readable(data: AuditData, row: int) -> Sample | str:
    """Sample ``row``, or the reason why it cannot be had: a bad sample costs only itself."""
    try:
        sample = data.sample(row)
        return _unfit(sample.input) or replace(sample, metadata=_typed(sample.metadata, data.metadata))
    except (Exception, SystemExit) as error:
        # Whatever a stranger's loader raises is this row's reason, never the run's end.
        # Addresses in messages differ from run to run, and what is stored must not.
        return re.sub(r"\b0x[0-9a-fA-F]+", "0x…", _told(error))[:LONGEST_REASON]


def _unfit(values: Tensor) -> str | None:
    """Why a tensor is none that a model of pictures, signals or features takes."""
    if values.is_nested or values.layout != torch.strided:
        kind = "nested" if values.is_nested else str(values.layout).removeprefix("torch.")
        return f"input of layout {kind}, expected a dense tensor"
    if values.device.type == "meta":
        return "input on the device meta, which has no values"
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        return f"input of dtype {kind}, expected floating point as the model takes it (ToTensor, Normalize)"
    return None


def _told(error: BaseException) -> str:
    """An error in words; also one that fails to say what it is."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}, whose message cannot be read"


def pixel_digests(data: AuditData, rows: Sequence[int]) -> dict[int, int]:
    """The digest of each readable input, by row."""
    items = {row: readable(data, row) for row in rows}
    return {row: input_digest(item.input) for row, item in items.items() if not isinstance(item, str)}


def _int64(value: Any) -> int:
    number = operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _mask(value: Any) -> np.ndarray:
    """As an array, which is sent between processes without a file handle."""
    return np.asarray(torch.as_tensor(value).cpu() != 0)


_KINDS: dict[type, Callable[[Any], Any]] = {str: str, int: _int64, float: float, Tensor: _mask}


def _typed(metadata: Metadata, kinds: Mapping[str, type]) -> Metadata:
    """The declared entries of a sample's metadata, each of its declared type."""
    typed = {}
    for name in kinds.keys() & metadata.keys():
        if kinds[name] is Tensor and metadata[name] is None:
            continue  # no mask
        try:
            typed[name] = _KINDS[kinds[name]](metadata[name])
        except (TypeError, ValueError):
            expected = "a 64-bit int" if kinds[name] is int else kinds[name].__name__
            raise TypeError(f"metadata '{name}' is {metadata[name]!r}, expected {expected}") from None
    return typed
