"""Models: loading by spec, and the digest that says whether two models are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from spray.loading import SpecError, load_callable

TORCHVISION = "torchvision:"


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """The model that a spec names, in evaluation mode, on the CPU.

    Args:
        spec: ``torchvision:NAME`` (random weights unless ``weights`` is given), ``FILE.py:FUNCTION`` or
            ``PACKAGE.MODULE:FUNCTION``; the function takes no argument and returns an ``nn.Module``.
        weights: a state dict written by ``torch.save``, read with ``weights_only=True``. Its shapes decide
            the number of classes of a torchvision model.

    Raises:
        SpecError: the spec or the weights do not fit; the message says what to change.
    """
    state = None if weights is None else _load_state(weights)
    if spec.startswith(TORCHVISION):
        model = _torchvision_model(spec.removeprefix(TORCHVISION), state)
    else:
        model = load_callable(spec)()
        if not isinstance(model, nn.Module):
            raise SpecError(
                f"'{spec}' returned {type(model).__name__}; expected a torch.nn.Module. "
                "Return the model itself, not its output or its state dict."
            )
    if state is not None:
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise SpecError(f"The weights in {weights} do not fit the model '{spec}': {error}") from error
    return model.eval()


def _torchvision_model(name: str, state: dict[str, torch.Tensor] | None) -> nn.Module:
    from torchvision.models import get_model, list_models

    if name not in list_models():
        close = [known for known in list_models() if known.startswith(name[:4])]
        raise SpecError(
            f"torchvision has no model '{name}'. Close: {', '.join(close) or 'see list_models()'}."
        )
    options: dict[str, int] = {}
    if state is not None:
        matrices = [tensor for key, tensor in state.items() if key.endswith("weight") and tensor.ndim >= 2]
        if matrices:
            options["num_classes"] = matrices[-1].shape[0]
    model = get_model(name, weights=None, **options)
    assert isinstance(model, nn.Module)
    return model


def _load_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise SpecError(f"There are no weights at {path.resolve()}.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SpecError(
            f"{path} holds {type(state).__name__}; expected a state dict (names to tensors), as "
            "torch.save(model.state_dict(), path) writes it."
        )
    return state


def model_digest(model: nn.Module) -> str:
    """SHA-256 over the class name and every parameter and buffer: name, dtype, shape and bytes."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
