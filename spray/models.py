"""Models: loading by spec, and what says whether two are the same: the digest of weights, and answers."""

from __future__ import annotations

import hashlib
import pickle
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from spray import insertion
from spray.loading import SpecError, call

TORCHVISION = "torchvision:"
AUXILIARY = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
"""Models with auxiliary heads, and the prefix of their names: a state dict has them or not."""


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """The model that a spec names, in evaluation mode, on the CPU.

    Args:
        spec: ``torchvision:NAME`` (a classifier; with torchvision's own weights, downloaded, unless ``weights`` is
            given), ``FILE.py:FUNCTION`` or ``PACKAGE.MODULE:FUNCTION``; the function takes no argument and
            returns an ``nn.Module``.
        weights: a state dict written by ``torch.save``, read with ``weights_only=True``. Its shapes decide
            the number of classes of a torchvision model. Those of ``spray correct`` bring their corrections along.

    Raises:
        SpecError: the spec or the weights do not fit; the message says what to change.
    """
    state = None if weights is None else _load_state(weights)
    if spec.startswith(TORCHVISION):
        plain = None if state is None else insertion.without_corrections(state)
        model = _torchvision_model(spec.removeprefix(TORCHVISION), plain)
    else:
        model = call(spec)
        if not isinstance(model, nn.Module):
            raise SpecError(
                f"'{spec}' returned {type(model).__name__}; expected a torch.nn.Module. "
                "Return the model itself, not its output or its state dict."
            )
    if state is not None:
        try:
            insertion.prepare(model, state)
            model.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise SpecError(
                f"The weights in {weights} do not fit the model '{spec}': {str(error)[:1000]}"
            ) from error
    return model.eval()


def _torchvision_model(name: str, state: dict[str, torch.Tensor] | None) -> nn.Module:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise SpecError(
            f"torchvision has no classifier '{name}'. "
            f"Near names: {', '.join(get_close_matches(name, names)) or ', '.join(names[:5])}."
        )
    if state is None:
        try:
            model = torchvision.models.get_model(name, weights="DEFAULT")
        except (URLError, TimeoutError) as error:
            raise SpecError(
                f"The weights of torchvision's '{name}' cannot be downloaded ({error}). Give a state dict of your "
                "own: --weights FILE.pt."
            ) from error
    else:
        model = torchvision.models.get_model(name, weights=None, **_options(name, state))
    assert isinstance(model, nn.Module)
    return model


def _options(name: str, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What a state dict tells about its model: all of torchvision's classifiers define their last matrix last."""
    options: dict[str, Any] = {}
    matrices = [tensor for key, tensor in state.items() if key.endswith("weight") and tensor.ndim >= 2]
    if matrices:
        options["num_classes"] = matrices[-1].shape[0]
    if name in AUXILIARY:
        heads = any(key.startswith(AUXILIARY[name]) for key in state)
        options |= {"aux_logits": heads, "init_weights": False}
    return options


def _load_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise SpecError(f"There are no weights at {path.resolve()}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise SpecError(
            f"{path} cannot be read as a state dict: it is damaged, or holds more than tensors, which is never run. "
            f"Write it with torch.save(model.state_dict(), path). ({str(error).partition('. ')[0][:300]})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        entries = f"a dict of {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
        raise SpecError(
            f"{path} holds {entries or type(state).__name__}; expected a state dict (names to tensors), as "
            "torch.save(model.state_dict(), path) writes it. From a checkpoint, save the part that is one."
        )
    return state


def model_digest(model: nn.Module) -> str:
    """SHA-256 over the class name and every parameter and buffer: name, dtype, shape and bytes."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def answers_apart(
    model: nn.Module, inputs: Float[torch.Tensor, "n ..."], stored: Float[np.ndarray, "n k"]
) -> float:
    """How far a model's answers are from stored ones: distance of two rows by the stored row's length, the largest.

    Digests tell weights only: another activation, stride, scale or version of a library shows in the answers. Rows
    shorter than 1 count as 1. Infinite where the shapes differ; NaN where the model answers it. One input passes at a
    time, so that it does not ask for more memory than the work itself.
    """
    with torch.no_grad():
        answers = [model(one) for one in inputs.split(1)]
    found = torch.cat(answers).double().cpu().numpy()
    if found.shape != stored.shape:
        return float("inf")
    length = np.maximum(np.linalg.norm(stored.astype(np.float64), axis=1), 1)
    return float((np.linalg.norm(found - stored, axis=1) / length).max(initial=0))
