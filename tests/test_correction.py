"""Corrections: closed forms of directions and projections, their life in a model, and a small planted case."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import spray
import stores
from spray import insertion
from spray.attribution import Attribution, attribute_dataset
from spray.cli import main
from spray.correction import CAV, CAVS, CORRECTIONS, CorrectionError, Splitting, save, step_of
from spray.correction.directions import Vector, written_in
from spray.correction.material import NO_CLASS, Artifact, artifact_of
from spray.correction.methods import AugmentativeClArC, RightReasons
from spray.correction.outcome import Outcome, lost
from spray.correction.sites import Site, candidates, collect
from spray.correction.tuning import FineTuning
from spray.correction.vectors import Direction, Ridge, Signal, auc, fit
from spray.data import as_audit_data
from spray.demo import fashion
from spray.demo.network import small_cnn, train
from spray.demo.plant import CornerTag
from spray.findings import MismatchError
from spray.loading import SpecError
from spray.models import load_model, model_digest
from stores import Finding, GroupAnalysis, Provenance, Run, Verdict

SIDE = 12
TAG = np.zeros((28, 28), bool)
TAG[1:4, 1:4] = True


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 36, 32),
        nn.ReLU(inplace=True),
        nn.Linear(32, 2),
    )


SHIRT = 3


def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Four classes of the demo's images, 300 each; 40 % of the shirts have a tag."""
    data = fashion.load()
    names = [fashion.CLASSES.index(name) for name in ("T-shirt", "pullover", "coat", "shirt")]
    rows = torch.cat([torch.nonzero(data.labels == name)[:300, 0] for name in names])
    labels = torch.arange(4).repeat_interleave(300)
    tag = CornerTag(SHIRT, share=0.4)
    images, chosen = data.images[rows].clone(), tag.chosen(labels)
    images[chosen] = tag.paste(images[chosen])
    return images, labels, chosen


def demo_network() -> nn.Module:
    return small_cnn(classes=4)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, nn.Module, TensorDataset]:
    x, y, tagged = planted()
    model, data = train(demo_network(), x, y, epochs=6), TensorDataset(x, y)
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    step = Attribution(block=100, thumbnails=0)
    names = ["T-shirt", "pullover", "coat", "shirt"]
    run = attribute_dataset(model, as_audit_data(data, classes=names), path, step)
    facts = {"relevance": step.table, "column": "input.place", "group_by": "label", "grid": [28, 28]}
    handle = run.create_analysis(Provenance(({"name": "drawn"},)), facts=facts)
    nothing = np.zeros(0, np.int64)
    handle.write(
        GroupAnalysis(
            SHIRT, "empty", nothing, nothing, nothing, np.zeros(0), np.zeros((0, 0)), 0, 1, {}, {}, {}
        )
    )
    rows = torch.nonzero(tagged)[:, 0].numpy()
    found = Finding("c3.f0", SHIRT, "hdbscan", (0,), rows, 1.0, True, {}, TAG, TAG.astype(np.float32))
    few = Finding("c3.f1", SHIRT, "hdbscan", (1,), rows[:4], 0.1, False, {}, None, None)
    handle.write_findings([found, few], Provenance(({"name": "drawn"},)))
    return run, model, data


# -- directions -------------------------------------------------------------------------------------------------------


def drawn(n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations with a strong distractor: h = noise + y·pattern, noise mostly along another direction."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3 == 0
    pattern, distractor = np.array([1.0, 0.5, 0, 0]), np.array([1.0, 1.0, 0, 0])
    h = 0.1 * rng.normal(size=(n, 4)) + rng.normal(size=(n, 1)) * distractor + y[:, None] * pattern
    return h, y, pattern


def test_the_signal_is_the_difference_of_means_and_finds_the_pattern() -> None:
    h, y, pattern = drawn(4000)
    signal = Signal().filter(h, y)
    assert np.allclose(signal, h[y].mean(0) - h[~y].mean(0))
    covariance = ((h - h.mean(0)) * (y - y.mean())[:, None]).mean(0) / y.var()
    assert np.allclose(signal, covariance)
    assert np.allclose(signal, pattern, atol=0.12)


@pytest.mark.parametrize("name", [name for name in CAVS if name != "signal"])
def test_filters_cancel_the_distractor_and_patterns_do_not(name: str) -> None:
    h, y, pattern = drawn()
    direction = fit(CAVS[name], h, y)
    assert abs(direction.filter @ np.array([1.0, 1.0, 0, 0])) < 0.1 < direction.filter @ pattern
    assert auc(direction.read(h), y) > 0.95 > auc(fit(CAVS["signal"], h, y).read(h), y)
    cosine = direction.pattern @ pattern / np.linalg.norm(direction.pattern) / np.linalg.norm(pattern)
    assert cosine > 0.98


def test_ridge_is_the_weighted_normal_equation() -> None:
    h, y, _ = drawn(90)
    scaled = (h - h.mean(0)) / h.std(0)
    weight = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum()))
    sign = np.where(y, 1.0, -1.0)
    centred = scaled - np.average(scaled, axis=0, weights=weight)
    gram = (centred * weight[:, None]).T @ centred + 0.3 * len(y) * np.eye(4)
    assert np.allclose(
        Ridge(0.3).filter(h, y), np.linalg.solve(gram, (centred * weight[:, None]).T @ sign) / h.std(0)
    )


