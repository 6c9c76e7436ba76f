"""At which layer to correct, and at which z to aim: tried out on samples that are fitted on anyway."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from spray.correction.directions import CAV, Vector, Workshop, vectors, writing
from spray.correction.errors import CorrectionError
from spray.correction.material import Pixels, Rows
from spray.correction.methods import Correction, ProjectiveClArC
from spray.correction.outcome import Attack, agreement, judge
from spray.correction.sites import Site


@dataclass(frozen=True)
class LayerScore:
    """How well the artifact can be told and written at a layer, on samples to fit on; None where it cannot.

    Attributes:
        auc: how well the direction tells held-out samples with the artifact from those without.
        aim: where P-ClArC there aims: at the mean of wᵀh over "all" clean samples, or over those of the "class".
        clean: accuracy on clean samples after it, mean of the artifact's class and of the others: else what costs that
            class much would look cheap.
        attacked: accuracy on attacked ones after it; P-ClArC chooses the highest mean of the two.
        agreement: share of clean samples that writing the artifact there makes the model call what the true attack
            makes it call, by which A-ClArC chooses.
        refused: why there is no direction.
    """

    layer: str
    auc: float | None = None
    aim: str | None = None
    clean: float | None = None
    attacked: float | None = None
    agreement: float | None = None
    refused: str = ""


@dataclass(frozen=True)
class Trial:
    """What a correction is tried out on."""

    pixels: Pixels
    clean: Rows
    group: int
    attack: Attack | None

    def accuracy(self, model: nn.Module) -> tuple[float, float | None]:
        """On clean samples, the class and the others weighing the same, and on attacked ones."""
        found = judge(model, self.pixels, self.clean, (self.pixels, self.clean[:0]), self.group, self.attack)
        sides = [side for side in (found.class_clean, found.hosts) if side is not None]
        return sum(sides) / len(sides) if len(sides) == 2 else found.clean, found.attacked


def choose(
    model: nn.Module, sites: Sequence[Site], step: Correction, shop: Workshop, trial: Trial
) -> tuple[Vector, list[LayerScore]]:
    """The vector at the best of the layers, aiming at the best z, and the scores of all layers.

    Without a region nothing can be attacked: then the layer where the artifact is told best.

    Raises:
        CorrectionError: no layer has a direction; gives the first reason.
    """
    scores: list[LayerScore] = []
    found: list[tuple[float, Vector]] = []
    for done, vector in enumerate(vectors(model, list(sites), shop, getattr(step, "cav", CAV()))):
        shop.report(done, len(sites), "layers")
        if isinstance(vector, CorrectionError):
            scores.append(LayerScore(sites[done].name, refused=str(vector)))
            continue
        rank, chosen, score = _tried(model, vector, getattr(step, "aim", "best"), trial)
        if step.chosen_by == "agreement" and trial.attack is not None:
            alike = _agreement(model, vector, shop, trial)
            rank, score = alike or 0.0, replace(score, agreement=alike)
        scores.append(score)
        found.append((rank, chosen))
    shop.report(len(sites), len(sites), "layers")
    if not found:
        raise CorrectionError(f"no layer can be corrected: {scores[0].refused}")
    return max(found, key=lambda pair: pair[0])[1], scores


def _tried(model: nn.Module, vector: Vector, aim: str, trial: Trial) -> tuple[float, Vector, LayerScore]:
    """The better of the aims at a layer: its rank, the vector with it, and its score."""
    if aim != "best" and aim not in vector.targets:
        raise CorrectionError(f"there are no clean samples of the {aim} to aim at: aim at all.")
    best: list[tuple[float, Vector, LayerScore]] = []
    for name in vector.targets if aim == "best" else (aim,):
        aimed, tried = replace(vector, aim=name), copy.deepcopy(model)
        ProjectiveClArC().project(tried, aimed)
        clean, attacked = trial.accuracy(tried)
        value = vector.auc if attacked is None else (clean + attacked) / 2
        score = LayerScore(vector.site.name, vector.auc, name, clean, attacked)
        best.append((value, aimed, score))
    return max(best, key=lambda entry: entry[0])


def _agreement(model: nn.Module, vector: Vector, shop: Workshop, trial: Trial) -> float | None:
    assert trial.attack is not None
    written = copy.deepcopy(model)
    with writing(written, vector, shop.mask):
        return agreement(model, written, trial.pixels, trial.clean, trial.attack)
