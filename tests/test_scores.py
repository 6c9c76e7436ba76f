"""Scores on cases whose value is known, and the rank and flags made of them."""

import numpy as np
import pytest

from spray.findings.regions import unit_maps
from spray.findings.scores import SCORES, Separability, Suspect
from spray.findings.suspicion import Ranking
from spray.findings.verification import Requirements
from stores import GroupAnalysis


def analysis(m: int, eigengap: dict[str, object] | None = None) -> GroupAnalysis:
    none = np.zeros(0, np.int64)
    return GroupAnalysis(
        group=0,
        status="ok",
        rows=np.arange(m),
        zero_rows=none,
        invalid_rows=none,
        eigenvalues=np.zeros(2),
        vectors=np.zeros((m, 2)),
        components=1,
        strategies=1,
        eigengap=eigengap or {},
        clusterings={},
        pictures={},
    )


def suspect(maps: np.ndarray, members: np.ndarray, region: np.ndarray | None = None) -> Suspect:
    units = unit_maps(maps)
    gap = {"null": {"tested_gap": 0.7, "gap": 0.4}}
    return Suspect(
        members=members,
        units=units,
        region=region,
        evidence=None,
        result=analysis(len(maps), gap),
        separability=Separability(units.reshape(len(units), -1), 0),
        probability=np.where(members, 0.9, 0.5),
    )


@pytest.fixture
def planted() -> Suspect:
    maps = np.random.default_rng(0).normal(size=(80, 6, 6))
    members = np.arange(80) < 30
    region = np.zeros((6, 6), bool)
    region[0, 0] = True
    maps[members, 0, 0] += 12
    return suspect(maps, members, region)


def test_all_scores_of_a_planted_group(planted: Suspect) -> None:
    parts = {name: score(planted) for name, score in SCORES.items()}
    assert parts["causal"] is None and parts["necessity"] is None and parts["sufficiency"] is None
    assert parts["separation"] is not None and parts["separation"] > 0.9
    assert parts["agreement"] is not None and 0.5 < parts["agreement"] <= 1
    assert parts["concentration"] is not None and parts["concentration"] > 0.7
    assert parts["gap_over_null"] == pytest.approx(0.3)
    assert (parts["confidence"], parts["confidence_of_rest"]) == (pytest.approx(0.9), pytest.approx(0.5))
    assert parts["share"] == pytest.approx(30 / 80)


def test_agreement_is_the_mean_cosine_between_members(planted: Suspect) -> None:
    units = planted.units[planted.members].reshape(30, -1)
    assert SCORES["agreement"](planted) == pytest.approx((units @ units.T).mean())


def test_separation_is_held_out_so_that_chance_groups_do_not_separate() -> None:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(60, 40))  # 40 dimensions separate 60 points perfectly in sample
    measure = Separability(maps, 0)
    chance = [measure.of(rng.permutation(60) < 20) for _ in range(20)]
    assert np.mean([value or 0 for value in chance]) < 0.2


def test_separation_needs_samples_on_both_sides() -> None:
    measure = Separability(np.random.default_rng(2).normal(size=(20, 5)), 0)
    assert measure.of(np.ones(20, bool)) is None
    assert measure.of(np.arange(20) < 2) is None
    assert Separability(np.zeros((1, 5)), 0).of(np.ones(1, bool)) is None


def test_maps_that_are_all_the_same_separate_nothing_and_warn_of_nothing() -> None:
    maps = np.full((40, 16), 0.25)
    maps[::2] *= 1 + 1e-9
    assert Separability(maps, 0).of(np.arange(40) % 3 == 0) is None
    assert Separability(np.zeros((40, 16)), 0).of(np.arange(40) % 3 == 0) is None


def test_relevance_without_place_has_no_place_scores() -> None:
    case = suspect(np.random.default_rng(0).normal(size=(20, 3, 3)), np.arange(20) < 8)
    assert SCORES["agreement"](case) is None and SCORES["concentration"](case) is None


def test_what_is_used_by_degrees_is_less_of_a_suspicion_than_what_is_there_or_not() -> None:
    ranking = Ranking(prior_weight=0)
    graded, discrete = (
        {"causal": cause, "separation": apart} for cause, apart in ((0.13, 0.74), (0.09, 0.95))
    )
    assert ranking.score(discrete) == 0.09 > ranking.score(graded) > 0
    assert ranking.score({"causal": 0.1, "separation": 0.5}) == pytest.approx(0.1 / 9)
    assert ranking.score({"causal": 0.1, "separation": 1.0}) == 0.1
    assert ranking.score({"causal": 0.9, "separation": None}) == 0  # all of its class: compared with nothing


def test_a_proven_use_outranks_any_untested_suspicion() -> None:
    ranking = Ranking()
    looks = ranking.score({"causal": None, "separation": 1.0, "agreement": 1.0})
    proven = ranking.score({"causal": Requirements().score, "separation": 0.9, "agreement": None})
    assert proven > looks
    assert ranking.score({}) == 0
