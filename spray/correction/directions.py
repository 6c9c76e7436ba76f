"""The direction of an artifact at a layer, fitted for many layers from one pass, and written into a layer's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spray.correction.errors import CorrectionError
from spray.correction.material import Artifact, Pixels, Rows, Split
from spray.correction.sites import Activations, Site, collect
from spray.correction.vectors import Direction, Estimator, Ridge, auc, fit
from spray.findings.verification.pairs import some
from spray.progress import Report


@dataclass(frozen=True)
class Workshop:
    """What a correction works with."""

    pixels: Pixels
    split: Split
    artifact: Artifact
    rest: Rows
    """Clean rows to fit on, of the artifact's class."""
    mask: Bool[Tensor, "h w"] | None
    report: Report


@dataclass(frozen=True)
class CAV:
    """How the artifact's direction at a layer is fitted.

    Args:
        estimator: gives the filter w, which reads the artifact.
        pattern: v, along which it is written, is the "signal", or the same as the "filter".
        against: samples with the artifact against the rest of its "class", or "all" clean samples.
        samples: at most so many clean ones, drawn by ``seed``.
    """

    estimator: Estimator = field(default_factory=Ridge)
    pattern: Literal["signal", "filter"] = "signal"
    against: Literal["class", "all"] = "class"
    samples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in ("signal", "filter") or self.against not in ("class", "all"):
            raise CorrectionError(
                f"pattern is {self.pattern!r}, against {self.against!r}; expected signal or filter, class or all."
            )


@dataclass(frozen=True)
class Vector:
    """A fitted direction at a site, with the means of wᵀh that corrections aim at."""

    site: Site
    direction: Direction
    pixels: bool
    targets: Mapping[str, float]
    """z of P-ClArC by what it aims at: the mean of wᵀh at all places over clean samples of "all" classes, or of the
    artifact's "class"."""
    artifact: float
    """z of A-ClArC: the mean over samples with the artifact, at its places."""
    auc: float
    """How well wᵀh tells held-out samples with the artifact from those without, at its places."""
    aim: str = "all"

    def affine(self, target: float) -> tuple[Float[Tensor, "c c"], Float[Tensor, " c"]]:
        """A and b of h′ = A·h + b with wᵀh′ = target."""
        matrix, offset = self.direction.projection(target)
        return torch.from_numpy(matrix), torch.from_numpy(offset)


def vectors(
    model: nn.Module, sites: list[Site], shop: Workshop, step: CAV
) -> Iterator[Vector | CorrectionError]:
    """The direction at every site, in order, or why there is none; one pass over the samples serves all sites."""
    split, most = shop.split, step.samples
    rng = np.random.default_rng([step.seed, 3])
    parts = {
        "fit": split.artifact_fit,
        "held": split.artifact_held,
        "clean": some(split.clean_fit, most, rng),
        "clean held": some(split.clean_held, most, rng),
    }
    if len(shop.rest) >= 2:
        parts["rest"] = some(shop.rest, most, rng)
    whole = step.against == "all" or "rest" not in parts
    found: dict[str, dict[Site, Activations]] = {}
    for done, (name, rows) in enumerate(parts.items()):
        shop.report(done, len(parts), "directions")
        found[name] = collect(model, sites, (inputs for _, inputs, _ in shop.pixels.batches(rows)), shop.mask)
    shop.report(len(parts), len(parts), "directions")
    for site in sites:
        at = {name: activations[site] for name, activations in found.items()}
        try:
            yield _vector(site, at, "clean" if whole else "rest", step)
        except CorrectionError as error:
            yield error


def _vector(site: Site, at: dict[str, Activations], against: str, step: CAV) -> Vector:
    def side(name: str) -> Float[np.ndarray, "n c"]:
        return at[name].region.numpy()

    h, y = _two(side("fit"), side(against))
    direction = fit(step.estimator, h, y, pattern=step.pattern == "signal")
    held, truth = _two(side("held"), side("clean held"))
    return Vector(
        site,
        direction,
        at["fit"].pixels,
        targets={
            aim: float(direction.read(at[name].everywhere.numpy()).mean())
            for aim, name in (("all", "clean"), ("class", "rest"))
            if name in at
        },
        artifact=float(direction.read(side("fit")).mean()),
        auc=auc(direction.read(held), truth),
    )


def _two(
    ones: Float[np.ndarray, "a c"], zeros: Float[np.ndarray, "b c"]
) -> tuple[Float[np.ndarray, "n c"], Bool[np.ndarray, " n"]]:
    return np.concatenate([ones, zeros]), np.arange(len(ones) + len(zeros)) < len(ones)


def written_in(
    output: Float[Tensor, "n ..."],
    vector: Vector,
    mask: Bool[Tensor, "h w"] | None,
    chosen: Bool[Tensor, " n"],
) -> Float[Tensor, "n ..."]:
    """A layer's output with the artifact written into the chosen samples: wᵀh′ = z at the places of the region."""
    site = vector.site
    matrix, offset = (part.to(output) for part in vector.affine(vector.artifact))
    values = site.places(output)
    shares = site.shares(output, mask).to(output)
    there = (shares > 0)[None, :, None] & chosen[:, None, None]
    changed = torch.where(there, values @ matrix.T + offset, values)
    if vector.pixels:
        return changed.transpose(1, 2).reshape(output.shape)
    return changed.reshape(output.shape)


@contextmanager
def writing(model: nn.Module, vector: Vector, mask: Bool[Tensor, "h w"] | None) -> Iterator[None]:
    """Meanwhile the artifact is written into every sample at its layer."""

    def write(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return written_in(
            output, vector, mask, torch.ones(len(output), dtype=torch.bool, device=output.device)
        )

    handle = model.get_submodule(vector.site.name).register_forward_hook(write)
    try:
        yield
    finally:
        handle.remove()
