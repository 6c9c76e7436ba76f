"""Affine corrections of a layer's output, as part of the model: inserted, folded, saved and found again.

A correction h′ = A·h + b over channels, the same at every place, is kept as two buffers of the layer and applied by
a forward hook. So module names stay as they are, LRP sees a convolution of size 1 (or a linear layer), and a state dict
says by its names alone where a correction is: nothing else is needed to load it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WEIGHT, BIAS = "correction_weight", "correction_bias"
APPLIED: dict[int, Callable[..., Tensor]] = {2: F.linear, 3: F.conv1d, 4: F.conv2d}
"""How a correction is applied, by how many axes its weight has."""
Weighted = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def insert(
    model: nn.Module,
    layer: str,
    matrix: Float[Tensor, "c c"],
    offset: Float[Tensor, " c"],
    *,
    behind: int,
) -> None:
    """Correct the output of a module from now on: h′ = matrix·h + offset, after corrections that are there already.

    Args:
        behind: how many axes of places are behind the channels: 2 in (n, c, y, x), 1 in (n, c, t); 0 where channels
            are the last axis.
    """
    module = model.get_submodule(layer)
    if hasattr(module, WEIGHT):
        before, shift = getattr(module, WEIGHT).reshape(matrix.shape), getattr(module, BIAS)
        matrix, offset = matrix @ before.to(matrix), matrix @ shift.to(matrix) + offset
    place = next(iter([*model.parameters(), *model.buffers()]), torch.zeros(()))
    _attach(module, matrix.reshape(*matrix.shape, *[1] * behind).to(place), offset.to(place))


def fold(model: nn.Module, layer: str, matrix: Float[Tensor, "c c"], offset: Float[Tensor, " c"]) -> bool:
    """Draw the correction into the layer's own weights, which is exact: A·(Wx + c) + b = (AW)x + (Ac + b).

    Returns:
        Whether it could be done: the layer is a convolution or linear, with a bias, its weights are its own, and
        no correction is inserted there.
    """
    module = model.get_submodule(layer)
    if (
        not isinstance(module, Weighted)
        or module.bias is None
        or hasattr(module, WEIGHT)
        or _shared(model, module)
    ):
        return False
    with torch.no_grad():
        weight, bias = module.weight.cpu().double(), module.bias.cpu().double()
        exact = matrix.to(weight)
        module.weight.copy_((exact @ weight.flatten(1)).view_as(weight))
        module.bias.copy_(exact @ bias + offset.to(bias))
    return True


def corrected_layers(model: nn.Module) -> list[str]:
    """Names of the modules whose output is corrected."""
    return [name for name, module in model.named_modules() if hasattr(module, WEIGHT)]


def without_corrections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a state dict that the uncorrected model has."""
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in (WEIGHT, BIAS)}


def prepare(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make room in a model for the corrections of a state dict, so that it can be loaded.

    Raises:
        ValueError: the state dict corrects a module that the model does not have, or holds half a correction.
    """
    for name, weight in state.items():
        layer, _, kind = name.rpartition(".")
        if kind != WEIGHT:
            continue
        known = dict(model.named_modules())
        bias = state.get(f"{layer}.{BIAS}")
        if layer not in known or bias is None or weight.ndim not in APPLIED or bias.shape != weight.shape[:1]:
            raise ValueError(
                f"it corrects the output of a module '{layer}' in a way that this model cannot take: it was made "
                "from another model."
            )
        if not hasattr(known[layer], WEIGHT):
            _attach(known[layer], torch.zeros_like(weight), torch.zeros_like(bias))


def _attach(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    hooked = hasattr(module, WEIGHT)
    module.register_buffer(WEIGHT, weight.contiguous())
    module.register_buffer(BIAS, bias.contiguous())
    if not hooked:
        module.register_forward_hook(_correct)


def _correct(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    weight, bias = getattr(module, WEIGHT), getattr(module, BIAS)
    return APPLIED[weight.ndim](output, weight, bias)


def _shared(model: nn.Module, module: nn.Module) -> bool:
    """Whether another module has the same parameters, or the module stands in two places."""
    own = {id(parameter) for parameter in module.parameters()}
    holders = [
        name
        for name, other in model.named_modules(remove_duplicate=False)
        if own & {id(parameter) for parameter in other.parameters(recurse=False)}
    ]
    return len(holders) > 1
