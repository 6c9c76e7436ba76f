"""What the model says of images: measures, batches that shrink, channels replaced in the middle of the model."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spray.findings.discriminant import held_out_line, upper_mode
from spray.findings.verification import SiteError
from spray.findings.verification.fills import ChannelMeanFill, LocalMeanFill, transplant
from spray.findings.verification.judge import LOGIT, PROBABILITY, Judge
from spray.findings.verification.membership import discerned, reliance, relying
from spray.findings.verification.sites import LayerSite, PixelSite
from spray.findings.verification.trial import Material, Part

CPU = torch.device("cpu")


def test_measures_against_a_plain_writing() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0], [30.0, -20.0, 0.0]], dtype=torch.float64)
    found = Judge(nn.Identity(), 1, CPU).read(logits)
    p = logits.softmax(1)[:, 1].numpy()
    assert found[:, PROBABILITY] == pytest.approx(p)
    assert found[:, LOGIT] == pytest.approx(np.log(p) - np.log1p(-p))
    assert found[:, 2].tolist() == [1, 0]


class Limited(nn.Module):
    """Runs out of memory on more than ``most`` images."""

    def __init__(self, most: int, message: str = "CUDA out of memory. Tried to allocate 2 GiB") -> None:
        super().__init__()
        self.most, self.message, self.seen = most, message, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise RuntimeError(self.message)
        return x


@pytest.mark.parametrize(
    "message", ["CUDA out of memory.", "DefaultCPUAllocator: not enough memory: you tried"]
)
def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(message: str) -> None:
    images = torch.arange(44.0).reshape(22, 2)
    model = Limited(6, message)
    judge = Judge(model, 0, CPU, batch=20)
    assert np.array_equal(judge.read(images), Judge(nn.Identity(), 0, CPU).read(images))
    assert model.seen == [20, 10, 5, 5, 5, 5, 2]
    judge.read(images)
    assert judge.batch == 5  # learned once


def test_other_errors_and_single_images_that_do_not_fit_are_told() -> None:
    with pytest.raises(MemoryError, match="does not suffice for one image"):
        Judge(Limited(0), 0, CPU, batch=4).read(torch.zeros(3, 2))
    with pytest.raises(RuntimeError, match="shape"):
        Judge(Limited(0, "wrong shape"), 0, CPU).read(torch.zeros(3, 2))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()


def test_channels_are_replaced_where_they_are_and_nowhere_else(net: nn.Module) -> None:
    images = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    site = LayerSite(Judge(net, 1, CPU, batch=2), "0", 4)
    before = [parameter.clone() for parameter in net.parameters()]
    content = site.content(images)
    with torch.no_grad():
        assert torch.allclose(content, net[0](images))  # before the activation that works in place
    assert np.allclose(site.read(images, content), site.judge.read(images))
    mask = site.masks(np.array([[False, True, False, False]]), content)
    changed = torch.where(mask, torch.zeros(()), content)
    kept = changed.clone()
    with torch.no_grad():
        expected = net[1:](changed.clone()).softmax(1)[:, 1].numpy()
    assert np.allclose(site.read(images, changed)[:, PROBABILITY], expected)
    assert torch.equal(changed, kept)
    assert not net[0]._forward_hooks
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 5), (3, 9, 4), (3, 7, 7, 4)])
def test_masks_find_the_axis_of_the_channels(net: nn.Module, shape: tuple[int, ...]) -> None:
    site = LayerSite(Judge(net, 1, CPU), "0", 4)
    mask = site.masks(np.eye(4, dtype=bool)[:2], torch.zeros(shape))
    assert mask.expand(2, *shape[1:]).sum() == 2 * np.prod(shape[1:]) / 4


def test_layers_and_channels_that_do_not_exist_are_named(net: nn.Module) -> None:
    judge = Judge(net, 1, CPU)
    with pytest.raises(SiteError, match=r"no module 'features\.9'"):
        LayerSite(judge, "features.9", 4)
    with pytest.raises(SiteError, match="6 channels"):
        LayerSite(judge, "0", 6).masks(np.ones((1, 6), bool), torch.zeros(2, 4, 3, 3))
    twice = nn.Sequential(net[0], nn.Conv2d(4, 1, 1))
    shared = nn.Sequential(twice, twice, nn.Flatten())
    with pytest.raises(SiteError, match="2 times"):
        LayerSite(Judge(shared, 0, CPU), "0.0", 4).content(torch.zeros(1, 1, 3, 3))

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x)[0]

    with pytest.raises(SiteError, match="returns tuple"):
        LayerSite(Judge(First(), 0, CPU), "pair", 2).content(torch.zeros(1, 2))


def test_the_mean_of_others_takes_the_place_of_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    content, others = torch.rand(3, 4, 2, 2, generator=generator), torch.rand(7, 4, 2, 2, generator=generator)
    mask = torch.tensor([False, True, False, False]).reshape(1, 4, 1, 1)
    filled = ChannelMeanFill().apply(content, mask, others, generator)
    assert torch.allclose(filled[:, 1], others[:, 1].mean(0).expand(3, 2, 2))
    assert torch.equal(filled[:, [0, 2, 3]], content[:, [0, 2, 3]])
    assert torch.equal(transplant(content, others[:3], mask)[:, 1], others[:3, 1])


class TagReader(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        cue = 16 * (x[:, 0, :3, :3].mean((1, 2)) - 0.5)
        return torch.stack([0 * cue, cue], dim=1)


def test_membership_follows_reliance_not_the_cluster() -> None:
    data = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2
    data[:30, :, :3, :3] = 1
    site = PixelSite(Judge(TagReader(), 1, CPU, batch=16))
    region = np.zeros((1, 8, 8), bool)
    region[:, :3, :3] = True
    hosts = Material.at(site, torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.2)
    samples = Material.at(site, data)
    part = Part(samples, site.masks(region, data))
    effects = reliance(site, part, hosts, LocalMeanFill(), hosts, seed=0)
    clustered = np.zeros(80, bool)
    clustered[:20] = clustered[75:] = True  # ten tagged ones are missing, five others are in
    assert np.array_equal(relying(clustered, effects), np.arange(80) < 30)


def test_membership_stays_where_interventions_tell_nothing_apart() -> None:
    members = np.arange(10) < 4
    assert np.array_equal(relying(members, np.zeros((10, 2))), members)
    everyone = np.ones(10, bool)
    assert np.array_equal(relying(everyone, np.random.default_rng(0).normal(size=(10, 2))), everyone)


def test_what_those_who_rely_have_in_common_tells_the_others_better_than_noisy_effects() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(400) < 80
    relevance = rng.normal(size=(400, 12)) + 6.0 * truth[:, None] * (np.arange(12) < 3)
    effects = rng.normal(size=(400, 2)) + 3.0 * truth[:, None]
    clustered = truth ^ (rng.random(400) < 0.15)
    by_effects = relying(clustered, effects)
    told = discerned(by_effects, effects, relevance, seed=0)
    assert (by_effects != truth).sum() >= 2 * (told != truth).sum() > 0
    assert not (told & ~truth).any()


def test_who_belongs_is_told_by_samples_other_than_oneself() -> None:
    """Noise in as many dimensions as samples: a direction fitted on all of them would tell every member."""
    rng = np.random.default_rng(0)
    inside = np.arange(60) < 20
    line = held_out_line(rng.normal(size=(60, 60)), inside, seed=0)
    assert line is None or abs(np.median(line[inside]) - np.median(line[~inside])) < 0.5
    assert held_out_line(rng.normal(size=(60, 4)), np.arange(60) < 3, seed=0) is None
    assert held_out_line(np.ones((60, 4)), inside, seed=0) is None


def test_too_few_members_are_left_as_they_are() -> None:
    rng = np.random.default_rng(0)
    members = np.arange(40) < 8
    effects = rng.normal(size=(40, 2)) * 0.1 + members[:, None]
    assert np.array_equal(discerned(members, effects, rng.normal(size=(40, 3)), seed=0), members)


def test_a_mode_of_its_own_is_told_from_the_tail_of_another() -> None:
    rng = np.random.default_rng(0)
    tail = rng.normal(size=2000) - 1.0  # one in six lies above 0
    assert upper_mode(tail) < 0.2 and upper_mode(rng.exponential(size=2000) - 1.0) < 0.2
    assert upper_mode(np.concatenate([rng.normal(-3, 1, 1900), rng.normal(3, 0.7, 100)])) > 0.9
    assert upper_mode(-np.ones(50)) == 0 and upper_mode(np.full(50, np.nan)) == 0
