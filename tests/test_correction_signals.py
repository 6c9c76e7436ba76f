"""Corrections of models of signals: where channels are, times as places, and figures as raw signals give them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_signals import LENGTH, PLACE, Waves, trained
from torch import Tensor, nn

import spray
from spray import insertion
from spray.attribution import Attribution, attribute_dataset
from spray.correction import CAVS, CORRECTIONS, CorrectionError, save, step_of
from spray.correction.axes import located
from spray.correction.directions import Vector, written_in
from spray.correction.material import Artifact
from spray.correction.outcome import Attack
from spray.correction.sites import Site, candidates, collect
from spray.correction.vectors import Direction
from spray.data import as_audit_data
from spray.models import load_model
from stores import Finding, GroupAnalysis, Provenance, Run

MIDDLE = 1
REGION = np.zeros((1, LENGTH), bool)
REGION[0, PLACE] = True


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, nn.Module, Waves]:
    model, data = trained(Waves(300, seed=0)), Waves(300, seed=1)
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    step = Attribution(block=150, thumbnails=0)
    run = attribute_dataset(model, as_audit_data(data), path, step)
    facts = {"relevance": step.table, "column": "input.place", "group_by": "label", "grid": [1, LENGTH]}
    handle = run.create_analysis(Provenance(({"name": "drawn"},)), facts=facts)
    none = np.zeros(0, np.int64)
    handle.write(
        GroupAnalysis(MIDDLE, "empty", none, none, none, np.zeros(0), np.zeros((0, 0)), 0, 1, {}, {}, {})
    )
    rows = torch.nonzero(data.glitch)[:, 0].numpy()
    found = Finding("c1.f0", MIDDLE, "hdbscan", (0,), rows, 1.0, True, {}, REGION, REGION.astype(np.float32))
    handle.write_findings([found], Provenance(({"name": "drawn"},)))
    return run, model, data


# -- where the channels are -------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Ends in an operation that no module does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


class Turned(nn.Module):
    """Times first from here on."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def places_of(model: nn.Module, *layers: str, shape: tuple[int, ...] = (1, 2, 24)) -> list[str]:
    return [
        site.unclear or site.channels
        for site in located(model.eval(), [Site.parse(layer, model) for layer in layers], torch.rand(shape))
    ]


@pytest.mark.parametrize("channels", [8, 24])  # 24: as many as times
def test_convolutions_normalisations_pooling_and_what_follows_them_have_channels_first(channels: int) -> None:
    model = nn.Sequential(
        nn.Conv1d(2, channels, 3, padding=1),
        nn.BatchNorm1d(channels),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Sequential(nn.Conv1d(channels, channels, 3, padding=1), nn.GELU()),
        nn.MaxPool1d(1),
        nn.GroupNorm(4, channels),
        nn.AdaptiveAvgPool1d(channels),
        nn.Flatten(),
        nn.Linear(channels**2, 3),
    )
    assert places_of(model, *"01234567", "4.0", "4.1") == ["first"] * 10


def test_linear_layers_and_normalisations_of_one_axis_have_channels_last() -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 8, 1),
        Turned(),
        nn.LayerNorm(8),
        nn.Linear(8, 24),
        nn.ReLU(),
        nn.LayerNorm((24, 24)),
        nn.TransformerEncoderLayer(24, 2, 24, batch_first=True),
        nn.Flatten(),
        nn.Linear(24 * 24, 3),
    )
    assert places_of(model, *"0123456") == ["first", *["last"] * 6]


def test_parts_of_ones_own_are_told_by_how_many_channels_the_layer_before_has_or_are_not_told() -> None:
    model = nn.Sequential(nn.Conv1d(2, 8, 1), Residual(8), Turned(), nn.Linear(8, 8), nn.Flatten())
    assert places_of(model, *"123") == ["first", "last", "last"]
    square = nn.Sequential(nn.Conv1d(2, 24, 1), Residual(24), Turned(), nn.Flatten(), nn.Linear(576, 3))
    residual, turned = places_of(square, "1", "2")
    assert residual.endswith("cannot be told by its module, a Residual: name it as 1@first or 1@last")
    assert "(n, 24, 24)" in turned and "Turned" in turned
    assert places_of(square, "1@first", "2@last") == ["first", "last"]
    with pytest.raises(
        CorrectionError, match=r"'0@last': it is a Conv1d, whose channels come first\. Name it"
    ):
        places_of(square, "0@last")


def test_samples_that_are_not_first_are_told() -> None:
    class TimesFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.block, self.head = nn.Conv1d(2, 8, 1), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.block(self.conv(x).permute(2, 0, 1)).mean(0))
            return logits

    assert places_of(TimesFirst(), "block")[0].startswith("it returns (24, 1, 8) for one sample")