def test_auc_counts_pairs() -> None:
    scores, y = np.array([0.1, 0.4, 0.4, 0.8, 0.2]), np.array([False, True, False, True, False])
    pairs = [(a > b) + (a == b) / 2 for a in scores[y] for b in scores[~y]]
    assert auc(scores, y) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(scores, np.zeros(5, bool)))


def test_bad_sides_are_refused() -> None:
    h, y, _ = drawn(30)
    for bad, labels, words in (
        (h, np.ones(30, bool), "30 with and 0 without"),
        (np.ones((30, 4)), y, "the same with and without"),
        (np.where(y[:, None], np.nan, h), y, "NaN"),
    ):
        with pytest.raises(CorrectionError, match=words):
            fit(Signal(), bad, labels)
    with pytest.raises(CorrectionError, match="must be positive"):
        Direction(np.array([1.0, 0.0]), np.array([0.0, 1.0]))


# -- projections, inserted and folded ---------------------------------------------------------------------------------


def direction(channels: int) -> Direction:
    rng = np.random.default_rng(1)
    w = rng.normal(size=channels)
    return Direction(w, w + 0.3 * rng.normal(size=channels))


def outputs(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: kept.append(out.clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize(("layer", "behind"), [("1", 2), ("0", 2), ("4", 0), ("5", 0)])
def test_after_the_projection_the_filter_reads_z_at_every_place(layer: str, behind: int) -> None:
    model, x = network().double().eval(), torch.rand(3, 1, SIDE, SIDE, dtype=torch.float64)
    before = outputs(model, layer, x)
    found = direction(before.shape[1])
    matrix, offset = map(torch.from_numpy, found.projection(0.7))
    insertion.insert(model, layer, matrix, offset, behind=behind)
    after = Site(layer).places(outputs(model, layer, x))
    w, v = torch.from_numpy(found.filter), torch.from_numpy(found.pattern)
    assert torch.allclose(after @ w, torch.full(after.shape[:2], 0.7, dtype=torch.float64))
    h = Site(layer).places(before)
    assert torch.allclose(after, h + ((0.7 - h @ w) / (w @ v))[..., None] * v)


@pytest.mark.parametrize("layer", ["0", "4"])
def test_folding_equals_the_hook(layer: str) -> None:
    hooked, x = network().eval(), torch.rand(3, 1, SIDE, SIDE)
    folded = copy.deepcopy(hooked)
    found = direction(6 if layer == "0" else 32)
    matrix, offset = map(torch.from_numpy, found.projection(0.2))
    insertion.insert(hooked, layer, matrix, offset, behind=2 * (layer == "0"))
    assert insertion.fold(folded, layer, matrix, offset)
    assert torch.allclose(hooked(x), folded(x), atol=1e-5)
    assert list(folded.state_dict()) == list(network().state_dict())


def test_what_cannot_be_folded_is_left_alone() -> None:
    bare = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU())
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    tied.append(tied[0])
    for model in (bare, tied):
        before = model_digest(model)
        assert not insertion.fold(model, "0", torch.eye(3), torch.ones(3))
        assert model_digest(model) == before


@pytest.mark.parametrize(
    "composite", ["epsilon_plus", "lrp_epsilon", "epsilon_plus_flat", "gradient_x_input"]
)
def test_lrp_runs_through_an_inserted_correction(composite: str) -> None:
    model, x = network().eval(), torch.rand(4, 1, SIDE, SIDE)
    matrix, offset = map(torch.from_numpy, direction(6).projection(0.1))
    insertion.insert(model, "1", matrix, offset, behind=2)
    told = spray.explain(model, x, 1, composite, layers=("1",))
    assert torch.allclose(told.logits, model(x), atol=1e-5)
    assert torch.isfinite(told.relevance).all() and told.relevance.abs().sum() > 0
    if composite == "lrp_epsilon":
        assert told.checks["unaccounted"].abs().max() < 1e-3 * told.checks["absolute"].max()


def test_a_corrected_model_is_found_again_by_its_state_dict(tmp_path: Path) -> None:
    model, x = network().eval(), torch.rand(2, 1, SIDE, SIDE)
    matrix, offset = map(torch.from_numpy, direction(6).projection(0.1))
    for _ in range(2):  # a second correction of the same layer is composed with the first
        insertion.insert(model, "1", matrix, offset, behind=2)
    other = map(torch.from_numpy, direction(32).projection(0.1))
    insertion.insert(model, "5", *other, behind=0)
    torch.save(model.state_dict(), tmp_path / "corrected.pt")
    spec = tmp_path / "model.py"
    spec.write_text("from test_correction import network\n")
    loaded = load_model(f"{spec}:network", tmp_path / "corrected.pt")
    assert insertion.corrected_layers(loaded) == ["1", "5"]
    assert torch.equal(loaded(x), model(x))
    assert model_digest(loaded) == model_digest(model) != model_digest(network())
    assert torch.equal(copy.deepcopy(loaded)(x), loaded(x))
    state = model.state_dict()
    torch.save({**state, "9.correction_weight": torch.eye(2)}, tmp_path / "strange.pt")
    with pytest.raises(SpecError, match="made from another model"):
        load_model(f"{spec}:network", tmp_path / "strange.pt")


def test_written_in_reads_the_target_in_the_region_of_the_chosen_only() -> None:
    h = torch.rand(2, 5, 4, 4, dtype=torch.float64)
    vector = Vector(Site("x"), direction(5), behind=2, targets={}, artifact=1.3, auc=1.0)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:2, :4] = True
    changed = written_in(h, vector, mask, torch.tensor([True, False]))
    read = torch.einsum("ncyx,c->nyx", changed, torch.from_numpy(vector.direction.filter))
    assert torch.allclose(read[0, 0, :2], torch.full((2,), 1.3, dtype=torch.float64))
    untouched = torch.ones(4, 4, dtype=torch.bool)
    untouched[0, :2] = False
    assert torch.equal(changed[0][:, untouched], h[0][:, untouched]) and torch.equal(changed[1], h[1])
    tokens = torch.rand(2, 7, 5, dtype=torch.float64)
    flat = Vector(Site("x"), direction(5), behind=0, targets={}, artifact=1.3, auc=1.0)
    everywhere = written_in(tokens, flat, None, torch.tensor([True, True]))
    assert torch.allclose(everywhere @ torch.from_numpy(flat.direction.filter), torch.tensor(1.3).double())


