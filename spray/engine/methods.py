"""Methods that are not the engine's own: any function (model, inputs, targets) → relevance, and captum's attributors.

They come through the same door as composites, so their maps are checked, stored, analysed and compared alike::

    Explainer(model, Function("mine", my_function)).explain(inputs, targets)
    Explainer(model, Captum("IntegratedGradients", {"n_steps": 32})).explain(inputs, targets)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spray.engine.errors import AttributionError
from stores.provenance import TUNING

Attributor = Callable[[nn.Module, Tensor, Tensor], Tensor]


@runtime_checkable
class Foreign(Protocol):
    """A method outside the engine."""

    @property
    def name(self) -> str:
        """What it is called in provenance."""

    def relevance(
        self, model: nn.Module, inputs: Float[Tensor, "n ..."], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n ..."]:
        """The relevance of every input value for the target class of its sample."""


@dataclass(frozen=True)
class Function:
    """A function (model, inputs, targets) → relevance, known in provenance by name and version."""

    name: str
    function: Attributor = field(metadata=TUNING)
    version: str = ""

    def relevance(
        self, model: nn.Module, inputs: Float[Tensor, "n ..."], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n ..."]:
        """What the function returns."""
        return self.function(model, inputs, targets)


@dataclass(frozen=True)
class Captum:
    """An attributor of captum (an optional extra), by class name, with the settings of its ``attribute``.

    Settings that are tensors or arrays (``baselines``) are moved to the device and the precision of the inputs; in
    provenance they stand by shape, type and digest. ``seed`` is set for every batch, since some attributors draw
    samples (GradientShap, from torch and numpy).
    """

    attributor: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def name(self) -> str:
        """The attributor's name, as captum's."""
        return f"captum.{self.attributor}"

    def relevance(
        self, model: nn.Module, inputs: Float[Tensor, "n ..."], targets: Int[Tensor, " n"]
    ) -> Float[Tensor, "n ..."]:
        """What captum's attributor returns.

        Raises:
            AttributionError: captum is not installed, or has no attributor of that name.
        """
        try:
            attr = import_module("captum.attr")
        except ImportError:
            raise AttributionError(
                f"{self.name} needs captum, which is not installed: pip install 'spray-audit[captum]'."
            ) from None
        if not hasattr(attr, self.attributor):
            raise AttributionError(f"captum.attr has no attributor {self.attributor!r}.")
        settings = {name: _beside(inputs, value) for name, value in self.settings.items()}
        with _seeded(self.seed, inputs.device):
            out: Tensor = getattr(attr, self.attributor)(model).attribute(inputs, target=targets, **settings)
        return out.detach()


def _beside(inputs: Tensor, value: Any) -> Any:
    """A setting as the inputs need it: tensors on their device, numbers of their precision."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        return value.to(inputs.device, inputs.dtype if value.is_floating_point() else value.dtype)
    return value


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators of torch and numpy seeded, and afterwards as they were."""
    state = np.random.get_state()  # noqa: NPY002 - captum draws from the global generator
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(device_type=device.type if device.type != "cpu" else "cuda", devices=devices):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
