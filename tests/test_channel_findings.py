"""Channels of a layer, suppressed and injected through hooks: a cue without a place, and what no channel carries."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spray.findings.channels import TopChannels, unit_vectors
from spray.findings.verification import (
    Candidate,
    ClassMaps,
    Evidence,
    Requirements,
    SiteError,
    Verification,
    completed,
    verify,
)
from spray.findings.verification.effects import Control, Effect
from spray.findings.verification.judge import LOGIT, PROBABILITY, Judge
from spray.findings.verification.sites import LayerSite
from spray.signals import OnSignals

CPU = torch.device("cpu")
CHANNELS, CUE = 12, 7
STEP = Verification(members=40, screened=30, channels=(TopChannels(share=1 / CHANNELS),), permutations=999)


class Net(nn.Module):
    """Each pixel's channels pass a layer; class 1 by the mean of one of them, less a bias that makes it rare."""

    def __init__(self, strength: float, bias: float = 0.0) -> None:
        super().__init__()
        self.layer, self.strength, self.bias = nn.Identity(), strength, bias

    def forward(self, x: Tensor) -> Tensor:
        cue = self.layer(x).mean((2, 3))[:, CUE]
        return torch.stack([torch.zeros_like(cue), self.strength * (cue - 0.5) - self.bias], dim=1)


def case() -> tuple[Tensor, np.ndarray]:
    """40 images with the cue somewhere else in each, 60 others of the class, 80 hosts; relevance by channel."""
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.random((180, CHANNELS, 6, 6), np.float32) * 0.2)
    data[:40, CUE] += 1
    relevance = rng.random((100, CHANNELS)) * 0.3
    relevance[:40, CUE] = 1
    relevance[40:, 2] = 1
    return data, relevance


def proof(net: nn.Module, measure: int = PROBABILITY, layer: str = "layer") -> tuple[Evidence, ClassMaps]:
    data, relevance = case()
    maps = ClassMaps(
        1, np.arange(100), relevance, np.arange(100, 180), np.zeros(80, np.int64), layer, measure
    )
    (evidence,) = verify(
        STEP, net, lambda rows: data[torch.from_numpy(rows)], maps, [Candidate(np.arange(40))], CPU
    )
    assert evidence is not None
    return evidence, maps


def test_a_channel_that_the_class_rests_on_is_proven_and_its_members_completed() -> None:
    net = Net(12.0).eval()
    evidence, maps = proof(net)
    assert evidence.where == "channels" and np.flatnonzero(evidence.region).tolist() == [CUE]
    assert Requirements().unmet(evidence) == ()
    assert set(evidence.removal.ways) == {"neighbour", "mean of others"}
    assert evidence.moved is None and evidence.pictures == {}
    data, _ = case()
    fewer = Candidate(np.arange(25), evidence.region)
    found = completed(STEP, net, lambda rows: data[torch.from_numpy(rows)], maps, fewer, CPU)
    assert found.tolist() == list(range(40))


def test_every_image_has_other_channels_of_its_own_for_a_control() -> None:
    class Uneven(Net):
        def forward(self, x: Tensor) -> Tensor:
            each = self.layer(x).mean((2, 3))
            cue = each[:, CUE] + each @ torch.arange(CHANNELS).float() / 100
            return torch.stack([torch.zeros_like(cue), self.strength * (cue - 0.5)], dim=1)

    data, relevance = case()
    data[:40] = data[0]
    maps = ClassMaps(1, np.arange(100), relevance, np.arange(100, 180), np.zeros(80, np.int64), "layer")
    net, read = Uneven(12.0).eval(), lambda rows: data[torch.from_numpy(rows)]
    (evidence,) = verify(STEP, net, read, maps, [Candidate(np.arange(40))], CPU)
    assert evidence is not None and evidence.candidate
    falls = evidence.removal.controls["random"]["mean of others"].values[:, LOGIT]
    assert len(falls) == 20 and len(np.unique(falls.round(6))) > 5  # of twenty images that are all the same


def test_channels_without_influence_are_not() -> None:
    evidence, _ = proof(Net(0.0).eval())
    assert not evidence.candidate and evidence.score == 0


def test_where_the_class_is_never_predicted_log_odds_decide() -> None:
    evidence, _ = proof(Net(6.0, bias=12.0).eval(), LOGIT)
    assert evidence.flip_rates["shared"] == 0
    assert Requirements().unmet(evidence) == ()
    assert evidence.removal.net > 4 and 0.5 < evidence.score < 1
    in_probability, _ = proof(Net(6.0, bias=12.0).eval(), PROBABILITY)
    assert "necessity" in Requirements().unmet(in_probability)


@pytest.mark.parametrize(
    ("removed", "elsewhere", "pasted", "missing"),
    [
        (0.9, -2.0, 1.5, set()),  # others suppressed raise the class by 2: 2.9 beyond that
        (0.9, 0.0, 1.5, {"necessity"}),
        (-0.1, -2.0, 1.5, {"necessity"}),  # it has to fall at all
        (0.9, -2.0, 0.9, {"sufficiency"}),  # what is pasted has to do it by itself
    ],
)
def test_removal_is_compared_with_the_same_done_elsewhere(
    removed: float, elsewhere: float, pasted: float, missing: set[str]
) -> None:
    """Suppressing any channels takes from the competitors of a class that is hardly ever predicted."""

    def effect(name: str, size: float, control: float) -> Effect:
        own, other = (np.tile([0.0, value, 0.0], (20, 1)) for value in (size, control))
        return Effect(name, {"a": own, "b": own}, {"random": {w: Control.of(other) for w in "ab"}}, LOGIT)

    evidence = Evidence(
        np.ones(1, bool),
        "channels",
        True,
        effect("removal", removed, elsewhere),
        effect("t", pasted, elsewhere),
        {},
        9,
    )
    assert set(Requirements().unmet(evidence)) & {"necessity", "sufficiency"} == missing


def test_a_layer_that_does_not_exist_is_named() -> None:
    with pytest.raises(SiteError, match=r"no module 'layer\.4'.*layer"):
        proof(Net(1.0).eval(), layer="layer.4")


def test_unit_vectors_and_the_channels_on_top() -> None:
    units = unit_vectors(np.array([[3.0, -4.0], [0.0, 0.0]]))
    assert units.tolist() == [[0.6, -0.8], [0.0, 0.0]]
    top = TopChannels(share=0.5)
    assert top.of(np.array([0.1, 0.4, -1.0, 0.2])).tolist() == [False, True, False, True]
    assert top.of(np.array([-0.1, -0.4])).tolist() == [False, False]
    assert top.of(np.array([0.1, 0.4, 0.3]), cells=1).tolist() == [False, True, False]


def test_channels_of_signals_come_before_their_times_also_where_there_are_as_many() -> None:
    model = nn.Sequential(nn.Conv1d(2, 6, 1), nn.Flatten(), nn.Linear(36, 2)).eval()
    chosen = np.arange(6) == 2
    for seen, shape in ((OnSignals(model).eval(), (1, 6, 1)), (model, (1, 1, 6))):  # tokens have them last
        site = LayerSite(Judge(seen, 0, CPU, 8), "0", 6)
        mask = site.masks(chosen[None], torch.rand(3, 6, 6))
        assert mask.shape == shape and mask.flatten().tolist() == chosen.tolist()