def test_tokens_of_images_are_places_and_four_axes_are_told_by_the_module() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 16, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens: Tensor = self.conv(x).flatten(2).transpose(1, 2)
            return tokens

    model = nn.Sequential(Patches(), nn.Linear(16, 16), Turned(), nn.Flatten(), nn.Linear(256, 3))
    assert places_of(model, "0", "0.conv", "1", shape=(1, 1, 8, 8)) == ["", "first", "last"]
    assert not Site("0").first(torch.rand(2, 16, 16))  # as many tokens as channels
    wide = nn.Sequential(nn.Conv2d(1, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 6 * 8, 3))
    for site in located(wide, [Site("0"), Site("1")], torch.rand(1, 1, 6, 8)):  # looks like (n, y, x, c)
        assert site.first(torch.rand(2, 6, 6, 8))


# -- times as places --------------------------------------------------------------------------------------------------


def test_a_region_of_a_signal_is_pasted_and_pooled_in_time() -> None:
    artifact = Artifact("c1.f0", np.arange(5), 1, np.array([[False, True, False, False]]))
    mask = artifact.mask(torch.rand(3, 2, 16))
    assert (
        mask is not None and mask.shape == (1, 16) and torch.nonzero(mask[0])[:, 0].tolist() == [4, 5, 6, 7]
    )
    hosts, donors = torch.zeros(3, 2, 16), torch.arange(64.0).reshape(2, 2, 16) + 1
    pasted = Attack(1, mask, donors).on(hosts, first=1)
    assert torch.equal(pasted[:, :, 4:8], donors[[1, 0, 1]][:, :, 4:8])
    assert pasted[:, :, :4].abs().sum() == pasted[:, :, 8:].abs().sum() == 0
    maps = torch.rand(3, 5, 8)
    shares = Site("x", "first").shares(maps, mask)
    assert shares.tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert Site("x", "last").shares(maps, mask).tolist() == [0.2] * 5  # tokens: all alike
    picture = torch.zeros(4, 4, dtype=torch.bool)
    picture[0, 0] = True
    assert Site("x", "first").shares(maps, picture).tolist() == [1 / 8] * 8  # no places of the picture
    assert artifact.mask(torch.rand(3, 2)) is None


def test_activations_are_means_over_times_of_the_region() -> None:
    model, x = (
        nn.Sequential(nn.Conv1d(2, 5, 3, padding=1), nn.Flatten(), nn.Linear(80, 3)),
        torch.rand(6, 2, 16),
    )
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 3:5] = True
    (site,) = located(model, [Site("0")], x[:1])
    kept = collect(model, [site], x.split(4), mask)[site]
    out = model[0](x).double()
    assert kept.behind == 1
    torch.testing.assert_close(kept.region, out[:, :, 3:5].mean(2).detach())
    torch.testing.assert_close(kept.everywhere, out.mean(2).detach())


def direction(channels: int) -> Direction:
    rng = np.random.default_rng(1)
    w = rng.normal(size=channels)
    return Direction(w, w + 0.3 * rng.normal(size=channels))


def test_the_artifact_is_written_at_times_of_the_region() -> None:
    h = torch.rand(2, 5, 8, dtype=torch.float64)
    vector = Vector(Site("x", "first"), direction(5), behind=1, targets={}, artifact=1.3, auc=1.0)
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 4:8] = True
    changed = written_in(h, vector, mask, torch.tensor([True, False]))
    read = torch.einsum("nct,c->nt", changed, torch.from_numpy(vector.direction.filter))
    torch.testing.assert_close(read[0, 2:4], torch.full((2,), 1.3, dtype=torch.float64))
    assert torch.equal(changed[0, :, [0, 1, 4, 5, 6, 7]], h[0, :, [0, 1, 4, 5, 6, 7]])
    assert torch.equal(changed[1], h[1])


@pytest.mark.parametrize("layer", ["0", "1"])
def test_a_projection_of_a_signal_is_folded_or_inserted_saved_and_explained(
    layer: str, tmp_path: Path
) -> None:
    model, x = signal_network(), torch.rand(3, 2, 16)
    found = direction(6)
    matrix, offset = map(torch.from_numpy, found.projection(0.7))
    inserted, folded = copy.deepcopy(model), copy.deepcopy(model)
    insertion.insert(inserted, layer, matrix, offset, behind=1)
    read = torch.einsum("nct,c->nt", inserted[: int(layer) + 1](x).double(), torch.from_numpy(found.filter))
    torch.testing.assert_close(read, torch.full_like(read, 0.7), atol=1e-5, rtol=1e-5)
    if insertion.fold(folded, layer, matrix, offset):
        torch.testing.assert_close(inserted(x), folded(x))
    torch.save(inserted.state_dict(), tmp_path / "corrected.pt")
    (tmp_path / "model.py").write_text("from test_correction_signals import signal_network\n")
    loaded = load_model(f"{tmp_path}/model.py:signal_network", tmp_path / "corrected.pt")
    assert torch.equal(loaded(x), inserted(x))
    told = spray.explain(inserted, x, 1, "lrp_epsilon")
    torch.testing.assert_close(told.logits, inserted(x))
    assert told.checks["unaccounted"].abs().max() < 1e-3 * told.checks["absolute"].max()


