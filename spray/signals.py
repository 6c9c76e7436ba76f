"""Signals as pictures one pixel high: what works on pictures then works on signals, too."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stores import Run


def as_pictures(inputs: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
    """Signals (n, c, t) as (n, c, 1, t); anything else as it is."""
    return inputs.unsqueeze(2) if inputs.ndim == 3 else inputs


def holds_signals(run: Run) -> bool:
    """Whether the inputs of a run's samples are signals, (channel, time)."""
    shapes = [step["input_shape"] for step in run.samples.provenance.steps if "input_shape" in step]
    return any(isinstance(shape, list | tuple) and len(shape) == 2 for shape in shapes)


class OnSignals(nn.Module):
    """A model of signals that takes them as ``as_pictures`` gives them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Float[Tensor, "n c 1 t"]) -> Tensor:
        """The model's output."""
        logits: Tensor = self.model(pictures.squeeze(2))
        return logits
