"""The mixture against scikit-learn where it is Gaussian, and among samples that lie far out where it is not."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from spray.findings.robust_mixture import held_out, t_mixture


def two(seed: int = 0, outliers: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """1000 samples of 6 features, the first 100 apart from the others; some of those scattered ten times as widely."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1000, 6)) * [1, 2, 1, 0.5, 1, 1]
    features[:100] += [5, 0, 4, 2, 0, 0]
    features[1000 - outliers :] *= 10
    return features, np.arange(1000) < 100


def test_with_many_degrees_of_freedom_it_is_fishers_discriminant() -> None:
    features, truth = two()
    fitted = t_mixture(features, truth, freedom=1e9, rounds=50)
    assert fitted is not None
    certain = fitted._replace(share=truth.astype(float), weights=np.ones((2, 1000)))
    log_odds = held_out(features, certain, freedom=1e9, seed=5)
    order = np.random.default_rng(5).permutation(1000)
    expected = np.empty(1000)
    for known, told in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        lda = LinearDiscriminantAnalysis(solver="lsqr").fit(features[known], truth[known])
        expected[told] = lda.decision_function(features[told])
    np.testing.assert_allclose(log_odds, expected, rtol=0.02, atol=0.1)


def test_a_few_members_find_the_group_in_spite_of_what_lies_far_out() -> None:
    features, truth = two(outliers=200)
    start = truth & (np.arange(1000) < 40)
    start[-30:] = True

    def agreement(freedom: float) -> float:
        fitted = t_mixture(features, start, freedom, rounds=50)
        assert fitted is not None
        found = fitted.share > 0.5
        return float((found & truth).sum() / (found | truth).sum())

    assert agreement(4.0) >= 0.9 > agreement(1e9)


def test_far_samples_weigh_less() -> None:
    features, truth = two(outliers=50)
    fitted = t_mixture(features, truth, freedom=4.0, rounds=50)
    assert fitted is not None and fitted.weights[1, -50:].mean() < 0.2 * fitted.weights[1, 100:900].mean()


@pytest.mark.parametrize("members", [0, 4, 996, 1000])
def test_a_component_that_vanishes_is_none(members: int) -> None:
    features, _ = two()
    assert t_mixture(features, np.arange(1000) < members, freedom=16.0, rounds=5) is None


def test_what_has_no_scatter_is_no_error() -> None:
    truth = np.arange(60) < 20
    fitted = t_mixture(np.repeat(truth[:, None], 3, axis=1) * 1.0, truth, freedom=16.0, rounds=5)
    assert fitted is not None and np.array_equal(fitted.share > 0.5, truth)
    black = t_mixture(np.zeros((60, 3)), truth, freedom=16.0, rounds=5)
    assert black is not None and np.isfinite(black.share).all()