def test_activations_are_means_over_the_region_and_over_all_places() -> None:
    model, x = network().eval(), torch.rand(5, 1, SIDE, SIDE)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[:2, :2] = True
    kept = collect(model, [Site("1"), Site("4")], x.split(2), mask)
    whole = outputs(model, "1", x).double()
    assert torch.allclose(kept[Site("1")].region, whole[:, :, :2, :2].mean((2, 3)), atol=1e-6)
    assert torch.allclose(kept[Site("1")].everywhere, whole.mean((2, 3)), atol=1e-6)
    assert torch.equal(kept[Site("4")].region, kept[Site("4")].everywhere)
    assert torch.allclose(kept[Site("4")].region, outputs(model, "4", x).double(), atol=1e-6)


def test_candidates_lie_along_the_trunk_and_spare_the_logits() -> None:
    assert candidates(network(), torch.rand(1, 1, SIDE, SIDE)) == ["0", "1", "4", "5"]


def test_candidates_of_a_transformer_are_its_blocks() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 8, 4, 4)
            self.encoder = nn.Module()
            self.encoder.blocks = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.encoder.blocks(tokens).mean(1))

    named = candidates(Transformer(), torch.rand(1, 1, SIDE, SIDE))
    assert named == ["patches", *(f"encoder.blocks.{i}" for i in range(5))]


