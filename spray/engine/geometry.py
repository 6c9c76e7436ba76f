"""The linear map of a weighted layer and its transpose, for any weight of that shape.

Rules run one layer with several weights (W, W⁺, |W|, W², 1): a geometry is the layer without its weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class Geometry(Protocol):
    """How values of the input meet weights: ``forward`` is x ↦ Wx + b, ``adjoint`` is r ↦ Wᵀr."""

    @property
    def channel_dim(self) -> int:
        """The dimension that holds the channels (features) of the output."""

    @property
    def input_dim(self) -> int | None:
        """The dimension that holds the channels (features) of the input, None where there is no one such."""

    @property
    def per_sample(self) -> bool:
        """Whether each sample meets weights of its own."""

    def forward(
        self, x: Float[Tensor, "n ..."], weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "n ..."]:
        """Wx + b."""

    def adjoint(self, r: Float[Tensor, "n ..."], weight: Tensor, like: Tensor) -> Float[Tensor, "n ..."]:
        """Wᵀr, shaped like ``like``."""

    def outputs(self, weight: Tensor) -> int:
        """The number of output channels."""

    def scale_outputs(self, weight: Tensor, scale: Float[Tensor, " o"]) -> Tensor:
        """The weight with every output channel multiplied by its scale."""

    def single_channel(self, weight: Tensor) -> tuple[Geometry, Tensor]:
        """The same reach with one channel per group, and a weight of ones for it."""

    def sum_channels(self, values: Float[Tensor, "n ..."]) -> Tensor:
        """Output values summed over the channels of each group."""

    def one_per_group(self, x: Float[Tensor, "n ..."]) -> Tensor:
        """The input with one channel per group, in shape only."""

    def spread(self, values: Tensor, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """One channel per group repeated over the input channels of the group."""


@dataclass(frozen=True)
class Linear:
    """x ↦ x Wᵀ over the last dimension; W is (out, in)."""

    channel_dim: ClassVar[int] = -1
    input_dim: ClassVar[int] = -1
    per_sample: ClassVar[bool] = False

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Wx + b."""
        return F.linear(x, weight, bias)

    def adjoint(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Wᵀr."""
        return r @ weight

    def outputs(self, weight: Tensor) -> int:
        """The number of output features."""
        return weight.shape[0]

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Every output channel of W multiplied by its scale."""
        return weight * scale[:, None]

    def single_channel(self, weight: Tensor) -> tuple[Geometry, Tensor]:
        """One channel per group, and ones."""
        return self, weight.new_ones(1, 1)

    def sum_channels(self, values: Tensor) -> Tensor:
        """Output values summed over the channels of each group."""
        return values.sum(-1, keepdim=True)

    def one_per_group(self, x: Tensor) -> Tensor:
        """One input channel per group, in shape only."""
        return x[..., :1]

    def spread(self, values: Tensor, x: Tensor) -> Tensor:
        """One channel per group repeated over the input channels of the group."""
        return values.expand_as(x)


@dataclass(frozen=True)
class Product:
    """x ↦ f(x, W), linear in both: a ``matmul`` or ``einsum`` with a constant, W as the model has it."""

    function: Callable[[Tensor, Tensor], Tensor]
    channel_dim: int = -1
    weight_dim: int | None = None
    """The dimension of W that makes the channels of the output, None where none does alone."""
    input_dim: int | None = None
    per_sample: bool = False

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """f(x, W) + b."""
        out = self.function(x, weight)
        if bias is None:
            return out
        shape = [1] * out.ndim
        shape[self.channel_dim] = -1
        return out + bias.view(shape)

    def adjoint(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Wᵀr."""
        with torch.enable_grad():
            x = like.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.function(x, weight), x, r)
        return gradient

    def outputs(self, weight: Tensor) -> int:
        """The number of output channels, 1 where W has no dimension of theirs."""
        return 1 if self.weight_dim is None else weight.shape[self.weight_dim]

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Every output channel of W multiplied by its scale."""
        shape = [1] * weight.ndim
        if self.weight_dim is not None:
            shape[self.weight_dim] = -1
        return weight * scale.view(shape)

    def single_channel(self, weight: Tensor) -> tuple[Geometry, Tensor]:
        """The product itself, with ones: which channels meet is known to f alone."""
        return self, torch.ones_like(weight)

    def sum_channels(self, values: Tensor) -> Tensor:
        """Every channel is a group of its own."""
        return values

    def one_per_group(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x

    def spread(self, values: Tensor, x: Tensor) -> Tensor:
        """The values themselves."""
        return values


@dataclass(frozen=True)
class Convolution:
    """Convolution of 1 to 3 dimensions, or its transpose; the weight as torch keeps it."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    channel_dim: ClassVar[int] = 1
    input_dim: ClassVar[int] = 1
    per_sample: ClassVar[bool] = False
    one_sided: tuple[int, ...] = ()
    """Further zero padding as ``F.pad`` takes it, for the odd row that padding='same' needs at one end."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Wx + b."""
        if self._by_matrix(x, weight):
            return _product(x, weight.flatten(1).T, bias)
        return torch.convolution(
            F.pad(x, self.one_sided) if self.one_sided else x,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self._output_padding,
            self.groups,
        )

    def adjoint(self, r: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Wᵀr."""
        if self._by_matrix(r, weight):
            return _product(r, weight.flatten(1), None)
        gradient: Tensor = torch.ops.aten.convolution_backward(
            r,
            F.pad(like, self.one_sided) if self.one_sided else like,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self._output_padding,
            self.groups,
            (True, False, False),
        )[0]
        return F.pad(gradient, [-end for end in self.one_sided]) if self.one_sided else gradient

    def outputs(self, weight: Tensor) -> int:
        """The number of output channels."""
        return weight.shape[1] * self.groups if self.transposed else weight.shape[0]

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Every output channel of W multiplied by its scale."""
        tail = [1] * len(self.stride)
        if not self.transposed:
            return weight * scale.view(-1, 1, *tail)
        per_group = scale.view(self.groups, 1, -1, *tail)
        scaled: Tensor = weight.unflatten(0, (self.groups, -1)) * per_group
        return scaled.flatten(0, 1)

    def single_channel(self, weight: Tensor) -> tuple[Geometry, Tensor]:
        """One channel per group, and ones."""
        return replace(self), weight.new_ones(self.groups, 1, *weight.shape[2:])

    def sum_channels(self, values: Tensor) -> Tensor:
        """Output values summed over the channels of each group."""
        if self.groups == 1:
            return values.sum(1, keepdim=True)
        grouped: Tensor = values.unflatten(1, (self.groups, -1))
        return grouped.sum(2)

    def one_per_group(self, x: Tensor) -> Tensor:
        """One input channel per group, in shape only."""
        return x[:, : self.groups]

    def spread(self, values: Tensor, x: Tensor) -> Tensor:
        """One channel per group repeated over the input channels of the group."""
        if self.groups == 1:
            return values.expand_as(x)
        return values.repeat_interleave(x.shape[1] // self.groups, dim=1)

    def _by_matrix(self, x: Tensor, weight: Tensor) -> bool:
        """Whether it is a product with one matrix, values of a place side by side: there faster than a convolution."""
        return (
            x.device.type == "cpu"
            and weight.shape[2:] == (1, 1)
            and self.stride == (1, 1)
            and self.padding == (0, 0)
            and self.groups == 1
            and not self.transposed
            and x.is_contiguous(memory_format=torch.channels_last)
        )

    @property
    def _output_padding(self) -> tuple[int, ...]:
        return self.output_padding or (0,) * len(self.stride)


def _product(x: Float[Tensor, "n i h w"], matrix: Float[Tensor, "i o"], bias: Tensor | None) -> Tensor:
    """The channels of every place times a matrix, into a tensor of its own (no view, so that it may be overwritten)."""
    shape = (x.shape[0], matrix.shape[1], *x.shape[2:])
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    into = out.permute(0, 2, 3, 1).view(-1, matrix.shape[1])
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    if bias is None:
        torch.mm(rows, matrix, out=into)
    else:
        torch.addmm(bias, rows, matrix, out=into)
    return out
