"""The Gaussian null of the eigengap."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from threadpoolctl import threadpool_limits

from spray.analysis.features import normalised
from spray.analysis.graph import NearestNeighbours, Neighbourhood
from spray.analysis.null import GaussianNull, gaussian, shrunk_covariance


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def correlated(n=300, d=20, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3).astype(np.float32)


def near(features: np.ndarray) -> Neighbourhood:
    return NearestNeighbours().neighbourhood(features)


def test_the_gaussian_has_the_mean_and_covariance_of_plenty_of_data():
    features = correlated(5_000)
    null = gaussian(features)
    np.testing.assert_allclose(null.mean, features.mean(axis=0), rtol=1e-4)
    covariance = np.cov(features.T)
    found = (null.axes * null.spread**2) @ null.axes.T
    np.testing.assert_allclose(found, covariance, atol=0.06 * np.abs(covariance).max())


@pytest.mark.parametrize(("n", "d"), [(400, 20), (10, 30), (30, 1), (2, 3)])
def test_the_covariance_is_shrunk_as_scikit_learn_shrinks_it(n, d):
    features = correlated(n, d)
    null = gaussian(features)
    expected = ledoit_wolf(features.astype(np.float64))[0]
    found = covariance_of(null.spread.astype(np.float64) ** 2, null.axes.astype(np.float64), null.others**2)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def covariance_of(variances, axes, others):
    beside = np.eye(len(axes)) - axes @ axes.T
    return (axes * variances) @ axes.T + others * beside


@pytest.mark.parametrize(("n", "d"), [(30, 40), (10, 300), (50, 20)])
def test_the_covariance_by_products_between_samples_is_that_between_columns(n, d):
    centred = correlated(n, d).astype(np.float64)
    centred -= centred.mean(axis=0)
    expected = covariance_of(*shrunk_covariance(centred, dual=False))
    variances, axes, others = shrunk_covariance(centred, dual=True)
    assert len(variances) == min(n - 1, d)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(covariance_of(variances, axes, others), expected, atol=1e-10 * scale)


def test_fewer_samples_than_columns_have_their_null_in_any_coordinates():
    features = correlated(6, 9)
    null, rng = gaussian(features), np.random.default_rng(0)
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = ledoit_wolf(features.astype(np.float64))[0]
    normal = rng.standard_normal((200_000, 9), dtype=np.float32)
    placed = null.in_place(normal.copy())
    np.testing.assert_allclose(placed.mean(axis=0), mean, atol=0.03 * np.abs(mean).max())
    np.testing.assert_allclose(np.cov(placed.T), covariance, atol=0.03 * np.abs(covariance).max())
    turned = null.in_axes(normal.copy())
    np.testing.assert_allclose(
        np.linalg.eigvalsh(np.cov(turned.T)), np.linalg.eigvalsh(covariance), rtol=0.03
    )
    # Lengths, of which the norm is taken, are those of the data, mean and all.
    np.testing.assert_allclose(
        np.quantile(np.linalg.norm(turned, axis=1), [0.1, 0.5, 0.9]),
        np.quantile(np.linalg.norm(placed, axis=1), [0.1, 0.5, 0.9]),
        rtol=0.02,
    )


def test_a_null_of_many_more_columns_than_samples_takes_no_square_of_them():
    rng = np.random.default_rng(0)
    features = normalised(rng.standard_normal((40, 200_000), dtype=np.float32), "l2")  # squared: 320 GB
    null = gaussian(features)
    assert null.axes.shape == (200_000, 39)
    assert null.in_axes(rng.standard_normal((3, 200_000), dtype=np.float32)).shape == (3, 200_000)


def test_two_groups_are_more_than_chance_and_the_test_repeats():
    features = correlated()
    features[:100] += 40
    features = normalised(features, "l2")
    test = GaussianNull().test(near(features), 8)
    assert test.significant
    assert 3 <= test.draws < 9
    assert test.p_value == pytest.approx(1 / (test.draws + 1))
    assert test.deviations > GaussianNull().limit(test.draws)
    assert test.tested_gap > test.gap
    assert GaussianNull().test(near(features), 8) == test


@pytest.mark.parametrize("norm", ["l1", "l2", "none"])
def test_every_norm_has_its_null(norm):
    features = normalised(np.abs(correlated(n=200)), norm)
    test = GaussianNull().test(near(features), 8, norm=norm)
    assert not test.significant and 0 < test.gap <= 1


def test_gaussian_data_is_rarely_taken_for_several_groups_and_soon_given_up():
    tests = [
        GaussianNull().test(near(normalised(correlated(seed=seed), "l2")), 8, seed=seed) for seed in range(12)
    ]
    assert sum(test.significant for test in tests) <= 1
    assert np.median([test.draws for test in tests]) < 9


@pytest.mark.parametrize(("apart", "draws", "deviations"), [(8, 1, 12), (3.5, 2, 8)])
def test_one_or_two_draws_do_where_no_spread_of_a_null_explains_the_gap(apart, draws, deviations):
    rng = np.random.default_rng(0)
    groups = apart * np.eye(20)[rng.integers(5, size=600)]
    features = (groups + rng.standard_normal((600, 20))).astype(np.float32)
    test = GaussianNull().test(near(features), 8, norm="none")
    assert (test.significant, test.draws) == (True, draws)
    assert test.deviations >= deviations
    assert test.p_value == 1 / (draws + 1)
    # The same groups, too few to know the spread of their null beforehand.
    assert GaussianNull(rows=300).test(near(features), 8, norm="none").draws > 2


def test_fewer_draws_need_more_deviations_and_all_of_them_those_that_are_given():
    null = GaussianNull(draws=9, deviations=4)
    limits = [null.limit(draws) for draws in range(3, 10)]
    assert limits == sorted(limits, reverse=True) and limits[-1] == pytest.approx(4)
    # A further value of m + 1 normal ones exceeds the limit as rarely, whatever m.
    values = np.random.default_rng(0).standard_normal((400_000, 10))
    for draws in (3, 9):
        some = values[:, :draws]
        far = (values[:, -1] - some.mean(1)) / some.std(1, ddof=1) >= null.limit(draws)
        assert far.mean() == pytest.approx(0.0026, abs=4e-4)


def test_large_groups_are_tested_on_a_subsample():
    test = GaussianNull(rows=150).test(near(correlated()), 8)
    assert test.rows == 150


def test_without_draws_there_is_no_p_value():
    test = GaussianNull(draws=0).test(near(correlated(50)), 8)
    assert (test.significant, test.p_value, test.draws, test.gap) == (True, None, 0, None)
    assert test.tested_gap is None


@pytest.mark.parametrize("draws", [-1, 3])
def test_too_few_draws_are_refused(draws):
    with pytest.raises(ValueError, match="at least 5 draws"):
        GaussianNull(draws=draws)
