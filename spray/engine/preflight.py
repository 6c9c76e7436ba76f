"""What is looked at before a pass: the model's state, the inputs, the targets. Bad ones are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from spray.engine.errors import BadInput, BadModel, few


@dataclass(frozen=True)
class Ranked:
    """A target: the class at this rank of each sample's logits, 0 for the predicted one."""

    rank: int


ByLogits = Callable[[Tensor], Tensor]
"""A target that the logits decide: from (n, classes) to one class per sample."""

_RANDOM = ("Dropout", "StochasticDepth", "DropPath", "DropBlock")


def check_model(model: nn.Module) -> None:
    """Refuse a model whose passes would not be those of the deployed one.

    Raises:
        BadModel: a part is in training mode, compiled, scripted or spread over devices; weights are half
        precision.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise BadModel(
            f"the model is wrapped in {type(model).__name__}. Pass the model inside: model.module."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise BadModel(
            "the model is scripted, which hides its operations. Pass the eager model it was made from."
        )
    if hasattr(model, "_orig_mod"):
        raise BadModel(
            "the model is compiled, which hides its operations. Pass the original: model._orig_mod."
        )
    for name, module in model.named_modules():
        kind = type(module).__name__
        random = kind.startswith(_RANDOM) and getattr(module, "p", 1.0) != 0
        if module.training and (random or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            raise BadModel(
                f"module '{name}' ({kind}) is in training mode, so two passes differ and samples mix. "
                "Call model.eval() first."
            )


def check_weights(model: nn.Module) -> None:
    """Refuse weights that make every map meaningless.

    Raises:
        BadModel: a parameter or buffer holds NaN or infinity, or is half precision.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point():
            continue
        if tensor.dtype not in (torch.float32, torch.float64):
            raise BadModel(
                f"'{name}' is {tensor.dtype}; relevance needs float32 or float64, since quotients of small numbers "
                "lose all digits in half precision. Call model.float() on a copy."
            )
        # A finite sum proves all entries finite in one pass; only a suspicious one is looked at closely.
        if not torch.isfinite(tensor.detach().sum()) and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise BadModel(
                f"'{name}' holds {bad} NaN or infinite values of {tensor.numel()}, so every map would be "
                "meaningless. Load the weights again, or train with gradient clipping."
            )


def check_inputs(inputs: Float[Tensor, "n ..."], model: nn.Module) -> None:
    """Refuse inputs that cannot give a map.

    Raises:
        BadInput: no samples, neither floating point nor tokens (int32, int64), another precision or device than the
            model, NaN or infinity
            (``rows`` lists the samples).
    """
    if not isinstance(inputs, Tensor):
        raise BadInput(
            f"inputs are {type(inputs).__name__}, but a torch tensor with samples first is needed."
        )
    if inputs.ndim < 2 or inputs.shape[0] == 0:
        raise BadInput(
            f"inputs have shape {tuple(inputs.shape)}, but at least one sample and its values are needed, samples "
            "along the first dimension. For one image: image[None]."
        )
    tokens = inputs.dtype in (torch.int32, torch.int64)
    if not tokens and inputs.dtype not in (torch.float32, torch.float64):
        raise BadInput(f"inputs are {inputs.dtype}, but float32 or float64 is needed. Call inputs.float().")
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is not None and weight.device != inputs.device:
        raise BadInput(
            f"inputs are on {inputs.device}, the model is on {weight.device}. Move one to the other."
        )
    if tokens:
        return
    if weight is not None and weight.dtype != inputs.dtype:
        raise BadInput(
            f"inputs are {inputs.dtype}, the model is {weight.dtype}. Use inputs.to({weight.dtype})."
        )
    if not torch.isfinite(inputs.sum()):
        finite = torch.isfinite(inputs).flatten(1).all(1)
        rows = tuple(torch.nonzero(~finite).flatten().tolist())
        if rows:
            raise BadInput(
                f"{len(rows)} of {inputs.shape[0]} samples hold NaN or infinite values (rows {few(rows)}). "
                "Leave them out or repair them.",
                rows,
            )


