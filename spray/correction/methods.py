"""The corrections: P-ClArC, A-ClArC, sample removal, and the penalty of right-for-the-right-reasons. ``CORRECTIONS``.

Each takes a copy of the model and gives it back corrected. Class artifact compensation (ClArC): C. Anders et al.,
Information Fusion 77, 2022; the penalty: A. Ross, M. Hughes, F. Doshi-Velez, IJCAI 2017, eq. 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spray import insertion
from spray.correction.directions import CAV, Vector, Workshop, written_in
from spray.correction.errors import CorrectionError
from spray.correction.material import Rows
from spray.correction.tuning import FineTuning
from spray.correction.vectors import CAVS

T = TypeVar("T")


class Correction(Protocol):
    """A way of unlearning an artifact."""

    @property
    def name(self) -> str:
        """As listed in ``CORRECTIONS``."""
        ...

    @property
    def chosen_by(self) -> str | None:
        """Which score of a layer says where to act; None for what acts on the whole model."""
        ...

    def apply(self, model: nn.Module, shop: Workshop, vector: Vector | None) -> None:
        """Correct the model in place. ``vector`` is given where it acts at a layer."""
        ...


@dataclass(frozen=True)
class ProjectiveClArC:
    """P-ClArC: h′ = h + (z − wᵀh)/(wᵀv)·v at every place, z the mean of wᵀh over clean samples. No training.

    Folded into the layer's own weights where it is a convolution or linear with a bias, which is exact; else
    inserted after it.

    Args:
        aim: clean samples of "all" classes, or of the artifact's "class" only, which costs that class less; "best"
            tries both.
    """

    cav: CAV = field(default_factory=CAV)
    aim: Literal["best", "all", "class"] = "best"
    name: ClassVar[str] = "p-clarc"
    chosen_by: ClassVar[str | None] = "attacked"

    def __post_init__(self) -> None:
        if self.aim not in ("best", "all", "class"):
            raise CorrectionError(f"aim is {self.aim!r}; expected best, all or class.")

    def apply(self, model: nn.Module, shop: Workshop, vector: Vector | None) -> None:
        """Fold or insert the projection."""
        assert vector is not None
        self.project(model, vector)

    def project(self, model: nn.Module, vector: Vector) -> None:
        """Fold or insert the projection of a vector, at what it aims at."""
        matrix, offset = vector.affine(vector.targets[vector.aim])
        if not insertion.fold(model, vector.site.name, matrix, offset):
            insertion.insert(model, vector.site.name, matrix, offset, behind=vector.behind)


@dataclass(frozen=True)
class AugmentativeClArC:
    """A-ClArC: fine-tuning while the artifact is written into a share of the samples at a layer, whatever their class.

    h′ as in P-ClArC with z the mean over samples that have the artifact, at the places where it lies. The layers
    after it learn that it means nothing; those before stay as they are, since they would only write it in another
    direction. Samples that have it already are left out. Nothing is left in the model but its new weights.

    Args:
        tuning: of the layers after the named one only, which bears a high rate.
        share: of the samples of each batch that the artifact is written into.
    """

    cav: CAV = field(default_factory=CAV)
    tuning: FineTuning = field(default_factory=lambda: FineTuning(epochs=10, rate=1e-2))
    share: float = 0.25
    name: ClassVar[str] = "a-clarc"
    chosen_by: ClassVar[str | None] = "agreement"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise CorrectionError(f"share is {self.share}; expected a number above 0 and up to 1.")

    def apply(self, model: nn.Module, shop: Workshop, vector: Vector | None) -> None:
        """Fine-tune with the artifact written in."""
        assert vector is not None
        module = model.get_submodule(vector.site.name)
        rng = np.random.default_rng([self.tuning.seed, 11])

        @contextmanager
        def written(rows: Rows) -> Iterator[None]:
            chosen = torch.from_numpy(rng.random(len(rows)) < self.share)

            def write(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
                return written_in(output.detach(), vector, shop.mask, chosen.to(output.device))

            handle = module.register_forward_hook(write)
            try:
                yield
            finally:
                handle.remove()

        self.tuning.run(model, shop.pixels, shop.split.clean_fit, shop.report, during=written)


@dataclass(frozen=True)
class SampleRemoval:
    """Fine-tuning without the samples that have the artifact: the plain thing to try first."""

    tuning: FineTuning = field(default_factory=FineTuning)
    name: ClassVar[str] = "removal"
    chosen_by: ClassVar[str | None] = None

    def apply(self, model: nn.Module, shop: Workshop, vector: Vector | None) -> None:
        """Fine-tune on the clean samples."""
        self.tuning.run(model, shop.pixels, shop.split.clean_fit, shop.report)


@dataclass(frozen=True)
class RightReasons:
    """Right for the right reasons: fine-tuning with a penalty on relevance inside the finding's region.

    weight · mean over samples of Σ_{region} R², where R is the relevance of the label, gradient × input of its logit
    (LRP-0 of a network of ReLUs); or, as Ross et al. (2017, eq. 1) have it, the gradient of Σ_k log p_k.

    Args:
        penalised: "relevance" or "gradient".
        everywhere: samples without the artifact are penalised at its place, too; else only those that have it.
    """

    weight: float = 10.0
    penalised: Literal["gradient", "relevance"] = "relevance"
    everywhere: bool = False
    tuning: FineTuning = field(default_factory=FineTuning)
    name: ClassVar[str] = "rrr"
    chosen_by: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not self.weight > 0 or self.penalised not in ("gradient", "relevance"):
            raise CorrectionError(
                f"weight is {self.weight}, penalised {self.penalised!r}; expected a positive weight, and gradient or "
                "relevance."
            )

    def apply(self, model: nn.Module, shop: Workshop, vector: Vector | None) -> None:
        """Fine-tune with the penalty.

        Raises:
            CorrectionError: the finding has no region.
        """
        mask = shop.mask
        if mask is None:
            raise CorrectionError(
                f"'{shop.artifact.name}' has no region, and rrr penalises relevance inside one: choose p-clarc, "
                "a-clarc or removal."
            )
        inside = mask.to(shop.pixels.device)

        def penalty(
            rows: Rows, inputs: Float[Tensor, "b ..."], labels: Int[Tensor, " b"]
        ) -> Float[Tensor, ""]:
            concerned = np.full(len(rows), True) if self.everywhere else np.isin(rows, shop.artifact.rows)
            chosen = torch.from_numpy(concerned).to(inputs.device)
            if not chosen.any():
                return inputs.new_zeros(())
            return (
                self.weight * self.loss(model, inputs[chosen], labels[chosen], inside) * chosen.float().mean()
            )

        self.tuning.run(model, shop.pixels, shop.split.fit, shop.report, penalty=penalty)

    def loss(
        self,
        model: nn.Module,
        inputs: Float[Tensor, "b ..."],
        labels: Int[Tensor, " b"],
        mask: Bool[Tensor, "h w"],
    ) -> Float[Tensor, ""]:
        """The penalised sum, mean over the samples; differentiable in the weights."""
        x = inputs.detach().requires_grad_()
        logits = model(x)
        if self.penalised == "gradient":
            explained = logits.log_softmax(1).sum()
        else:
            explained = logits.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(explained, x, create_graph=True)
        values = gradient if self.penalised == "gradient" else gradient * x
        return (values.square() * mask).flatten(1).sum(1).mean()


CORRECTIONS: dict[str, Correction] = {
    method.name: method
    for method in (ProjectiveClArC(), AugmentativeClArC(), SampleRemoval(), RightReasons())
}
"""With their defaults, by name."""


def step_of(
    method: str,
    *,
    cav: str | None = None,
    against: str | None = None,
    epochs: int | None = None,
    rate: float | None = None,
    seed: int = 0,
) -> Correction:
    """The correction of this name, with other settings where given.

    Raises:
        CorrectionError: there is no such correction or direction, or the correction has no such setting.
    """
    step = known(CORRECTIONS, method, "correction")
    vector = {"estimator": known(CAVS, cav, "direction") if cav else None, "against": against}
    tuning = {"epochs": epochs, "rate": rate}
    changes: dict[str, object] = {}
    for name, settings in (("cav", vector), ("tuning", tuning)):
        given = {key: value for key, value in settings.items() if value is not None}
        part = getattr(step, name, None)
        if given and part is None:
            raise CorrectionError(f"'{method}' has no {', '.join(given)}: leave it out.")
        if part is not None:
            changes[name] = replace(part, **given, seed=seed)
    return cast(Correction, replace(cast("Any", step), **changes))


def known(family: Mapping[str, T], name: str, what: str) -> T:
    """The entry of this name.

    Raises:
        CorrectionError: there is none; the message lists those there are.
    """
    if name not in family:
        raise CorrectionError(f"there is no {what} '{name}'. There are: {', '.join(family)}.")
    return family[name]