def test_where_channels_are_is_seen_by_the_shape_or_said() -> None:
    last, first = torch.rand(2, 7, 7, 16), torch.rand(2, 16, 7, 7)
    assert not Site("x").first(last) and Site("x").first(first)
    assert Site("x", "first").first(last) and not Site("x", "last").first(first)
    assert Site("x").places(last).shape == Site("x").places(first).shape == (2, 49, 16)
    mask = torch.zeros(14, 14, dtype=torch.bool)
    mask[:2, :2] = True
    assert Site("x").shares(last, mask).argmax() == Site("x").shares(first, mask).argmax() == 0


def test_the_penalty_is_ross_and_others() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3).double(), torch.rand(5, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    mask = torch.tensor([True, False, True, False])
    p = model(x).softmax(1)
    W = model.weight
    gradient = W.sum(0) - 3 * p @ W  # ∂/∂x Σ_k log p_k
    assert torch.allclose(
        RightReasons(penalised="gradient").loss(model, x, y, mask), (gradient[:, mask] ** 2).sum(1).mean()
    )
    products = W[y] * x
    assert torch.allclose(RightReasons().loss(model, x, y, mask), (products[:, mask] ** 2).sum(1).mean())


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CORRECTIONS)
def test_corrections_keep_the_clean_accuracy_and_raise_that_under_attack(
    case: tuple[Run, nn.Module, TensorDataset], method: str
) -> None:
    run, model, data = case
    before = model_digest(model)
    longer = step_of("rrr", epochs=12)  # so few images make few steps
    step = longer if method == "rrr" else step_of(method)
    done = spray.correct(run, "c3.f0", model, data, method=step, layer=at(step))
    assert model_digest(model) == before != model_digest(done.model)
    assert done.before.attacked is not None and done.before.hosts is not None
    assert done.before.attacked < done.before.hosts - 0.2
    assert done.after.clean > done.before.clean - 0.06
    if method != "removal":  # which shows the model no tag elsewhere
        assert done.after.attacked > done.before.attacked + 0.1
        assert done.after.flips < done.before.flips - 0.1


