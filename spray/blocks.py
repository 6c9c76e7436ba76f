"""Samples in fixed blocks: read ahead by workers, unreadable ones set apart with their reason, padded to full size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spray.data import UNKNOWN_LABEL, AuditData, Sample

SEARCHED_FOR_A_SAMPLE = 1000


@dataclass(frozen=True)
class Block:
    """One compute block. Rows that failed, and the padding at the end, hold a copy of a readable input.

    The batch therefore always has the same size: a row's relevance depends on its own pixels only.
    """

    rows: Sequence[int]
    inputs: Float[Tensor, "block ..."]
    labels: Int[Tensor, " rows"]
    metadata: Sequence[Mapping[str, str | int | float]]
    failed: Mapping[int, str]


@dataclass(frozen=True)
class BlockReader:
    """Reads rows of a data set as blocks of one input shape.

    Args:
        filler: a readable input; takes the place of failed rows and of padding.
        classes: labels must lie below this number (or be −1, unknown).
    """

    data: AuditData
    size: int
    filler: Float[Tensor, ...]
    classes: int
    workers: int = 0

    def read(self, blocks: Sequence[list[int]], *, pin: bool = False) -> Iterator[Block]:
        """The blocks, in order; the next are read while one is computed (with ``workers`` > 0)."""
        loader = DataLoader(
            _Readable(self.data),
            batch_sampler=blocks,
            num_workers=self.workers,
            collate_fn=list,
            pin_memory=False,
            persistent_workers=False,
        )
        for rows, items in zip(blocks, loader, strict=True):
            block = self._block(rows, items)
            yield _pinned(block) if pin else block

    def _block(self, rows: Sequence[int], items: Sequence[Sample | str]) -> Block:
        inputs = repeated(self.filler, self.size)
        labels = torch.full((len(rows),), UNKNOWN_LABEL, dtype=torch.int64)
        metadata: list[Mapping[str, str | int | float]] = []
        failed = {}
        for place, (row, item) in enumerate(zip(rows, items, strict=True)):
            reason = item if isinstance(item, str) else self._refusal(item)
            metadata.append({} if isinstance(item, str) else item.metadata)
            if reason:
                failed[row] = reason
            elif not isinstance(item, str):
                inputs[place] = item.input
                labels[place] = item.label
        return Block(rows, inputs, labels, metadata, failed)

    def _refusal(self, sample: Sample) -> str | None:
        """Why a sample that could be read cannot be used."""
        if sample.input.shape != self.filler.shape:
            return f"input of shape {tuple(sample.input.shape)}, expected {tuple(self.filler.shape)}"
        if not torch.isfinite(sample.input).all():
            return "input holds NaN or infinity"
        if not UNKNOWN_LABEL <= sample.label < self.classes:
            return f"label {sample.label} out of range: the model has {self.classes} classes"
        return None


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
    """The first readable inputs of one shape, at most ``count``, from the start of the data set.

    Raises:
        ValueError: none of the first 1000 samples can be read; names the first reason.
    """
    readable = _Readable(data)
    found: list[Tensor] = []
    reason = "it has no samples"
    for row in range(min(len(data.ids), max(count, SEARCHED_FOR_A_SAMPLE))):
        item = readable[row]
        if isinstance(item, str):
            reason = f"{data.ids[row]}: {item}" if not found else reason
        elif torch.isfinite(item.input).all() and (not found or item.input.shape == found[0].shape):
            found.append(item.input)
        if len(found) == count or (found and row + 1 >= count):
            break
    if not found:
        raise ValueError(
            f"the data set has no readable sample among its first {SEARCHED_FOR_A_SAMPLE} ({reason})"
        )
    return torch.stack(found).float()


class _Readable(Dataset["Sample | str"]):
    """Items of the data set, or the reason why one cannot be had: a bad sample costs only itself."""

    def __init__(self, data: AuditData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.ids)

    def __getitem__(self, row: int) -> Sample | str:
        try:
            sample = self.data.sample(row)
        except (
            Exception
        ) as error:  # whatever a stranger's loader raises is this row's reason, never the run's end
            return f"{type(error).__name__}: {error}"[:500]
        if not sample.input.is_floating_point():
            return f"input of dtype {sample.input.dtype}, expected floating point"
        return sample


def _pinned(block: Block) -> Block:
    return Block(block.rows, block.inputs.pin_memory(), block.labels, block.metadata, block.failed)
