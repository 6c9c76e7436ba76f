"""Correcting a model of a finding: what it is fitted on and judged by, the correction itself, and what it did."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn

import stores
from spray.correction.axes import located
from spray.correction.choice import LayerScore, Trial, choose
from spray.correction.directions import Vector, Workshop
from spray.correction.errors import CorrectionError
from spray.correction.material import NO_CLASS, Artifact, Pixels, Rows, Split, Splitting, artifact_of, told
from spray.correction.methods import Correction, step_of
from spray.correction.outcome import Attack, Outcome, judge, lost
from spray.correction.sites import Site, candidates
from spray.data import AuditData, as_audit_data
from spray.findings import MismatchError
from spray.findings.subject import asked, refuse_other_answers
from spray.memory import ran_out, release, way_out
from spray.models import model_digest
from spray.percent import share
from spray.progress import Report, silent
from stores import Run, describe
from stores.provenance import Json
from stores.shown import grid

BATCH = 128
"""Samples that pass through the model at once; fewer where memory runs out."""
DONORS = 100
"""At most so many samples give the content that is pasted in an attack."""
CHOSEN_ON = 500
"""At most so many clean samples of the class, and of the others, are looked at for each layer to choose from."""
MOST_LOST = {"clean": 0.01, "class_clean": 0.05, "hosts": 0.05}
"""Of an outcome's shares, how much of each may be lost without a word."""
SIDES = {"clean": "over all", "class_clean": "in the finding's class", "hosts": "in the other classes"}


@dataclass(frozen=True)
class Corrected:
    """A corrected model, in evaluation mode, with what was done to it and what came of it."""

    model: nn.Module
    method: str
    layer: str | None
    layers: tuple[LayerScore, ...]
    before: Outcome
    after: Outcome
    record: dict[str, Json] = field(default_factory=dict)
    """Everything that made it, as JSON: the step, the finding, the store, the digests."""

    @property
    def doubt(self) -> str:
        """What speaks against using it, in a sentence; empty where nothing does."""
        before, after = self.before, self.after
        cost = lost(before, after)
        if before.attacked is None or after.attacked is None:
            where = "the class or in the others" if before.others else "the class"
            price = f", and {share(cost)} of clean accuracy are lost in {where}" if cost else ""
            return f"Nothing shows that the artifact is gone: {self._lacks}{price}."
        gained, on = after.attacked - before.attacked, "under attack"
        if self.note and before.artifact is not None and after.artifact is not None:
            # Samples of another class that the artifact made wrong are what it harms.
            gained, on = (
                max(gained, after.artifact - before.artifact),
                "under attack, or on samples with the artifact,",
            )
        if gained <= cost:
            return (
                f"The model is no better for it: what is gained {on} does not make up for what is lost on clean "
                "samples of the class or of the others. Keep the model as it is, or try another method."
            )
        return self._price

    @property
    def note(self) -> str:
        """Which class is meant where the samples are of another, in a sentence; empty where they are not."""
        artifact = self.record.get("artifact")
        known = artifact if isinstance(artifact, Mapping) else {}
        name, target = known.get("class_name"), known.get("target_name")
        if target is None or known.get("class") == known.get("target"):
            return ""
        own = "several classes" if name is None else f"'{name}'"
        return f"The finding's samples are of {own}; its class here is '{target}', which it was tested for."

    @property
    def _lacks(self) -> str:
        """Why nothing could be attacked."""
        artifact = self.record.get("artifact")
        known = artifact if isinstance(artifact, Mapping) else {}
        if known.get("target") == NO_CLASS:
            return "its samples are of several classes, so there is no class that others could be taken for"
        if not self.before.others:
            return "there are no samples of other classes that it could be pasted on"
        if known.get("region_cells"):
            return "its region is one of pictures or signals, which inputs here are not"
        return "it has no region that could be pasted on others"

    @property
    def _price(self) -> str:
        """What it costs on clean samples, where that is more than ``MOST_LOST``."""
        before, after = self.before, self.after
        told = []
        for name, most in MOST_LOST.items():
            one, other = getattr(before, name), getattr(after, name)
            if one is not None and other is not None and one - other > most:
                told.append(f"from {share(one)} to {share(other)} {SIDES[name]}")
        if not told:
            return ""
        return (
            f"Accuracy on clean samples falls {', '.join(told)}: look whether that is worth it. Another method, layer "
            "or estimator may cost less."
        )

    def _repr_html_(self) -> str:
        where = f" at {self.layer}" if self.layer else ""
        rows = self.before.told(self.after)
        doubt = "".join(f"<p>{escape(said)}</p>" for said in (self.note, self.doubt) if said)
        return f"<p><b>Corrected by {escape(self.method + where)}</b></p>{grid(('', 'before', 'after'), rows)}{doubt}"


