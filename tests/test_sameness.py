"""Members by what is the same in all of them."""

import numpy as np
import pytest

from spray.findings.sameness import same_content


def groups(samples=800, carriers=160, dimensions=60, alike=20, scatter=0.0, seed=0):
    """Samples around 0, some of which are 0.2 (give or take) in the first features, in the midst of the others."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(samples, dimensions))
    carrying = np.zeros(samples, bool)
    carrying[rng.permutation(samples)[:carriers]] = True
    features[np.ix_(carrying, np.arange(alike))] = 0.2 + scatter * rng.normal(size=(carriers, alike))
    return features, carrying


@pytest.mark.parametrize("scatter", [0.0, 0.05])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_alike_in_the_midst_of_the_others_is_told_whole_from_an_impure_part(scatter, seed):
    features, carrying = groups(scatter=scatter, seed=seed)
    members = np.zeros(len(features), bool)
    members[np.flatnonzero(carrying)[:60]] = True
    members[np.flatnonzero(~carrying)[:15]] = True
    told, mode = same_content(features, members, 20, seed)
    assert np.array_equal(told, carrying)
    assert mode > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_a_piece_of_one_cloud_is_not_told(seed):
    features = np.random.default_rng(seed).normal(size=(800, 60))
    features[:, :20] *= np.random.default_rng(seed).gamma(2.0, size=(800, 1))  # some are duller than others
    members = np.abs(features[:, :20]).mean(axis=1) < np.quantile(np.abs(features[:, :20]).mean(axis=1), 0.2)
    told = same_content(features, members, 20, seed)
    assert told is None or told[1] < 0.5


def test_too_few_or_nothing_alike_say_nothing():
    features, carrying = groups()
    few = np.zeros(len(features), bool)
    few[np.flatnonzero(carrying)[:12]] = True
    assert same_content(features, few, 20, 0) is None
    some = np.random.default_rng(3).random(len(features)) < 0.2
    assert same_content(features, some, 20, 0) is None
    assert same_content(np.zeros((100, 5)), np.arange(100) < 40, 20, 0) is None
