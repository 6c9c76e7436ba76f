"""Does correcting a model of a finding take the shortcut away, and at what cost? Planted tags on the demo's images.

    python benchmarks/correction.py                          # three plants, all methods: about 15 minutes
    python benchmarks/correction.py --only shirt --json
    python benchmarks/correction.py --directions             # P-ClArC by direction and layer, no re-audit

A tag is planted in a fifth of a class, a small CNN trained on 9000 images and audited on these. The finding that the
audit ranks first is corrected by each method, each at its defaults; the layer is chosen by samples to fit on. Judged on
1000 images that neither training nor correction saw, without tags: clean accuracy, and accuracy with the finding's
content pasted on images of other classes. Then the corrected model is audited again: is the finding gone?
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # scripts of this folder that are named like packages would hide those

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

import spray
from spray.correction import CAVS, CORRECTIONS, step_of
from spray.data import as_audit_data
from spray.demo import fashion, network
from spray.demo.plant import CornerTag
from spray.models import model_digest

TRAINED_ON = 9000


@dataclass(frozen=True)
class Plant:
    class_name: str
    corner: str
    seed: int

    @property
    def label(self) -> int:
        return fashion.CLASSES.index(self.class_name)


PLANTS = (
    Plant("shirt", "top left", 0),
    Plant("pullover", "top right", 2),
    Plant("T-shirt", "bottom left", 3),
)


class Case:
    """A trained model, its audit, and images it has not seen."""

    def __init__(self, plant: Plant, folder: Path, epochs: int) -> None:
        data = fashion.load()
        tag = CornerTag(plant.label, plant.corner, seed=plant.seed)
        images, labels = data.images.clone(), data.labels
        self.tagged = tag.chosen(labels)
        images[self.tagged] = tag.paste(images[self.tagged])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(plant.seed))
        seen, unseen = order[:TRAINED_ON].sort().values, order[TRAINED_ON:].sort().values
        self.tagged = self.tagged[seen].numpy()
        self.data = as_audit_data(
            TensorDataset(images[seen], labels[seen]), classes=fashion.CLASSES, mean=(0.0,), std=(1.0,)
        )
        self.validation = TensorDataset(data.images[unseen], labels[unseen])
        self.model = self.trained(folder / "model.pt", images[seen], labels[seen], epochs, plant.seed)
        self.folder = folder
        self.audit = self.audited(self.model, "before")
        self.finding = self.audit.findings[0]

    def trained(
        self, place: Path, images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int
    ) -> torch.nn.Module:
        model = network.small_cnn()
        if place.exists():
            model.load_state_dict(torch.load(place, weights_only=True))
            return model.eval()
        network.train(model, images, labels, epochs=epochs, seed=seed)
        torch.save(model.state_dict(), place)
        return model

    def audited(self, model: torch.nn.Module, name: str) -> spray.Audit:
        place = self.folder / f"{name}-{model_digest(model)[:8]}.zarr"
        return spray.audit(model, self.data, place, analysis=spray.Analysis(picture="none"))

    def corrected(self, method: object, **options: object) -> spray.Corrected:
        return spray.correct(
            self.audit.run,
            self.finding.name,
            self.model,
            self.data,
            method=method,
            validation=self.validation,
            **options,
        )

    def left(self, audit: spray.Audit) -> dict:
        """What an audit says of the samples of the first finding."""
        own = [finding for finding in audit.findings if finding.group == self.finding.group]
        shared = [len(np.intersect1d(finding.rows, self.finding.rows)) for finding in own]
        nearest = own[int(np.argmax(shared))] if own else None
        return {
            "flagged": sum(finding.flagged for finding in own),
            "flagged_elsewhere": sum(finding.flagged for finding in audit.findings)
            - sum(f.flagged for f in own),
            "suspicion": None if nearest is None else round(nearest.score, 3),
            "shared": max(shared, default=0),
        }


def rounded(outcome: object) -> dict:
    told = outcome.to_json()
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}


def run(plant: Plant, folder: Path, epochs: int, methods: list[str]) -> dict:
    case = Case(plant, folder, epochs)
    hits = int(case.tagged[case.finding.rows].sum())
    result = {
        "plant": f"{plant.class_name}, {plant.corner}",
        "finding": {
            "class": fashion.CLASSES[case.finding.group],
            "precision": round(hits / len(case.finding.rows), 3),
            "recall": round(hits / int(case.tagged.sum()), 3),
        },
        "before": case.left(case.audit),
        "methods": [],
    }
    if (
        hits < len(case.finding.rows) / 2
    ):  # the audit ranks something else first: there is nothing to judge by
        return result
    for name in methods:
        started = time.process_time()
        done = case.corrected(name)
        seconds = time.process_time() - started
        result["outcome_before"] = rounded(done.before)
        row = {"method": name, "layer": done.layer, **rounded(done.after), "cpu_seconds": round(seconds, 1)}
        row["again"] = case.left(case.audited(done.model, name))
        result["methods"].append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return result


def directions(plant: Plant, folder: Path, epochs: int) -> list[dict]:
    """P-ClArC at the layer of its choice, by direction, by what the samples stand against, and by where it aims."""
    case = Case(plant, folder, epochs)
    steps = {
        (cav, against, aim): replace(step_of("p-clarc", cav=cav, against=against), aim=aim)
        for cav in CAVS
        for against in ("class", "all")
        for aim in ("best", "all", "class")
    }
    rows = []
    for (cav, against, aim), step in steps.items():
        done = case.corrected(step)
        row = {"plant": plant.class_name, "cav": cav, "against": against, "aim": aim, "layer": done.layer}
        rows.append(row | {"before": rounded(done.before), "after": rounded(done.after)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the plants whose class begins with this")
    parser.add_argument("--method", action="append", choices=list(CORRECTIONS), help="only this; repeatable")
    parser.add_argument("--directions", action="store_true", help="P-ClArC by direction instead")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--cache", type=Path, help="keeps weights and audits here, to go on from")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for plant in PLANTS:
        if not plant.class_name.startswith(options.only):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.cache / plant.class_name if options.cache else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            if options.directions:
                results.extend(directions(plant, folder, options.epochs))
            else:
                results.append(run(plant, folder, options.epochs, options.method or list(CORRECTIONS)))
        if not options.json:
            print(json.dumps(results[-1] if not options.directions else results, indent=1), flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