def correct(
    run: Run | str | Path,
    what: str | Sequence[int],
    model: nn.Module,
    dataset: object,
    *,
    method: str | Correction = "p-clarc",
    layer: str | Sequence[str] | None = None,
    analysis: str | None = None,
    validation: object | None = None,
    splitting: Splitting | None = None,
    device: str | torch.device = "cpu",
    report: Report = silent,
) -> Corrected:
    """Correct a copy of a model of what a finding, a verdict or some rows share; the model itself stays as it is.

    Args:
        run: the store of the audit, open or by its path.
        what: a finding's name, a verdict's key or digest, or row numbers.
        model: the audited model, in evaluation mode.
        dataset: the audited data set.
        method: one of ``CORRECTIONS`` with its defaults, or a step of one's own settings (see ``step_of``).
        layer: where; of several, or of all candidates (None), the one of the best score is taken (see ``LayerScore``).
        analysis: id of the analysis; the newest otherwise.
        validation: a data set that the model was not trained on, to judge by; else a share of the audited one.
            Samples that both have (the same pixels) are not fitted on.
        splitting: what is held out.

    Raises:
        CorrectionError: no such finding, method or layer; too few samples; nothing to judge by; too little memory.
        MismatchError: the model or the data set is not that of the store.
    """
    run = run if isinstance(run, Run) else stores.open(run)
    step = step_of(method) if isinstance(method, str) else method
    if run.provenance.get("model") != model_digest(model):
        raise MismatchError(
            f"The model at hand has digest {model_digest(model)[:12]}…, the store was made with "
            f"{str(run.provenance.get('model'))[:12]}…. A finding says nothing about another model: give the same "
            "model and weights."
        )
    if step.chosen_by is None and layer is not None:
        raise CorrectionError(f"'{step.name}' trains the whole model and takes no layer: leave it out.")
    artifact = artifact_of(run, what, run.shown_analysis(analysis) if run.analyses() else None)
    data = [None if one is None else as_audit_data(one) for one in (dataset, validation)]
    place, batch = torch.device(device), BATCH
    while True:
        corrected = copy.deepcopy(model).to(place).eval()
        try:
            bench = _Bench(run, artifact, data, splitting or Splitting(), place, batch, report)
            before, after, vector, scores = _corrected(run, corrected, bench, step, layer)
            break
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if batch == 1:
                raise CorrectionError(
                    f"the memory of {place} does not suffice for one sample at a time. "
                    f"{way_out(place, 'another method (p-clarc trains nothing)')}"
                ) from error
        batch //= 2
        release(place)
    own = "a data set of its own" if validation is not None else "held-out share of the audited one"
    record: dict[str, Json] = {
        "store": str(run.path),
        "artifact": told(artifact, run.classes),
        "step": describe(step),
        "splitting": describe(bench.splitting),
        "validation": own,
        "layer": None if vector is None else vector.site.name,
        "auc": None if vector is None else vector.auc,
        "against": None if vector is None else vector.against,
        "aim": None if vector is None else vector.aim,
        "model_before": model_digest(model),
        "model_after": model_digest(corrected),
        "before": before.to_json(),
        "after": after.to_json(),
    }
    name = None if vector is None else vector.site.name
    return Corrected(corrected, step.name, name, tuple(scores), before, after, record)