def signal_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(48, 3)
    ).eval()


def test_candidates_leave_out_pooling_of_signals() -> None:
    assert candidates(signal_network(), torch.rand(1, 2, 16)) == ["0", "1"]


# -- the whole ---------------------------------------------------------------------------------------------------------


def raw_figures(model: nn.Module, data: Waves) -> list[float]:
    """As a correction's ``Outcome`` has them, written plainly: a held-out share of 0.3 of each class, drawn alike."""
    glitch, labels, waves = data.glitch.numpy(), data.labels.numpy(), data.waves[:, None]
    rng, held = np.random.default_rng([0, 5]), np.zeros(len(labels), bool)
    for members in (glitch, ~glitch):
        for label in np.unique(labels):
            rows = np.flatnonzero(members & (labels == label))
            held[rng.permutation(rows)[: round(0.3 * len(rows))]] = True
    clean, donors = np.flatnonzero(held & ~glitch), np.flatnonzero(held & glitch)
    hosts = clean[labels[clean] != MIDDLE]
    attacked = waves[hosts].clone()
    attacked[:, :, PLACE] = waves[np.resize(donors, len(hosts))][:, :, PLACE]
    with torch.no_grad():
        called, pasted = model(waves).argmax(1).numpy(), model(attacked).argmax(1).numpy()

    def right(rows: np.ndarray) -> float:
        return float((called[rows] == labels[rows]).mean())

    return [
        right(clean),
        right(clean[labels[clean] == MIDDLE]),
        right(hosts),
        float((pasted == labels[hosts]).mean()),
        float((pasted == MIDDLE).mean()),
        float((called[hosts] == MIDDLE).mean()),
        right(donors),
    ]


NAMES = ("clean", "class_clean", "hosts", "attacked", "flips", "flips_before_attack", "artifact")


@pytest.mark.parametrize(
    ("method", "settings", "layer"),
    [
        ("p-clarc", {}, None),
        *(("p-clarc", {"cav": cav}, ("1", "3")) for cav in CAVS if cav != "ridge"),
        *(("p-clarc", {"against": against}, "4") for against in ("all", "pasted")),
        ("a-clarc", {}, "5"),
        *((method, {}, None) for method in CORRECTIONS if "clarc" not in method),
    ],
)
def test_figures_of_all_methods_are_those_of_the_raw_signals(
    case: tuple[Run, nn.Module, Waves], method: str, settings: dict[str, Any], layer: Any, tmp_path: Path
) -> None:
    run, model, data = case
    done = spray.correct(run, "c1.f0", model, data, method=step_of(method, **settings), layer=layer)
    for outcome, judged in ((done.before, model), (done.after, done.model)):
        assert [getattr(outcome, name) for name in NAMES] == pytest.approx(
            raw_figures(judged, data), abs=1e-6
        )
    assert (
        done.before.attacked is not None and done.after.attacked is not None and done.before.hosts is not None
    )
    assert done.before.attacked < done.before.hosts - 0.2
    if method == "a-clarc":
        assert done.after.attacked > done.before.attacked + 0.3
    if layer is None and done.layer is not None:
        assert [score.layer for score in done.layers] == ["0", "1", "3", "4", "5"]
    assert not any(score.refused for score in done.layers)
    save(done, tmp_path / "corrected.pt")
    (tmp_path / "model.py").write_text("from test_signals import network\n")
    loaded = load_model(f"{tmp_path}/model.py:network", tmp_path / "corrected.pt")
    assert torch.equal(loaded(data.waves[:5, None]), done.model(data.waves[:5, None]))


def test_layers_whose_channels_cannot_be_told_are_refused_and_others_go_on(tmp_path: Path) -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv1d(1, LENGTH, 3, padding=1), Residual(LENGTH)
            self.pool, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(LENGTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.pool(self.block(self.stem(x)))[:, :, 0])
            return logits

    torch.manual_seed(0)
    model, data = Square().eval(), Waves(210, seed=2)
    run = attribute_dataset(model, as_audit_data(data), tmp_path / "run.zarr", Attribution(thumbnails=0))
    rows = torch.nonzero(data.glitch)[:, 0].tolist()
    done = spray.correct(run, rows, model, data, layer=("stem", "block", "pool"))
    refused = {score.layer: score.refused for score in done.layers}
    assert (
        refused["stem"] == refused["pool"] == "" and "a Residual: name it as block@first" in refused["block"]
    )
    assert done.layer in ("stem", "pool")
    assert spray.correct(run, rows, model, data, layer="block@first").layer == "block"
    with pytest.raises(
        CorrectionError, match="no layer can be corrected: whether channels or times come first"
    ):
        spray.correct(run, rows, model, data, layer="block")
