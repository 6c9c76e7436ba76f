"""Interventions on models whose strategy is known: only what is necessary and sufficient scores."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spray.findings.interventions import LocalMeanFill
from spray.findings.membership import reliance, relying
from spray.findings.prediction import ClassScorer
from spray.findings.suspicion import Ranking
from spray.findings.verification import Candidate, ClassMaps, Evidence, TopRegion, Verification

SIDE = 12
TAG = (slice(0, 3), slice(0, 3))
OBJECT = (slice(6, 10), slice(4, 9))
CPU = torch.device("cpu")


class Cues(nn.Module):
    """Class 1 by the tag's and the object's brightness, combined as told; class 0 else."""

    def __init__(self, combine: str) -> None:
        super().__init__()
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        tag = x[:, 0, *TAG].mean((1, 2)) - 0.5
        thing = x[:, 0, *OBJECT].mean((1, 2)) - 0.5
        both = torch.stack([tag, thing])
        cue = {"tag": tag, "either": both.amax(0), "both": both.amin(0), "neither": 0 * tag}[self.combine]
        return torch.stack([0 * cue, 16 * cue], dim=1)


def images(count: int, tagged: bool, thing: bool, seed: int) -> Tensor:
    x = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.2
    if tagged:
        x[:, :, *TAG] = 1
    if thing:
        x[:, :, *OBJECT] = 1
    return x


def verify(combine: str, seed: int = 0) -> Evidence | None:
    """40 tagged and 60 plain members of class 1 (all with the object), 80 hosts without either."""
    data = torch.cat([images(40, True, True, 0), images(60, False, True, 1), images(80, False, False, 2)])
    maps = np.zeros((100, SIDE, SIDE))
    maps[:, *OBJECT] = 1
    maps[:40, *TAG] = 2
    region = np.zeros((SIDE, SIDE), bool)
    region[TAG] = True
    step = Verification(members=30, region=TopRegion(share=9 / SIDE**2, smooth=1), seed=seed)
    class_maps = ClassMaps(1, np.arange(100), maps, np.arange(100, 180))
    candidates = [Candidate(np.arange(40), region), Candidate(np.arange(40, 100), ~region)]
    return step.verify(Cues(combine), lambda rows: data[torch.from_numpy(rows)], class_maps, candidates, CPU)[
        0
    ]


def test_a_shortcut_that_is_necessary_and_sufficient_scores() -> None:
    evidence = verify("tag")
    assert evidence is not None
    assert evidence.score > 0.5 and evidence.certain(0)
    assert evidence.flip_rate == 1
    assert np.argwhere(evidence.region).max() == 2


@pytest.mark.parametrize("combine", ["either", "both", "neither"])
def test_what_is_not_both_scores_nothing(combine: str) -> None:
    evidence = verify(combine)
    assert evidence is not None
    assert evidence.score < 0.02
    assert not Ranking().flags({"causal": evidence.score}, evidence.certain(0))
    effects = {"either": evidence.transplant, "both": evidence.removal}
    if combine in effects:  # one half of the proof alone holds strongly
        assert effects[combine].mean > 0.8


def test_the_same_seed_gives_the_same_evidence() -> None:
    first, second = verify("tag", seed=4), verify("tag", seed=4)
    assert first is not None and second is not None
    assert first.to_json(0) == second.to_json(0)


def test_too_few_members_or_hosts_give_no_evidence() -> None:
    maps = np.ones((20, SIDE, SIDE))
    region = np.ones((SIDE, SIDE), bool)
    data = images(40, False, True, 0)

    def read(rows: np.ndarray) -> Tensor:
        return data[torch.from_numpy(rows)]

    few = ClassMaps(1, np.arange(20), maps, np.arange(20, 40))
    assert Verification().verify(Cues("tag"), read, few, [Candidate(np.arange(5), region)], CPU) == [None]
    alone = ClassMaps(1, np.arange(20), maps, np.arange(20, 22))
    assert Verification().verify(Cues("tag"), read, alone, [Candidate(np.arange(15), region)], CPU) == [None]


def test_a_class_with_a_single_strategy_is_tested_without_a_rest() -> None:
    data = torch.cat([images(40, True, True, 0), images(40, False, False, 1)])
    maps = np.zeros((40, SIDE, SIDE))
    maps[:, *TAG] = 1
    region = maps[0] > 0
    class_maps = ClassMaps(1, np.arange(40), maps, np.arange(40, 80))
    step = Verification(region=TopRegion(share=9 / SIDE**2, smooth=1))
    (evidence,) = step.verify(
        Cues("tag"),
        lambda rows: data[torch.from_numpy(rows)],
        class_maps,
        [Candidate(np.arange(40), region)],
        CPU,
    )
    assert evidence is not None and evidence.score > 0.5


def test_membership_follows_reliance_not_the_cluster() -> None:
    scorer = ClassScorer(Cues("tag"), 1, CPU, batch=16)
    data = torch.cat([images(30, True, True, 0), images(50, False, True, 1)])
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., *TAG] = True
    effects = reliance(scorer, data, images(3, False, False, 2), mask, LocalMeanFill(), seed=0)
    clustered = np.zeros(80, bool)
    clustered[:20] = clustered[75:] = True  # ten tagged ones are missing, five others are in
    assert np.array_equal(relying(clustered, effects), np.arange(80) < 30)


def test_membership_stays_where_interventions_tell_nothing_apart() -> None:
    members = np.arange(10) < 4
    assert np.array_equal(relying(members, np.zeros((10, 2))), members)
    everyone = np.ones(10, bool)
    assert np.array_equal(relying(everyone, np.random.default_rng(0).normal(size=(10, 2))), everyone)


def test_log_odds_against_a_plain_writing() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0], [30.0, -20.0, 0.0]], dtype=torch.float64)
    scorer = ClassScorer(nn.Identity(), 1, CPU)
    p = logits.softmax(1)[:, 1].numpy()
    assert scorer.log_odds(logits) == pytest.approx(np.log(p) - np.log1p(-p))
    assert scorer.probability(logits) == pytest.approx(p)
    assert scorer.judge(logits)[1].tolist() == [True, False]
