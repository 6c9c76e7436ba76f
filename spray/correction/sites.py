"""Where in a model a correction may act: layers, their channels and places, and the activations there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spray.correction.errors import CorrectionError
from spray.engine.errors import BadInput
from spray.engine.preflight import check_layers

MOST_CANDIDATES, FEWEST_CANDIDATES, DEEPEST = 16, 4, 3
_PASSIVE = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d),
)


@dataclass(frozen=True)
class Site:
    """A module whose output is corrected.

    Attributes:
        channels: where an output has its channels, "first" (after the samples) or "last"; "" to see by the shape: three
            axes have them last, four do where axes 1 and 2 are as long and the last is not, as in (n, 7, 7, 768).
        unclear: why it cannot be corrected; empty where it can.
    """

    name: str
    channels: str = ""
    unclear: str = ""

    @classmethod
    def parse(cls, text: str, model: nn.Module) -> Site:
        """From ``NAME``, ``NAME@first`` or ``NAME@last``.

        Raises:
            CorrectionError: the model has no such module.
        """
        name, _, suffix = text.partition("@")
        if suffix not in ("", "first", "last"):
            raise CorrectionError(f"layer '{text}': after @ stands where channels are, 'first' or 'last'.")
        try:
            check_layers((name,), model)
        except BadInput as error:
            raise CorrectionError(f"Cannot correct layer '{name}': {error}") from None
        return cls(name, suffix)

    def first(self, output: Tensor) -> bool:
        """Whether channels are axis 1 of the output, and places behind them; else channels are its last axis."""
        if output.ndim < 3 or self.channels:
            return output.ndim > 2 and self.channels == "first"
        one, two, three = (*output.shape[1:], 0)[:3]
        return output.ndim == 4 and not one == two != three

    def behind(self, output: Tensor) -> int:
        """How many axes of places are behind the channels; 0 where channels are the last axis."""
        return output.ndim - 2 if self.first(output) else 0

    def places(self, output: Tensor) -> Float[Tensor, "n places c"]:
        """The output as vectors over channels, one for each place; (n, c) has one place, tokens are places."""
        if self.first(output):
            return output.flatten(2).transpose(1, 2)
        return output.reshape(len(output), -1, output.shape[-1])

    def shares(self, output: Tensor, mask: Bool[Tensor, "h w"] | None) -> Float[Tensor, " places"]:
        """How much of each place lies in a region of the input, summing to 1; all places alike without a region,
        or where places are tokens."""
        grid = self._grid(output)
        if mask is None or grid is None or (grid[0] == 1 < len(mask) and output.ndim == 3):
            count = self.places(output[:1]).shape[1]
            return torch.full((count,), 1 / count, dtype=torch.float64)
        covered = F.adaptive_avg_pool2d(mask.double()[None, None], grid).flatten()
        return covered / covered.sum()

    def _grid(self, output: Tensor) -> tuple[int, int] | None:
        """Height and width of the places, where they are those of a picture or, one place high, times of a signal."""
        if output.ndim == 4:
            height, width = output.shape[2:] if self.first(output) else output.shape[1:3]
            return height, width
        return (1, output.shape[2]) if self.first(output) else None


def candidates(model: nn.Module, example: Float[Tensor, "1 ..."]) -> list[str]:
    """Modules along the trunk of a model whose outputs could be corrected, in order of execution.

    The model's own parts, and the parts of its ``nn.Sequential``s instead of these; where that gives fewer than 4, as
    in a transformer, those of other modules, too. Only what runs once a pass and returns one tensor of at least two
    channels, except the last, whose output is the logits. Of more than 16, evenly spaced ones.
    """
    for depth in range(DEEPEST):
        good = _usable(model, example, depth)
        if len(good) >= FEWEST_CANDIDATES:
            break
    if len(good) <= MOST_CANDIDATES:
        return good
    return [good[round(i * (len(good) - 1) / (MOST_CANDIDATES - 1))] for i in range(MOST_CANDIDATES)]


def _usable(model: nn.Module, example: Float[Tensor, "1 ..."], depth: int) -> list[str]:
    names = [name for name, module in _trunk(model, depth) if not isinstance(module, _PASSIVE)]
    seen: list[tuple[str, Any]] = []
    with ExitStack() as stack:
        for name in names:
            hook = partial(_remember, seen, name)
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        with torch.no_grad():
            logits = model(example)
    runs = [name for name, _ in seen]
    return [
        name
        for name, output in seen
        if runs.count(name) == 1
        and isinstance(output, Tensor)
        and output.ndim in (2, 3, 4)
        and output.shape[1] > 1
        and output is not logits
    ]


def _trunk(module: nn.Module, depth: int, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts of a module; of ``nn.Sequential``s, and down to ``depth`` of other containers, their parts instead."""
    for name, child in module.named_children():
        inside = next(child.children(), None) is not None
        if type(child) is nn.Sequential and inside:
            yield from _trunk(child, depth, f"{prefix}{name}.")
        elif depth and inside:
            yield from _trunk(child, depth - 1, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _remember(seen: list[tuple[str, Any]], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    seen.append((name, output))


@dataclass(frozen=True)
class Activations:
    """Activations at one site over some samples: means over a region's places, and over all places."""

    region: Float[Tensor, "n c"]
    everywhere: Float[Tensor, "n c"]
    behind: int
    """How many axes of places are behind the channels; 0 where channels are the last axis."""


def collect(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Iterable[Float[Tensor, "b ..."]],
    mask: Bool[Tensor, "h w"] | None,
) -> dict[Site, Activations]:
    """Activations of all samples at every site, from one pass over them; memory holds (samples, channels).

    Raises:
        CorrectionError: a module does not run exactly once a pass, or does not return one tensor over channels.
    """
    kept: dict[Site, list[tuple[Tensor, Tensor]]] = {site: [] for site in sites}
    behind: dict[Site, int] = {}

    def keep(site: Site, output: Tensor) -> None:
        values = site.places(output)
        shares = site.shares(output, mask).to(values)
        means = torch.einsum("npc,p->nc", values, shares), values.mean(1)
        kept[site].append((means[0].cpu().double(), means[1].cpu().double()))
        behind[site] = site.behind(output)

    for inputs in batches:
        with watched(model, sites, keep), torch.no_grad():
            model(inputs)
    found = {}
    for site, parts in kept.items():
        region, everywhere = (torch.cat(part) for part in zip(*parts, strict=True))
        found[site] = Activations(region, everywhere, behind[site])
    return found


@contextmanager
def watched(model: nn.Module, sites: Sequence[Site], keep: Any) -> Iterator[None]:
    """While the model runs once: ``keep(site, output)`` for every site, each refused unless it runs once.

    Raises:
        CorrectionError: as ``collect``.
    """
    count = dict.fromkeys(sites, 0)

    def hook(site: Site, module: nn.Module, inputs: Any, output: Any) -> None:
        count[site] += 1
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or not output.is_floating_point():
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise CorrectionError(
                f"layer '{site.name}' returns {got}; a correction over channels needs one tensor (n, c), "
                "(n, token, c), (n, c, t) or (n, c, y, x). Name a neighbour."
            )
        keep(site, output)

    with ExitStack() as stack:
        for site in sites:
            module = model.get_submodule(site.name)
            stack.callback(module.register_forward_hook(partial(hook, site)).remove)
        yield
    for site, runs in count.items():
        if runs != 1:
            raise CorrectionError(
                f"layer '{site.name}' runs {runs} times in a pass, so its output has no one meaning. Name the module "
                "around it, or a neighbour that runs once."
            )