class Cramped(nn.Module):
    """Has memory for so many samples at once."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        logits: Tensor = self.inner(x)
        return logits


@pytest.mark.parametrize("method", ["p-clarc", "a-clarc", "rrr"])
def test_where_memory_runs_out_fewer_samples_pass_at_once_and_the_outcome_is_the_same(
    case: tuple[Run, nn.Module, TensorDataset], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model, data = case
    monkeypatch.setattr("spray.correction.stage.model_digest", lambda model: run.provenance["model"])
    options = {"epochs": 1} if method != "p-clarc" else {}
    step, layer = step_of(method, **options), None if method == "rrr" else "inner.4"
    plenty, little = (
        spray.correct(run, "c3.f0", Cramped(model, most), data, method=step, layer=layer)
        for most in (1000, 20)
    )
    for one, other in zip(plenty.model.parameters(), little.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert abs(plenty.after.clean - little.after.clean) < 0.01
    with pytest.raises(CorrectionError, match=r"one sample at a time. Another method .* or prepare smaller"):
        spray.correct(run, "c3.f0", Cramped(model, 0), data, method=step, layer=layer)


def test_a_correction_that_does_no_good_says_so(case: tuple[Run, nn.Module, TensorDataset]) -> None:
    run, model, data = case
    good = spray.correct(run, "c3.f0", model, data)
    assert good.doubt == ""
    worse = replace(good, after=replace(good.after, attacked=good.before.attacked))
    assert worse.doubt.startswith("The model is no better for it") and worse.doubt in worse._repr_html_()
    dear = replace(good, after=replace(good.after, hosts=0.0))
    assert dear.doubt.startswith("The model is no better for it")
    rows = spray.correct(run, range(900, 1200, 8), model, data, layer="4")
    assert "Nothing shows that the artifact is gone: it has no region that could be pasted" in rows.doubt
    mixed = spray.correct(run, range(0, 1200, 8), model, data, layer="4")
    assert "is gone: its samples are of several classes" in mixed.doubt and "no region" not in mixed.doubt
    alone = replace(good.before, hosts=None, attacked=None, others=0)
    of_one_class = replace(good, before=alone, after=replace(alone, class_clean=0.0))
    assert "no samples of other classes" in of_one_class.doubt and "no region" not in of_one_class.doubt
    assert "are lost in the class." in of_one_class.doubt


def test_what_a_correction_costs_is_told(case: tuple[Run, nn.Module, TensorDataset]) -> None:
    before = Outcome(0.864, 0.872, 0.86, 0.558, 0.4, 0.02, 0.938, 500, 460)
    done = spray.Corrected(nn.Identity(), "p-clarc", "9", (), before, replace(before, attacked=0.9))
    assert done.doubt == ""
    dear = replace(done, after=replace(done.after, clean=0.841, class_clean=0.615))
    assert "from 86.4 % to 84.1 % over all, from 87.2 % to 61.5 % in the finding's class" in dear.doubt
    assert dear.doubt in dear._repr_html_().replace("&#x27;", "'")
    little = replace(done, after=replace(done.after, clean=0.858, class_clean=0.83, hosts=0.856))
    assert little.doubt == ""
    others = replace(done, after=replace(done.after, hosts=0.8, class_clean=None))
    assert "86.0 % to 80.0 % in the other classes" in others.doubt and "finding's class" not in others.doubt


def test_the_class_of_a_finding_of_all_classes_is_the_one_it_was_tested_for(
    case: tuple[Run, nn.Module, TensorDataset], tmp_path: Path
) -> None:
    run, model, data = case
    joint = stores.open(shutil.copytree(run.path, tmp_path / "joint.zarr"), "r+")
    facts = {**run.analysis().facts, "group_by": "all"}
    handle = joint.create_analysis(Provenance(({"name": "joint"},)), facts=facts)
    none = np.zeros(0, np.int64)
    handle.write(
        GroupAnalysis(-1, "empty", none, none, none, np.zeros(0), np.zeros((0, 0)), 0, 1, {}, {}, {})
    )
    tagged = run.analysis().findings()[0].rows
    some = np.union1d(tagged, [5, 800])  # of other classes
    evidence: Any = {"target": SHIRT, "confirmed": True}
    drawn = {"region": TAG, "mean_map": TAG.astype(np.float32)}
    found = [
        Finding("c-1.f0", -1, "hdbscan", (0,), some, 1.0, True, {}, **drawn, evidence=evidence),
        Finding("c-1.f1", -1, "hdbscan", (1,), tagged, 0.5, False, {}, **drawn),
        Finding("c-1.f2", -1, "hdbscan", (2,), some, 0.4, False, {}, **drawn),
    ]
    handle.write_findings(found, Provenance(({"name": "joint"},)))
    groups = {name: artifact_of(joint, name, handle).group for name in ("c-1.f0", "c-1.f1", "c-1.f2")}
    assert groups == {"c-1.f0": SHIRT, "c-1.f1": SHIRT, "c-1.f2": NO_CLASS}
    done = spray.correct(joint, "c-1.f1", model, data, layer="9", analysis=handle.id)
    of_class = spray.correct(run, "c3.f0", model, data, layer="9")
    assert (done.before, done.after) == (of_class.before, of_class.after)
    assert done.doubt == of_class.doubt


def test_others_are_attacked_as_the_class_that_the_finding_was_tested_for(
    case: tuple[Run, nn.Module, TensorDataset], tmp_path: Path
) -> None:
    """Coats that wear the shirts' tag: their relevance, and what the tag makes of others, is that of a shirt."""
    model, (images, labels) = case[1], case[2].tensors
    coat, worn = 2, torch.arange(600, 900, 5)
    images = images.clone()
    images[worn] = CornerTag(SHIRT).paste(images[worn])
    data, place = TensorDataset(images, labels), tmp_path / "run.zarr"
    names, step = ["T-shirt", "pullover", "coat", "shirt"], Attribution(block=100, thumbnails=0)
    run = attribute_dataset(model, as_audit_data(data, classes=names), place, step)
    facts = {"relevance": step.table, "column": "input.place", "group_by": "label", "grid": [28, 28]}
    handle = run.create_analysis(Provenance(({"name": "drawn"},)), facts=facts)
    none = np.zeros(0, np.int64)
    handle.write(
        GroupAnalysis(coat, "empty", none, none, none, np.zeros(0), np.zeros((0, 0)), 0, 1, {}, {}, {})
    )
    rows, region = worn.numpy(), (TAG, TAG.astype(np.float32))
    evidence: Any = {"target": SHIRT}
    found = [
        Finding("c2.f0", coat, "hdbscan", (0,), rows, 1.0, True, {}, *region, evidence=evidence),
        Finding("c2.f1", coat, "hdbscan", (0,), rows, 1.0, True, {}, *region),
    ]
    handle.write_findings(found, Provenance(({"name": "drawn"},)))
    ids = tuple(str(name) for name in run.samples.read("id", rows))
    run.add_verdict(
        Verdict("finding", handle.id, "judged", "clever_hans", "", "ada", "2026-01-01T00:00:00Z", ids)
    )
    known = {name: artifact_of(run, name) for name in ("c2.f0", "c2.f1", "judged")}
    assert {it.group for it in known.values()} == {coat}
    assert [it.target for it in known.values()] == [SHIRT, coat, SHIRT]
    done, other = (spray.correct(run, name, model, data, layer="9") for name in ("c2.f0", "c2.f1"))
    assert done.before.flips > done.before.flips_before_attack + 0.2 > other.before.flips + 0.2
    assert done.after.flips < done.before.flips - 0.2
    assert (
        done.record["artifact"]["class_name"] == "coat" and done.record["artifact"]["target_name"] == "shirt"
    )
    assert (
        done.note
        == "The finding's samples are of 'coat'; its class here is 'shirt', which it was tested for."
    )
    assert "its class here is" in done._repr_html_() and other.note == ""
    healed = replace(done, after=replace(done.after, attacked=done.before.attacked, artifact=0.9))
    assert not healed.doubt.startswith("The model is no better")
    assert replace(healed, record={}).doubt.startswith("The model is no better")