def _corrected(
    run: Run, model: nn.Module, bench: _Bench, step: Correction, layer: str | Sequence[str] | None
) -> tuple[Outcome, Outcome, Vector | None, list[LayerScore]]:
    """Correct a model in place; what it did before and after, by which vector, and what was tried."""
    bench.refuse_another(run, model)
    sites = [] if step.chosen_by is None else _sites(model, bench, layer)
    before = bench.judge(model)
    vector: Vector | None = None
    scores: list[LayerScore] = []
    if sites:
        vector, scores = choose(model, sites, step, bench.shop, bench.trial(model))
    step.apply(model, bench.shop, vector)
    return before, bench.judge(model), vector, scores


class _Bench:
    """The samples of one correction: to fit on, to judge by, to choose a layer by."""

    def __init__(
        self,
        run: Run,
        artifact: Artifact,
        data: Sequence[AuditData | None],
        splitting: Splitting,
        device: torch.device,
        batch: int,
        report: Report,
    ) -> None:
        classes, (audited, validation) = len(run.classes), data
        assert audited is not None
        self.splitting, self.artifact, self.device = splitting, artifact, device
        self.pixels = Pixels(audited, classes, device, run=run, batch=batch)
        labels, usable = run.samples.read("label"), run.samples.ok
        self.judged = self.pixels
        if validation is not None:
            self.judged = Pixels(validation, classes, device, batch=batch)
            self._check_validation(self.judged)
            usable = usable & ~np.isin(run.samples.read("digest"), self.judged.digests)
        self.split: Split = splitting.split(labels, usable, artifact)
        self.of_target = self.split.clean_fit[labels[self.split.clean_fit] == artifact.target]
        rest = self.split.clean_fit[labels[self.split.clean_fit] == artifact.group]
        mask = artifact.mask(self.pixels.example)
        attack = self._attack(self.split.artifact_fit, mask)
        self.shop = Workshop(self.pixels, self.split, artifact, rest, mask, attack, report)
        self.clean = self.split.clean_held if validation is None else self.judged.all_rows

    def _check_validation(self, judged: Pixels) -> None:
        if judged.example.shape != self.pixels.example.shape:
            raise CorrectionError(
                f"validation inputs have shape {tuple(judged.example.shape[1:])}, the audited ones "
                f"{tuple(self.pixels.example.shape[1:])}: give both the same preprocessing."
            )
        if not any((labels >= 0).any() for _, _, labels in judged.batches(judged.all_rows)):
            raise CorrectionError("the validation data has no labelled sample to judge by.")

    def refuse_another(self, run: Run, model: nn.Module) -> None:
        """Refuse a model that answers other than the store says.

        Raises:
            MismatchError: so it does.
        """
        for rows, inputs, _ in self.pixels.batches(asked(run)):
            refuse_other_answers(run, model, rows, inputs)

    def judge(self, model: nn.Module) -> Outcome:
        """On what nothing was fitted on."""
        attack = self._attack(self.split.artifact_held, self.shop.mask)
        clean, inside = self.judged.batches(self.clean), self.pixels.batches(self.split.artifact_held)
        return judge(model, clean, inside, self.artifact.target, attack)

    def trial(self, model: nn.Module) -> Trial:
        """Clean samples to choose a layer by, of those to fit on, with an attack from the same."""
        rng = np.random.default_rng([self.splitting.seed, 13])
        sides = self.of_target, np.setdiff1d(self.split.clean_fit, self.of_target)
        chosen = [rng.permutation(rows)[:CHOSEN_ON] for rows in sides]
        clean = np.sort(np.concatenate(chosen))
        return Trial(model, self.pixels.repeatable(clean), self.artifact.target, self.shop.attack)

    def _attack(self, donors: Rows, mask: Bool[torch.Tensor, "h w"] | None) -> Attack | None:
        if mask is None or self.artifact.target == NO_CLASS:
            return None
        return Attack(self.artifact.target, mask, self.pixels.inputs(donors[:DONORS]))


def _sites(model: nn.Module, bench: _Bench, layer: str | Sequence[str] | None) -> list[Site]:
    """The layers that were named, or all candidates."""
    if layer is None:
        names: Sequence[str] = candidates(model, bench.pixels.example.to(bench.device))
    else:
        names = [layer] if isinstance(layer, str) else layer
    if not names:
        raise CorrectionError("the model has no part whose output could be corrected: name a layer.")
    return located(model, [Site.parse(name, model) for name in names], bench.pixels.example.to(bench.device))
