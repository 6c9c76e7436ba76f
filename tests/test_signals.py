"""Inputs that are no images: waveforms, of which one class has a planted glitch, go through the whole audit."""

import numpy as np
import pytest
import torch
from browser import Visit, chromium, in_browser, near
from torch import nn

import spray
import stores
from spray.analysis import Analysis
from spray.attribution import Attribution
from spray.attribution.display import Display, curves
from spray.signals import OnSignals, as_pictures, holds_signals

LENGTH, GRID = 128, 32
PLACE = slice(100, 104)


class Waves:
    """Noisy sines of three frequencies; 40 % of the middle ones have a glitch at one place."""

    classes = ("slow", "middle", "fast")

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        time = torch.linspace(0, 1, LENGTH)
        self.labels = torch.arange(count) % 3
        frequency = torch.tensor([4.0, 6.0, 8.0])[self.labels] + 1.5 * torch.randn(count, generator=generator)
        phase = 2 * torch.pi * torch.rand(count, generator=generator)
        waves = 0.5 * torch.sin(2 * torch.pi * frequency[:, None] * time + phase[:, None])
        self.waves = waves + 0.6 * torch.randn(count, LENGTH, generator=generator)
        self.glitch = (self.labels == 1) & (torch.rand(count, generator=generator) < 0.4)
        self.waves[self.glitch, PLACE] += torch.tensor([3.0, -3.0, 3.0, -3.0])

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.waves[row][None], int(self.labels[row])


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 8, 9, padding=4),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 16, 9, padding=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(8),
        nn.Flatten(),
        nn.Linear(128, 3),
    )


def trained(data: Waves) -> nn.Module:
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        for rows in torch.randperm(len(data)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.waves[rows][:, None]), data.labels[rows]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    data = Waves(600, seed=1)
    step = Attribution(grid=GRID, layers=("3",))
    out = tmp_path_factory.mktemp("signals") / "waves.zarr"
    return data, spray.audit(
        trained(Waves(600, seed=0)), data, out, attribution=step, analysis=Analysis(picture="none")
    )


def test_the_planted_glitch_is_found_proven_and_shown(audit):
    data, found = audit
    best, *others = found.findings
    assert best.flagged and best.group == 1
    assert data.glitch[best.rows].float().mean() >= 0.95  # purity
    assert len(best.rows) >= 0.9 * data.glitch.sum()  # recall
    assert best.region.shape == (1, GRID)
    assert PLACE.start * GRID // LENGTH in np.flatnonzero(best.region)
    assert best.parts["necessity"] > 0.3 and best.parts["sufficiency"] > 0.3
    assert best.score > 3 * max(finding.score for finding in others)


@in_browser
def test_the_report_shows_curves_with_their_relevance(audit):
    _, found = audit
    with chromium() as browser:
        visit = Visit(browser, found.report().resolve().as_uri())
        visit.settled("document.body.classList.contains('loading') === false")
        tile = visit.pixels(".tile canvas")
        assert near(tile, (0, 0, 0)) > 20  # the curve
        assert near(tile, (255, 0, 0), 90) > 20  # the relevance of the glitch
        visit.close()


def test_maps_by_place_are_one_cell_high_and_conserve_relevance(audit):
    _, found = audit
    table = found.run.table("relevance/epsilon_plus_flat")
    assert {
        name: (table.columns[name].shape, table.columns[name].axes) for name in ("input.place", "3.place")
    } == {
        "input.place": ((1, GRID), ("y", "x")),
        "3.place": ((1, GRID), ("y", "x")),
    }
    np.testing.assert_allclose(table.read("input.place").sum((1, 2)), table.read("sum"), rtol=1e-4, atol=1e-5)
    assert holds_signals(found.run) and stores.check(found.run.path) == []


def test_the_pictures_of_signals_are_their_curves(audit):
    data, found = audit
    pictures = found.run.samples.read("thumbnail")
    assert pictures.shape[1:] == (32, 64, 1)
    rows = np.arange(32)[None, :, None]
    ink = pictures[..., 0] == 0
    heights = ink.sum(1)
    assert (heights >= 1).all()  # no column without a curve
    spread = np.where(ink, rows, -1).max(1) - np.where(ink, rows, 99).min(1)
    glitch = data.glitch.numpy()
    inside = slice(PLACE.start // 2, PLACE.stop // 2)
    assert spread[glitch][:, inside].max(1).mean() > 2 * spread[~glitch][:, inside].max(1).mean()


def test_a_single_sample_is_never_left_out_of_a_curve():
    for length in (10, 64, 1000):
        for place in range(0, length, 7):
            signal = torch.zeros(1, 1, length)
            signal[0, 0, place] = 1
            assert (curves(signal, 64, 32)[0, 0, :, 0] == 0).any()  # the top row is reached
    lanes = curves(torch.rand(2, 3, 50), 40, 30)
    assert lanes.shape == (2, 30, 40, 1)
    assert all((lanes[:, 10 * lane : 10 * lane + 10] == 0).any() for lane in range(3))
    assert curves(torch.rand(1, 50, 9), 8, 4).shape == (1, 4, 8, 1)  # more channels than rows


def test_a_signal_with_holes_is_still_drawn():
    signal = torch.tensor([[[0.0, float("nan"), 1.0, float("inf")]]])
    assert Display((1.0,), (0.0,)).pictures(signal, 16).shape == (1, 8, 16, 1)


def test_signals_as_pictures_and_back():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.LazyLinear(3)).eval()
    signals = torch.rand(5, 2, 20)
    pictures = as_pictures(signals)
    assert pictures.shape == (5, 2, 1, 20) and as_pictures(pictures) is pictures
    assert torch.equal(OnSignals(model)(pictures), model(signals))