def test_a_verdict_that_nobody_holds_any_more_is_not_corrected(
    case: tuple[Run, nn.Module, TensorDataset], tmp_path: Path
) -> None:
    run = stores.open(shutil.copytree(case[0].path, tmp_path / "run.zarr"), "r+")
    ids = tuple(str(name) for name in run.samples.read("id", artifact_of(run, "c3.f0").rows[:40]))

    def say(verdict: Any, who: str, minute: int) -> Verdict:
        said = Verdict("cluster", "old", "seen", verdict, "", who, f"2026-01-01T00:0{minute}:00Z", ids)
        run.add_verdict(said)
        return said

    condemned = say("clever_hans", "ada", 0)
    say("withdrawn", "ada", 2)
    for name in ("seen", condemned.digest[:12]):
        with pytest.raises(
            CorrectionError, match=r"nothing to unlearn \(ada: withdrawn\).*name the finding itself"
        ):
            artifact_of(run, name)
    say("valid", "bob", 3)
    with pytest.raises(CorrectionError, match="ada: withdrawn, bob: valid"):
        artifact_of(run, "seen")
    say("clever_hans", "eve", 1)
    assert len(artifact_of(run, "seen").rows) == 40


def test_the_same_seed_gives_the_same_weights(case: tuple[Run, nn.Module, TensorDataset]) -> None:
    run, model, data = case
    step = step_of("a-clarc", epochs=1, seed=1)
    once, again = (spray.correct(run, "c3.f0", model, data, method=step, layer="9") for _ in range(2))
    assert model_digest(once.model) == model_digest(again.model)
    assert once.record == again.record


def at(step: Any) -> str | None:
    return None if step.chosen_by is None else "9"


def test_the_best_layer_is_taken_and_other_data_can_judge(case: tuple[Run, nn.Module, TensorDataset]) -> None:
    run, model, data = case
    x, y = data.tensors[0][:300], data.tensors[1][:300]
    done = spray.correct(run, "c3.f0", model, data, validation=TensorDataset(x, y))
    assert [score.layer for score in done.layers] == ["0", "1", "3", "4", "6", "7", "9", "10"]
    chosen = next(score for score in done.layers if score.layer == done.layer)
    assert chosen.auc is not None and chosen.auc > 0.95 and done.record["aim"] == chosen.aim
    assert chosen.attacked is not None and chosen.clean is not None and chosen.cost is not None
    assert all(it.attacked - it.cost <= chosen.attacked - chosen.cost for it in done.layers)
    assert done.record["against"] == chosen.against in ("class", "pasted")
    assert done.before.samples == done.before.others == 300
    assert done.before.class_clean is None
    assert done.after.attacked > done.after.hosts - 0.05 > done.before.attacked
    told = done._repr_html_()
    assert f"at {done.layer}" in told and f"{100 * done.after.attacked:.1f} %" in told and "–" in told


