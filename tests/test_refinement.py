"""Members are told by what the class does in the region; what comes by degrees keeps its cluster."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from spray.findings.discriminant import upper_mode
from spray.findings.refinement import Refinement, held_out, mixture
from spray.findings.regions import TopRegion, unit_maps
from spray.findings.strategies import Strategy, refined

TAGGED = 60


def tagged_maps(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """600 maps with a tag in the first 60: of varying strength, and as much relevance in its corner in 60 others."""
    rng = np.random.default_rng(seed)
    maps = rng.gamma(2, 0.2, (600, 14, 14))
    strength = rng.uniform(1.0, 3.0, (120, 1))
    maps[:TAGGED, [0, 0, 1, 2, 2], [0, 2, 1, 0, 2]] += strength[:TAGGED]
    maps[TAGGED:120, [0, 1, 1, 2], [1, 0, 2, 1]] += strength[TAGGED:]
    truth = np.arange(600) < TAGGED
    return unit_maps(maps), truth


def corner() -> np.ndarray:
    region = np.zeros((14, 14), bool)
    region[:3, :3] = True
    return region


def test_a_mixed_cluster_is_cleaned_and_completed() -> None:
    units, truth = tagged_maps()
    cluster = truth.copy()
    cluster[:15] = False
    cluster[TAGGED : TAGGED + 15] = True
    found, _ = Refinement().members(units, cluster, corner(), seed=0)
    assert truth[found].mean() >= 0.98 and found[truth].mean() >= 0.98


def test_where_no_mode_is_the_cluster_stays_as_it_is() -> None:
    rng = np.random.default_rng(1)
    maps = rng.gamma(2, 0.2, (600, 14, 14))
    maps[:, :3, :3] += rng.gamma(2, 0.3, (600, 1, 1))
    units = unit_maps(maps)
    inside = units[:, :3, :3].sum((1, 2))
    cluster = inside > np.quantile(inside, 0.9)
    found, mode = Refinement().members(units, cluster, corner(), seed=0)
    assert found is cluster and mode == 0


def test_of_a_cluster_of_like_places_the_half_that_is_a_mode_is_found() -> None:
    rng = np.random.default_rng(4)
    maps = rng.gamma(2, 0.1, (1500, 14, 14))
    truth = np.arange(1500) < TAGGED
    degrees = rng.lognormal(-1.5, 1.0, 1500)
    degrees[truth] = rng.uniform(1.5, 2.5, TAGGED)
    maps[:, :3, :3] += degrees[:, None, None] * rng.uniform(0.8, 1.2, (1500, 3, 3))
    maps[:TAGGED, :3, :3] += 0.45 * np.where(np.indices((3, 3)).sum(0) % 2, -1, 1)
    units = unit_maps(maps)
    others = np.where(truth, 0, degrees)
    both = truth | (others >= np.sort(others)[-110])
    found, _ = Refinement().members(units, both, corner(), seed=0)
    assert truth[found].mean() >= 0.95 and found[truth].mean() >= 0.98


def test_members_that_are_others_are_not_taken() -> None:
    units, truth = tagged_maps()
    few = truth & (np.arange(len(truth)) < 15)
    assert Refinement(overlap=0.5).members(units, few, corner(), seed=0)[0] is few
    assert Refinement(overlap=0.2).members(units, few, corner(), seed=0)[0][truth].mean() >= 0.98


def test_the_mixture_of_certain_members_is_the_discriminant_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(400, 4)) * [1, 2, 1, 0.5]
    members = np.arange(400) < 100
    features[members] += [6, 4, 0, 3]
    np.testing.assert_array_equal(mixture(features, members) > 0.5, members)
    share = members.astype(float)
    order = np.random.default_rng(5).permutation(400)
    plain = LinearDiscriminantAnalysis().fit(features[order[::2]], members[order[::2]])
    expected = plain.decision_function(features[order[1::2]])
    np.testing.assert_allclose(held_out(features, share, seed=5)[order[1::2]], expected, rtol=0.02, atol=0.3)


def test_the_same_seed_gives_the_same_members() -> None:
    units, truth = tagged_maps()
    features = units[:, corner()]
    first, again = (held_out(features, mixture(features, truth), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (held_out(features, mixture(features, truth), seed=4) != first).any()


@pytest.mark.parametrize("members", [0, 3, 598, 600])
def test_a_component_that_dies_out_leaves_the_members(members: int) -> None:
    units, _ = tagged_maps()
    cluster = np.arange(600) < members
    found, mode = Refinement().members(units, cluster, corner(), seed=0)
    assert found is cluster and mode == 0


def test_fewer_samples_than_cells_are_no_error() -> None:
    units, truth = tagged_maps()
    few = np.r_[:20, 200:230]
    found, _ = Refinement().members(units[few], truth[few], corner(), seed=0)
    assert found.shape == (50,)
    black, _ = Refinement().members(np.zeros((50, 14, 14)), truth[few], corner(), seed=0)
    np.testing.assert_array_equal(black, truth[few])


def test_a_mode_of_their_own_against_a_tail() -> None:
    rng = np.random.default_rng(3)
    rest = rng.normal(-8, 2, 5000)
    assert upper_mode(np.r_[rest, rng.normal(8, 2, 100)]) >= 0.9
    assert upper_mode(np.r_[rest, rng.normal(0, 2, 100)]) <= 0.3
    assert upper_mode(rng.normal(-3, 2, 5000)) <= 0.05
    assert upper_mode(rng.standard_t(3, 5000) - 2) <= 0.5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full(50, -1.0), 0.0),
        (np.full(50, 1.0), 0.0),
        (np.full(50, np.nan), 0.0),
        (np.repeat([-1.0, 1.0], 25), 1.0),
        (np.zeros(0), 0.0),
    ],
)
def test_the_mode_of_what_is_no_distribution(values: np.ndarray, expected: float) -> None:
    assert upper_mode(values) == expected


def test_a_refined_strategy_has_the_region_of_its_new_members_and_the_largest_comes_first() -> None:
    units, truth = tagged_maps()
    cluster = truth.copy()
    cluster[TAGGED : TAGGED + 10] = True
    locate = TopRegion(smooth=1)
    mixed = Strategy((0,), cluster, locate.shared(units[cluster], units[~cluster]))
    rest = Strategy((1,), ~cluster & (np.arange(600) < 160), np.zeros((14, 14), bool))
    placeless = Strategy((2,), np.arange(600) < 10, None)
    larger, clean, smallest = refined([mixed, rest, placeless], units, locate, Refinement(), seed=0)
    assert (larger, smallest) == (rest, placeless)
    assert clean.clusters == (0,) and truth[clean.members].mean() >= 0.98
    assert clean.region is not None and clean.region[[0, 0, 1, 2, 2], [0, 2, 1, 0, 2]].all()
    assert not clean.region[0, 1]
