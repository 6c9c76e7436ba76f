"""The Gaussian null of the eigengap."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from spray.analysis.features import normalised
from spray.analysis.graph import NearestNeighbours
from spray.analysis.null import GaussianNull, gaussian


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def correlated(n=300, d=20, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3).astype(np.float32)


def test_the_gaussian_has_the_mean_and_covariance_of_plenty_of_data():
    features = correlated(5_000)
    mean, root = gaussian(features)
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-4)
    covariance = np.cov(features.T)
    np.testing.assert_allclose(root @ root.T, covariance, atol=0.06 * np.abs(covariance).max())


def test_two_groups_are_more_than_chance_and_the_test_repeats():
    features = correlated()
    features[:100] += 40
    features = normalised(features, "l2")
    test = GaussianNull().test(features, NearestNeighbours(), 8)
    assert test.significant
    assert test.p_value == pytest.approx(0.1)
    assert test.draws == 9
    assert test.deviations > 4
    assert test.tested_gap > test.gap
    assert GaussianNull().test(features, NearestNeighbours(), 8) == test


def test_gaussian_data_is_rarely_taken_for_several_groups_and_soon_given_up():
    tests = [
        GaussianNull().test(normalised(correlated(seed=seed), "l2"), NearestNeighbours(), 8, seed=seed)
        for seed in range(12)
    ]
    assert sum(test.significant for test in tests) <= 1
    assert np.median([test.draws for test in tests]) < 9


def test_large_groups_are_tested_on_a_subsample():
    test = GaussianNull(rows=150).test(correlated(), NearestNeighbours(), 8)
    assert test.rows == 150


def test_without_draws_there_is_no_p_value():
    test = GaussianNull(draws=0).test(correlated(50), NearestNeighbours(), 8)
    assert (test.significant, test.p_value, test.draws, test.gap) == (True, None, 0, None)
    assert test.tested_gap is None


@pytest.mark.parametrize("draws", [-1, 3])
def test_too_few_draws_are_refused(draws):
    with pytest.raises(ValueError, match="at least 5 draws"):
        GaussianNull(draws=draws)