def test_what_one_side_gains_pays_for_no_loss_of_the_other() -> None:
    before = Outcome(0.8, 0.6, 0.82, 0.4, 0.3, 0.02, 1.0, 100, 90)
    assert lost(before, replace(before, class_clean=0.9, hosts=0.77)) == pytest.approx(0.05)
    assert lost(before, replace(before, class_clean=0.5, hosts=0.9)) == pytest.approx(0.1)
    assert lost(before, replace(before, class_clean=0.7, hosts=0.9)) == 0
    assert lost(before, replace(before, class_clean=None, hosts=None)) == 0


def test_a_direction_is_fitted_against_the_class_or_by_pasting(
    case: tuple[Run, nn.Module, TensorDataset],
) -> None:
    run, model, data = case
    pasted, of_class = (correct_at(case, "9", against) for against in ("pasted", "class"))
    assert (pasted.record["against"], of_class.record["against"]) == ("pasted", "class")
    assert model_digest(pasted.model) != model_digest(of_class.model)
    assert pasted.after.attacked > pasted.before.attacked + 0.2
    with pytest.raises(CorrectionError, match="no region"):
        spray.correct(
            run, range(900, 1200, 8), model, data, method=step_of("p-clarc", against="pasted"), layer="9"
        )


def test_nothing_is_pasted_where_there_is_nothing_to_paste_on() -> None:
    shop: Any = SimpleNamespace(
        attack=object(), rest=np.arange(9), hosts=np.zeros(0), artifact=Artifact("c0.f0", np.arange(9), 0)
    )
    assert CAV().sides(shop) == {"class": ("fit", "rest")}
    with pytest.raises(CorrectionError, match="has no clean sample of another class"):
        CAV(against="pasted").sides(shop)


def correct_at(case: tuple[Run, nn.Module, TensorDataset], layer: str, against: str) -> spray.Corrected:
    return spray.correct(case[0], "c3.f0", *case[1:], method=step_of("p-clarc", against=against), layer=layer)


def test_a_verdict_or_rows_can_be_corrected_too(case: tuple[Run, nn.Module, TensorDataset]) -> None:
    run, _, _ = case
    rows = artifact_of(run, "c3.f0").rows
    ids = tuple(str(name) for name in run.samples.read("id", rows[:40]))
    writable = stores.open(run.path, "r+")
    verdict = Verdict("cluster", "old", "c3.kmeans.7", "clever_hans", "", "ada", "2026-01-01T00:00:00Z", ids)
    writable.add_verdict(verdict)
    for name in ("c3.kmeans.7", verdict.digest[:12]):
        found = artifact_of(writable, name)
        assert found.rows.tolist() == rows[:40].tolist() and found.group == SHIRT
        assert found.region is not None and (found.region == TAG).all()
    assert artifact_of(run, rows[:20].tolist()).region is None


def test_mistakes_are_named_with_the_way_out(case: tuple[Run, nn.Module, TensorDataset]) -> None:
    run, model, data = case

    def refused(
        words: str, what: object = "c3.f0", error: type[Exception] = CorrectionError, **options: object
    ) -> None:
        with pytest.raises(error, match=words):
            spray.correct(run, what, **{"model": model, "dataset": data, **options})

    refused("no finding or verdict 'c9.f9'.*c3.f0, c3.f1", "c9.f9")
    refused("at least 5 are needed", "c3.f1")
    refused("no module 'nine'", layer="nine")
    refused("after @ stands", layer="0@middle")
    refused("there is no correction 'magic'. There are: p-clarc", method="magic")
    refused("takes no layer", method="removal", layer="4")
    refused("no members", [])
    refused("rows go from 0 to 1199", [1200])
    refused("has no region", range(900, 1200, 8), method="rrr")
    refused("other ids", error=MismatchError, dataset=TensorDataset(*data[:50]))
    refused("other pixels", error=MismatchError, dataset=TensorDataset(data.tensors[0] + 1, data.tensors[1]))
    refused("digest", error=MismatchError, model=demo_network())
    smooth = copy.deepcopy(model)
    for name, part in list(smooth.named_modules()):
        if isinstance(part, nn.ReLU):
            smooth.set_submodule(name, nn.GELU())
    assert model_digest(smooth) == model_digest(model)
    refused("gives other answers", error=MismatchError, model=smooth)
    unlabelled = [(image, -1) for image in data.tensors[0][:20]]
    refused("no labelled sample", validation=unlabelled)
    for make, words in (
        (lambda: Splitting(2.0), "held_out is 2"),
        (lambda: FineTuning(epochs=0), "epochs is 0"),
        (lambda: AugmentativeClArC(share=0), "share is 0"),
        (lambda: RightReasons(weight=-1), "weight is -1"),
        (lambda: step_of("removal", cav="svm"), "has no estimator"),
        (lambda: step_of("p-clarc", cav="magic"), "there is no direction 'magic'"),
        (lambda: step_of("p-clarc", epochs=3), "has no epochs"),
    ):
        with pytest.raises(CorrectionError, match=words):
            make()


