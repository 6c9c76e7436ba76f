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
from spray.correction.outcome import Attack
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
    attack: Attack | None
    """Content of samples to fit on; None without a region, or a class."""
    report: Report

    @property
    def hosts(self) -> Rows:
        """Clean rows to fit on, of other classes."""
        return np.setdiff1d(self.split.clean_fit, self.rest)

    def pasted(self, hosts: Rows) -> Iterator[Float[Tensor, "b ..."]]:
        """Inputs of some rows with the artifact's content pasted on."""
        assert self.attack is not None
        first = 0
        for _, inputs, _ in self.pixels.batches(hosts):
            yield self.attack.on(inputs, first)
            first += len(inputs)


@dataclass(frozen=True)
class CAV:
    """How the artifact's direction at a layer is fitted.

    Args:
        estimator: gives the filter w, which reads the artifact.
        pattern: v, along which it is written, is the "signal", or the same as the "filter".
        against: samples with the artifact against the rest of its "class" or "all" clean samples; or clean samples of
            other classes with its content "pasted" on against the same as they are, which differ in nothing else and
            need a region; "best" tries "class" and "pasted".
        samples: at most so many clean ones, drawn by ``seed``.
    """

    estimator: Estimator = field(default_factory=Ridge)
    pattern: Literal["signal", "filter"] = "signal"
    against: Literal["best", "class", "all", "pasted"] = "best"
    samples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in ("signal", "filter") or self.against not in ("best", "class", "all", "pasted"):
            raise CorrectionError(
                f"pattern is {self.pattern!r}, against {self.against!r}; expected signal or filter, and best, class, "
                "all or pasted."
            )

    def sides(self, shop: Workshop) -> dict[str, tuple[str, str]]:
        """Which samples stand against which, by name.

        Raises:
            CorrectionError: pasted content is asked for, and there is no region, or nothing to paste it on.
        """
        known = {"all": ("fit", "clean"), "class": ("fit", "rest" if len(shop.rest) >= 2 else "clean")}
        lacking = (
            "region"
            if shop.attack is None
            else "clean sample of another class"
            if not len(shop.hosts)
            else ""
        )
        if not lacking:
            known["pasted"] = ("pasted", "hosts")
        elif self.against == "pasted":
            raise CorrectionError(
                f"'{shop.artifact.name}' has no {lacking}, so nothing can be pasted: choose against class or all."
            )
        chosen = ("class", "pasted") if self.against == "best" else (self.against,)
        return {name: known[name] for name in chosen if name in known}


@dataclass(frozen=True)
class Vector:
    """A fitted direction at a site, with the means of wᵀh that corrections aim at."""

    site: Site
    direction: Direction
    behind: int
    """How many axes of places are behind the channels in the layer's output; 0 where channels are its last axis."""
    targets: Mapping[str, float]
    """z of P-ClArC by what it aims at: the mean of wᵀh at all places over clean samples of "all" classes, or of the
    artifact's "class"."""
    artifact: float
    """z of A-ClArC: the mean over samples with the artifact, at its places."""
    auc: float
    """How well wᵀh tells held-out samples with the artifact from those without, at its places."""
    against: str = "class"
    """What the direction was fitted against."""
    aim: str = "all"

    def affine(self, target: float) -> tuple[Float[Tensor, "c c"], Float[Tensor, " c"]]:
        """A and b of h′ = A·h + b with wᵀh′ = target."""
        matrix, offset = self.direction.projection(target)
        return torch.from_numpy(matrix), torch.from_numpy(offset)


def vectors(
    model: nn.Module, sites: list[Site], shop: Workshop, step: CAV
) -> Iterator[list[Vector] | CorrectionError]:
    """The directions at every site, in order, or why there is none; one pass over the samples serves all sites.

    Raises:
        CorrectionError: pasted content is asked for, and there is no region.
    """
    sides, split, most = step.sides(shop), shop.split, step.samples
    rng = np.random.default_rng([step.seed, 3])
    rows = {
        "fit": split.artifact_fit,
        "held": split.artifact_held,
        "clean": some(split.clean_fit, most, rng),
        "clean held": some(split.clean_held, most, rng),
    }
    if len(shop.rest) >= 2:
        rows["rest"] = some(shop.rest, most, rng)
    if "pasted" in sides:
        rows["hosts"] = rows["pasted"] = some(shop.hosts, most, rng)
    found: dict[str, dict[Site, Activations]] = {}
    for done, (name, chosen) in enumerate(rows.items()):
        shop.report(done, len(rows), "directions")
        as_they_are = (inputs for _, inputs, _ in shop.pixels.batches(chosen))
        inputs = shop.pasted(chosen) if name == "pasted" else as_they_are
        found[name] = collect(model, [site for site in sites if not site.unclear], inputs, shop.mask)
    shop.report(len(rows), len(rows), "directions")
    for site in sites:
        if site.unclear:
            yield CorrectionError(f"{site.unclear}.")
            continue
        at = {name: activations[site] for name, activations in found.items()}
        fitted: list[Vector] = []
        refused = CorrectionError("there are no samples to fit on.")
        for against, (ones, zeros) in sides.items():
            try:
                fitted.append(_vector(site, at, against, ones, zeros, step))
            except CorrectionError as error:
                refused = error
        yield fitted or refused


def _vector(site: Site, at: dict[str, Activations], against: str, ones: str, zeros: str, step: CAV) -> Vector:
    def side(name: str) -> Float[np.ndarray, "n c"]:
        return at[name].region.numpy()

    h, y = _two(side(ones), side(zeros))
    direction = fit(step.estimator, h, y, pattern=step.pattern == "signal")
    held, truth = _two(side("held"), side("clean held"))
    return Vector(
        site,
        direction,
        at["fit"].behind,
        targets={
            aim: float(direction.read(at[name].everywhere.numpy()).mean())
            for aim, name in (("all", "clean"), ("class", "rest"))
            if name in at
        },
        artifact=float(direction.read(side("fit")).mean()),
        auc=auc(direction.read(held), truth),
        against=against,
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
    if site.first(output):
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
