"""At which layer to correct, by which direction, aiming at which z: tried out on samples that are fitted on anyway."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from spray.correction.directions import CAV, Vector, Workshop, vectors, writing
from spray.correction.errors import CorrectionError
from spray.correction.material import Batch
from spray.correction.methods import Correction, ProjectiveClArC
from spray.correction.outcome import Attack, Outcome, agreement, judge, lost
from spray.correction.sites import Site


@dataclass(frozen=True)
class LayerScore:
    """How well the artifact can be told and written at a layer, on samples to fit on; None where it cannot.

    Attributes:
        auc: how well the direction tells held-out samples with the artifact from those without.
        against: what the direction was fitted against.
        aim: where P-ClArC there aims: at the mean of wᵀh over "all" clean samples, or over those of the "class".
        clean: accuracy on clean samples after it, mean of the artifact's class and of the others.
        attacked: accuracy on attacked ones after it.
        cost: by how much clean accuracy falls in the class or in the others, whichever loses more; P-ClArC chooses the
            highest ``attacked`` less ``cost``, so that gains of one side pay for no loss of the other.
        agreement: share of clean samples that writing the artifact there makes the model call what the true attack
            makes it call, by which A-ClArC chooses.
        refused: why there is no direction.
    """

    layer: str
    auc: float | None = None
    against: str | None = None
    aim: str | None = None
    clean: float | None = None
    attacked: float | None = None
    cost: float | None = None
    agreement: float | None = None
    refused: str = ""


class Trial:
    """What corrections are tried out on, and what the model says of it uncorrected."""

    def __init__(self, model: nn.Module, batches: Iterable[Batch], group: int, attack: Attack | None) -> None:
        self.batches, self.group, self.attack = batches, group, attack
        self.before = self.outcome(model)

    def outcome(self, model: nn.Module) -> Outcome:
        """On clean samples and on attacked ones."""
        return judge(model, self.batches, (), self.group, self.attack)


def choose(
    model: nn.Module, sites: Sequence[Site], step: Correction, shop: Workshop, trial: Trial
) -> tuple[Vector, list[LayerScore]]:
    """The best vector of the best layer, aiming at the best z, and the scores of all layers.

    Without a region nothing can be attacked: then the layer where the artifact is told best, less what that costs.

    Raises:
        CorrectionError: no layer has a direction; gives the first reason.
    """
    scores: list[LayerScore] = []
    found: list[tuple[float, Vector]] = []
    for done, fitted in enumerate(vectors(model, list(sites), shop, getattr(step, "cav", CAV()))):
        shop.report(done, len(sites), "layers")
        if isinstance(fitted, CorrectionError):
            scores.append(LayerScore(sites[done].name, refused=str(fitted)))
            continue
        tried = [one for vector in fitted for one in _tried(model, vector, step, shop, trial)]
        rank, chosen, score = max(tried, key=lambda entry: entry[0])
        scores.append(score)
        found.append((rank, chosen))
    shop.report(len(sites), len(sites), "layers")
    if not found:
        raise CorrectionError(f"no layer can be corrected: {scores[0].refused}")
    return max(found, key=lambda pair: pair[0])[1], scores


def _tried(
    model: nn.Module, vector: Vector, step: Correction, shop: Workshop, trial: Trial
) -> list[tuple[float, Vector, LayerScore]]:
    """Every aim of a vector, or writing it where that decides: its rank, the vector with it, and its score."""
    score = LayerScore(vector.site.name, vector.auc, vector.against)
    if step.chosen_by == "agreement" and trial.attack is not None:
        alike = _agreement(model, vector, shop, trial)
        return [(alike or 0.0, vector, replace(score, agreement=alike))]
    aim = getattr(step, "aim", "best")
    if aim != "best" and aim not in vector.targets:
        raise CorrectionError(f"there are no clean samples of the {aim} to aim at: aim at all.")
    found = []
    for name in vector.targets if aim == "best" else (aim,):
        aimed, projected = replace(vector, aim=name), copy.deepcopy(model)
        ProjectiveClArC().project(projected, aimed)
        after = trial.outcome(projected)
        sides = [side for side in (after.class_clean, after.hosts) if side is not None]
        clean = sum(sides) / len(sides) if len(sides) == 2 else after.clean
        cost = lost(trial.before, after)
        rank = (vector.auc if after.attacked is None else after.attacked) - cost
        tried = replace(score, aim=name, clean=clean, attacked=after.attacked, cost=cost)
        found.append((rank, aimed, tried))
    return found


def _agreement(model: nn.Module, vector: Vector, shop: Workshop, trial: Trial) -> float | None:
    assert trial.attack is not None
    written = copy.deepcopy(model)
    with writing(written, vector, shop.mask):
        return agreement(model, written, trial.batches, trial.attack)