def test_what_is_saved_is_loaded_again_and_nothing_is_overwritten(
    case: tuple[Run, nn.Module, TensorDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model, data = case
    done = spray.correct(run, "c3.f0", model, data, layer="1")
    weights, record = save(done, tmp_path / "corrected.pt")
    told = json.loads(record.read_text())
    assert told["format"] == "spray-correction" and told["layer"] == "1"
    assert told["model_before"] == model_digest(model) and told["after"]["clean"] == done.after.clean
    spec = tmp_path / "model.py"
    spec.write_text("from test_correction import demo_network\n")
    loaded = load_model(f"{spec}:demo_network", weights)
    assert model_digest(loaded) == told["model_after"]
    with pytest.raises(CorrectionError, match="there already"):
        save(done, weights)
    before = weights.read_bytes()
    save(done, weights, force=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save(done, weights, force=True)
    assert not record.exists()  # which would be told of weights that it is not of
    save(done, weights, force=True)
    save(done, tmp_path / "again" / "corrected.pt")
    assert weights.read_bytes() == (tmp_path / "again" / "corrected.pt").read_bytes() == before
    with pytest.raises(CorrectionError, match=r"such as corrected\.pt"):
        save(done, tmp_path / "corrected.json")
    assert {path.name for path in tmp_path.iterdir()} >= {"corrected.pt", "corrected.json"}
    assert not list(tmp_path.glob(".*partial"))


def test_the_command(case: tuple[Run, nn.Module, TensorDataset], tmp_path: Path) -> None:
    run, model, data = case
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.save({"x": data.tensors[0], "y": data.tensors[1]}, tmp_path / "data.pt")
    (tmp_path / "case.py").write_text(
        "import torch\nfrom pathlib import Path\nfrom test_correction import demo_network\n"
        "def data():\n    held = torch.load(Path(__file__).parent / 'data.pt', weights_only=True)\n"
        "    return torch.utils.data.TensorDataset(held['x'], held['y'])\n"
    )
    flags = ["--model", f"{tmp_path}/case.py:demo_network", "--weights", f"{tmp_path}/model.pt"]
    flags += ["--data", f"{tmp_path}/case.py:data", "--quiet", "--device", "cpu"]
    base = [
        "correct",
        str(run.path),
        "--finding",
        "c3.f0",
        "--out",
        str(tmp_path / "out.pt"),
        "--layer",
        "9",
        *flags,
    ]
    shown = CliRunner().invoke(main, base)
    assert shown.exit_code == 0, shown.output
    (log,) = Path(f"{run.path}.log").glob("*-correct-*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "saved", "end"]
    assert events[0]["what"] == "c3.f0" and events[1]["weights"] == str(tmp_path / "out.pt")
    assert "attacked" in shown.output and "load it with --weights" in shown.output
    refused = CliRunner().invoke(main, base)
    assert refused.exit_code == 1 and "there already" in refused.output
    told = CliRunner().invoke(main, [*base, "--force", "--json", "--method", "a-clarc", "--epochs", "1"])
    assert told.exit_code == 0, told.output
    result = json.loads(told.output)
    assert result["step"]["tuning"]["epochs"] == 1 and result["layer"] == "9"
    assert result["after"]["attacked"] is not None
