"""Groups of unequal scatter are told apart by the valley between them, and nothing is where there is none."""

import numpy as np
import pytest

from spray.findings.discriminant import upper_mode, valley
from spray.findings.robust_mixture import held_out, t_mixture
from spray.findings.separation import low_density_separation


def by_degrees(seed: int = 0, count: int = 3000, carriers: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Twenty features, among them one direction in which the carriers lie 6 to 30 away; the others scatter by 1."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 20)) @ rng.normal(size=(20, 20))
    truth = np.arange(count) < carriers
    direction = np.linalg.solve(np.cov(features.T), rng.normal(size=20))
    apart = np.cov(features.T) @ direction / np.sqrt(direction @ np.cov(features.T) @ direction)
    features[truth] += rng.triangular(6, 20, 30, (carriers, 1)) * apart
    return features, truth


def started(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Most of the carriers, and some others."""
    rng = np.random.default_rng(seed)
    return np.where(truth, rng.random(len(truth)) < 0.8, rng.random(len(truth)) < 0.02)


def test_carriers_by_degrees_are_found_where_one_scatter_for_both_cuts_them_off() -> None:
    features, truth = by_degrees()
    found = low_density_separation(features, started(truth), rounds=30, seed=0)
    assert found is not None
    members, mode = found
    assert truth[members].mean() >= 0.99 and members[truth].mean() >= 0.99 and mode >= 0.5
    fitted = t_mixture(features, started(truth), 16.0, 30)
    log_odds = None if fitted is None else held_out(features, fitted, 16.0, 0)
    assert log_odds is not None and ((log_odds > 0) & truth).sum() < 0.99 * truth.sum()


@pytest.mark.parametrize("seed", range(5))
def test_what_has_no_valley_is_no_mode(seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(2000, 10))
    found = low_density_separation(features, features[:, 0] > 1, rounds=30, seed=0)
    assert found is None or found[1] < 0.2


@pytest.mark.parametrize("members", [0, 3, 1997, 2000])
def test_too_few_on_a_side_are_not_told_apart(members: int) -> None:
    features = np.random.default_rng(0).normal(size=(2000, 4))
    assert low_density_separation(features, np.arange(2000) < members, rounds=5, seed=0) is None


def test_features_without_scatter_are_not_told_apart() -> None:
    assert low_density_separation(np.zeros((100, 3)), np.arange(100) < 30, rounds=5, seed=0) is None


def test_the_valley_lies_between_two_peaks_on_either_side_of_zero() -> None:
    rng = np.random.default_rng(0)
    narrow, wide = rng.normal(-3, 0.2, 4000), rng.normal(1, 0.5, 1000)
    found = valley(np.concatenate([narrow, wide]))
    assert -2.4 < found.at < -0.5 and found.mode > 0.9
    assert found.mode == upper_mode(np.concatenate([narrow, wide]))
