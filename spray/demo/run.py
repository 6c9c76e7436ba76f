"""The demo job: plant a tag, train, show that the model uses it, audit without a hint, and score what was found."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from spray.analysis import Analysis
from spray.data import as_audit_data
from spray.demo import fashion, network
from spray.demo.plant import CornerTag
from spray.progress import Report, silent
from spray.workflow import Audit, audit
from stores.files import whole
from stores.provenance import Json, canonical_json, to_json

T = TypeVar("T")

TRAINED_ON = 9000


@dataclass(frozen=True)
class Demo:
    """One planted case: which class carries which tag, and the seed of everything."""

    tag: CornerTag = field(default_factory=lambda: CornerTag(label=fashion.CLASSES.index("shirt")))
    seed: int = 0
    epochs: int = 6

    def run(self, out: Path, report: Report = silent) -> dict[str, Json]:
        """Write ``audit.zarr``, ``report.html``, ``control.zarr`` and ``summary.json`` into ``out``.

        Runs again where it was interrupted: trained weights and committed shards are kept. The control, the same job
        with a model trained on untagged images, runs beside it in a process of its own.

        Returns:
            What ``summary.json`` holds.
        """
        out.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        with _one_thread(), _beside(_control, self, out) as control:
            case = _Case(self)
            model, train_seconds = self.trained(out / "model", case, case.images, report)
            found = audit(model, case.dataset(), out / "audit.zarr", report=report)
            started = time.perf_counter()
            found.report(out / "report.html", title="Fashion-MNIST with a planted tag")
            report_seconds = time.perf_counter() - started
            report(0, 1, "control")
            compared = control()
            report(1, 1, "control")
        summary: dict[str, Json] = {
            "accuracy": case.accuracy(model),
            "flip_rate_clean": case.flip_rate(model, tagged_images=False),
            "flip_rate_tagged": case.flip_rate(model, tagged_images=True),
            "planted": case.found(found),
            "control": {key: value for key, value in compared.items() if key != "seconds"},
            "seconds": {
                "train": train_seconds,
                **found.seconds,
                "report": report_seconds,
                "control": compared["seconds"],
                "total": time.perf_counter() - begin,
            },
        }
        (out / "summary.json").write_text(json.dumps(_rounded(summary), indent=2) + "\n")
        return summary

    def trained(
        self, place: Path, case: _Case, images: Float[Tensor, "n 1 28 28"], report: Report = silent
    ) -> tuple[nn.Module, float]:
        """The model trained on these images, from its file where that was made by the same recipe."""
        started = time.perf_counter()
        recipe = canonical_json(
            to_json({"demo": asdict(self), "model": place.name, "torch": torch.__version__})
        )
        weights = place.with_name(f"{place.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}.pt")
        model = network.small_cnn()
        if weights.is_file():
            model.load_state_dict(torch.load(weights, weights_only=True))
            return model.eval(), time.perf_counter() - started
        rows = case.trained_on
        network.train(
            model, images[rows], case.labels[rows], epochs=self.epochs, seed=self.seed, report=report
        )
        with whole(weights) as partial:
            torch.save(model.state_dict(), partial)
        return model, time.perf_counter() - started


def _control(demo: Demo, out: Path) -> dict[str, Json]:
    """The same images, audited with a model that was trained without tags: nothing is there to be found."""
    begin = time.perf_counter()
    with _one_thread():
        case = _Case(demo)
        model, _ = demo.trained(out / "control", case, case.originals)
        found = audit(model, case.dataset(), out / "control.zarr", analysis=Analysis(picture="none"))
    return {
        "flip_rate_tagged": case.flip_rate(model, tagged_images=True),
        "max_suspicion": max((finding.score for finding in found.findings), default=0.0),
        "flagged": len(found.flagged),
        "seconds": time.perf_counter() - begin,
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch and BLAS: this network is too small for two, which mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _beside(work: Callable[..., T], *arguments: object) -> Iterator[Callable[[], T]]:
    """Run a function in another process meanwhile; the value is a function that waits for its result."""
    from joblib.externals.loky import ProcessPoolExecutor

    executor = ProcessPoolExecutor(max_workers=1)
    future = executor.submit(work, *arguments)
    try:
        yield future.result
    except BaseException:
        executor.shutdown(wait=True, kill_workers=True)
        raise
    executor.shutdown()


class _Case:
    """The images of a planted case, with and without tags, and what is measured on them."""

    def __init__(self, demo: Demo) -> None:
        data = fashion.load()
        self.tag = demo.tag
        self.originals, self.labels = data.images, data.labels
        self.tagged: Bool[Tensor, " n"] = self.tag.chosen(self.labels)
        self.images = self.originals.clone()
        self.images[self.tagged] = self.tag.paste(self.originals[self.tagged])
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(demo.seed))
        self.trained_on: Int[Tensor, " t"] = order[:TRAINED_ON]
        self.held_out: Int[Tensor, " h"] = order[TRAINED_ON:]

    def dataset(self) -> object:
        """All images as audited: the analysis is told nothing about tags."""
        pairs = TensorDataset(self.images, self.labels)
        return as_audit_data(pairs, classes=fashion.CLASSES, mean=(0.0,), std=(1.0,))

    def accuracy(self, model: nn.Module) -> float:
        """Share of held-out images, as audited, that are classified right."""
        predictions = network.predict(model, self.images[self.held_out])
        return float((predictions == self.labels[self.held_out]).double().mean())

    def flip_rate(self, model: nn.Module, *, tagged_images: bool) -> float:
        """Share of held-out images of other classes that are taken for the tag's class."""
        rows = self.held_out[self.labels[self.held_out] != self.tag.label]
        images = self.originals[rows]
        predictions = network.predict(model, self.tag.paste(images) if tagged_images else images)
        return float((predictions == self.tag.label).double().mean())

    def found(self, audit: Audit) -> dict[str, Json]:
        """Where the tagged class and its tagged finding rank, and how well the flagged findings hold the tag."""
        findings = audit.findings
        tagged = np.flatnonzero(self.tagged.numpy())
        classes = list(dict.fromkeys(finding.group for finding in findings))
        own = [place for place, finding in enumerate(findings) if finding.group == self.tag.label]
        holder = max(own, key=lambda place: len(np.intersect1d(findings[place].rows, tagged)))
        flagged = [finding.rows for finding in audit.flagged if finding.group == self.tag.label]
        members = np.unique(np.concatenate(flagged)) if flagged else np.zeros(0, np.int64)
        hits = len(np.intersect1d(members, tagged))
        return {
            "class_rank": classes.index(self.tag.label) + 1,
            "cluster_rank": holder + 1,
            "purity": hits / len(members) if len(members) else None,
            "recall": hits / len(tagged),
        }


def _rounded(value: Json) -> Json:
    """Figures as a reader wants them: four decimals."""
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(value, 4) if isinstance(value, float) else value