def check_logits(logits: object, samples: int) -> Tensor:
    """The model's output, if it can be explained.

    Raises:
        BadModel: it is no tensor of (samples, classes).
        BadInput: it is NaN or infinite for some samples, though weights and inputs are finite (``rows``).
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != samples:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise BadModel(
            f"the model returned {got}, but a tensor of ({samples}, classes) is needed. Wrap the model in a module "
            "whose forward returns the logits."
        )
    finite = torch.isfinite(logits.detach()).all(1)
    if not finite.all():
        rows = tuple(torch.nonzero(~finite).flatten().tolist())
        raise BadInput(
            f"the model's output is NaN or infinite for {len(rows)} samples (rows {few(rows)}).", rows
        )
    return logits


def check_targets(
    targets: Tensor | int | Ranked | ByLogits | None, logits: Float[Tensor, "n classes"]
) -> Tensor:
    """One class per sample, int64; None means the predicted ones.

    Raises:
        BadInput: not one integer per sample, or out of range (``rows`` lists the samples).
    """
    samples, classes = logits.shape
    if targets is None:
        return logits.detach().argmax(1)
    if isinstance(targets, Ranked):
        if not 0 <= targets.rank < classes:
            raise BadInput(
                f"rank {targets.rank} is not among the ranks 0 to {classes - 1} of {classes} classes."
            )
        return logits.detach().argsort(dim=1, descending=True, stable=True)[:, targets.rank]
    if isinstance(targets, int | np.integer) and not isinstance(targets, bool):
        chosen = torch.full((samples,), int(targets), device=logits.device)
    else:
        given = targets if isinstance(targets, Tensor) or not callable(targets) else targets(logits.detach())
        try:
            chosen = torch.as_tensor(given, device=logits.device)
        except (TypeError, ValueError, RuntimeError):
            raise BadInput(
                f"targets are {given!r}, but integer classes are needed: one for all, one for each of {samples} "
                "samples, Ranked(k), a function of the logits, or None for the predicted."
            ) from None
        if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.shape != (samples,):
            raise BadInput(
                f"targets are {chosen.dtype} of shape {tuple(chosen.shape)}, but one integer class for each of "
                f"{samples} samples is needed."
            )
    outside = (chosen < 0) | (chosen >= classes)
    if outside.any():
        rows = tuple(torch.nonzero(outside).flatten().tolist())
        raise BadInput(
            f"target {int(chosen[rows[0]])} of row {rows[0]} is not among the model's classes 0 to {classes - 1} "
            f"({len(rows)} such rows). Is the data set labelled for another model?",
            rows,
        )
    return chosen.long()


def check_relevance(relevance: object, inputs: Tensor, method: str) -> None:
    """Refuse what a foreign method returns unless it is a map of the inputs.

    Raises:
        BadInput: not a finite tensor shaped like the inputs (``rows`` lists the samples that are not finite).
    """
    if not isinstance(relevance, Tensor) or relevance.shape != inputs.shape:
        got = f"shape {tuple(relevance.shape)}" if isinstance(relevance, Tensor) else type(relevance).__name__
        raise BadInput(
            f"{method} returned {got}, but a map shaped like the inputs {tuple(inputs.shape)} is needed."
        )
    rows = tuple(torch.nonzero(~torch.isfinite(relevance).flatten(1).all(1)).flatten().tolist())
    if rows:
        raise BadInput(f"{method} returned NaN or infinity for {len(rows)} samples (rows {few(rows)}).", rows)


def check_layers(layers: tuple[str, ...], model: nn.Module) -> None:
    """Refuse names that are no modules of the model.

    Raises:
        BadInput: a name is unknown; the message suggests near ones.
    """
    names = [name for name, _ in model.named_modules() if name]
    for layer in layers:
        if layer not in names:
            from difflib import get_close_matches

            near = get_close_matches(layer, names, n=3, cutoff=0.4) or names[:5]
            raise BadInput(f"the model has no module '{layer}'. Near names: {', '.join(near)}.")
