"""Permutation tests: their level and power by simulation, against a plainer writing, and independent of batches."""

from itertools import product

import numpy as np
import pytest

from spray.findings.verification import significance
from spray.findings.verification.significance import benjamini_hochberg, sign_flip


def plainly(differences: np.ndarray) -> float:
    """All patterns of signs, one by one."""
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return float(np.mean([total >= differences.sum() - 1e-12 for total in sums]))


@pytest.mark.parametrize("seed", range(4))
def test_few_units_are_tested_exactly(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.3, 1, 8)
    expected = plainly(differences) if differences.sum() > 0 else 1.0
    assert sign_flip(differences, 0) == pytest.approx(expected)


def test_many_units_come_close_to_the_exact_p() -> None:
    differences = np.random.default_rng(1).normal(0.35, 1, 16)
    assert sign_flip(differences, 0, 99_999) == pytest.approx(plainly(differences), rel=0.5)


def test_p_is_never_zero_and_one_without_an_effect() -> None:
    assert sign_flip(np.ones(5), 0) == 2**-5
    assert sign_flip(np.ones(50), 0, permutations=999) == pytest.approx(1 / 1000)
    assert (
        sign_flip(np.zeros(50), 0) == 1 and sign_flip(-np.ones(50), 0) == 1 and sign_flip(np.zeros(0), 0) == 1
    )


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [5, 31])
def test_what_is_no_number_is_never_significant(odd: float, count: int) -> None:
    differences = np.random.default_rng(0).normal(0, 1, count)
    differences[2] = odd
    with pytest.raises(ValueError, match=f"1 of {count} differences are NaN or infinite"):
        sign_flip(differences, 0)
    with pytest.raises(ValueError):
        benjamini_hochberg([0.01, float("nan")])


def test_the_stop_is_seeded_and_does_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        np.random.default_rng(seed).normal(shift, 1, 30) for seed in range(5) for shift in (0.05, 0.2, 0.6)
    ]
    once = [sign_flip(case, 3) for case in cases]
    monkeypatch.setattr(significance, "DRAWN_AT_ONCE", 7)
    assert [sign_flip(case, 3) for case in cases] == once
    assert [sign_flip(case, 4) for case in cases] != once


def test_no_more_is_drawn_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    genuine = significance._flipped
    monkeypatch.setattr(
        significance, "_flipped", lambda d, size, rng: (drawn.append(size), genuine(d, size, rng))[1]
    )
    sign_flip(np.random.default_rng(0).normal(0.05, 1, 40), 0)
    assert sum(drawn) <= 500
    sign_flip(np.random.default_rng(0).normal(1.5, 1, 40), 0)
    assert sum(drawn) >= 9999


@pytest.mark.parametrize("units", [10, 40])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_level_by_simulation(units: int, tails: str) -> None:
    """Without an effect at most about 5 % of the tests reject at 5 % (400 simulations; 3 standard errors: 3.3 %)."""
    rng = np.random.default_rng(units)
    draw = rng.standard_normal if tails == "normal" else lambda n: rng.standard_t(2, n)
    p_values = np.array([sign_flip(draw(units), trial, 499) for trial in range(400)])
    assert (p_values <= 0.05).mean() <= 0.083
    assert (p_values <= 0.2).mean() <= 0.26


def test_power_by_simulation() -> None:
    """An effect of half a standard deviation on 40 units is found nearly always; on 10 units about every other time."""
    rng = np.random.default_rng(0)
    power = {
        units: np.mean([sign_flip(rng.normal(0.5, 1, units), trial, 499) <= 0.05 for trial in range(200)])
        for units in (10, 40)
    }
    assert power[40] > 0.88 and 0.25 < power[10] < 0.65


def test_benjamini_hochberg_against_a_plain_writing() -> None:
    p_values = [0.001, 0.02, 0.03, 0.5, 0.04]
    order = np.argsort(p_values)
    plain = [0.0] * 5
    smallest = 1.0
    for rank in range(5, 0, -1):
        smallest = min(smallest, p_values[order[rank - 1]] * 5 / rank)
        plain[order[rank - 1]] = smallest
    assert benjamini_hochberg(p_values) == pytest.approx(plain)
    assert benjamini_hochberg([]) == [] and benjamini_hochberg([0.3]) == [0.3]


def test_false_discoveries_by_simulation() -> None:
    """Half of 20 candidates are real: of those confirmed at q ≤ 0.1 about 5 % are not, and most real ones are found."""
    rng = np.random.default_rng(5)
    false, found, real = 0, 0, np.arange(20) < 10
    for trial in range(40):
        effects = rng.normal(0, 1, (20, 30)) + 0.8 * real[:, None]
        q = np.array(benjamini_hochberg([sign_flip(row, trial, 999) for row in effects]))
        false += int((q[~real] <= 0.1).sum())
        found += int((q[real] <= 0.1).sum())
    assert false / (false + found) < 0.1
    assert found / 400 > 0.9
