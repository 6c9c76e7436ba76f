"""Where the relevance of each sample went: what biases, stabilisers and learned tokens took on the way down."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from spray.engine.strides import in_memory_order, is_channels_last


def precise(device: torch.device) -> torch.dtype:
    """The type that sums are held in: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


class Ledger:
    """Relevance that does not arrive at the input, per sample and by who took it.

    Tensors are booked with the samples along their first dimension, or several rows per sample (windows,
    tokens), the rows of one sample together.
    """

    KINDS = ("bias", "epsilon", "tokens")

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.open()

    def open(self, *, last: bool = False) -> None:
        """Start the books of another backward pass; of the last one's calls nothing need be kept once it is used."""
        self.last = last
        self._taken: dict[str, Tensor] = {}

    def book(self, kind: str, taken: Float[Tensor, " n"]) -> None:
        """Relevance taken from each sample by something of that kind."""
        taken = taken.to(precise(taken.device))
        self._taken[kind] = self._taken[kind] + taken if kind in self._taken else taken

    def part(self, samples: int) -> Ledger:
        """Books of their own for some of the samples, to be entered here by ``gather``."""
        part = Ledger(samples)
        part.last = self.last
        return part

    def gather(self, parts: list[Ledger]) -> None:
        """Enter the books of parts, which together hold all samples in their order."""
        for kind in self.KINDS:
            booked = [part._taken[kind] for part in parts if kind in part._taken]
            if booked:
                none = booked[0].new_zeros(max(part.samples for part in parts))
                self.book(kind, torch.cat([part._taken.get(kind, none[: part.samples]) for part in parts]))

    def taken(self, kind: str) -> Float[Tensor, " n"]:
        """Relevance taken so far, float64, on the CPU."""
        return self._taken.get(kind, torch.zeros(self.samples)).cpu().double()

    def rows(self, values: Float[Tensor, "m ..."]) -> Float[Tensor, " n"]:
        """The sum of each sample."""
        if values.shape[0] == self.samples and not values.is_contiguous():
            return values.sum(tuple(range(1, values.ndim)))
        return values.reshape(self.samples, -1).sum(1)

    def products(self, a: Float[Tensor, "m ..."], b: Float[Tensor, "m ..."]) -> Float[Tensor, " n"]:
        """Σ a·b of each sample, without a temporary where the memory formats allow it."""
        if a.shape == b.shape:
            if is_channels_last(a) and is_channels_last(b):
                a, b = in_memory_order(a), in_memory_order(b)
            if a.is_contiguous() and b.is_contiguous():
                sums: Tensor = torch.linalg.vecdot(a.view(self.samples, -1), b.view(self.samples, -1))
                return sums
        return self.rows(a * b)
