"""Association of membership with metadata: tests against plainer writings, correction over findings."""

import numpy as np
import pytest

from spray.findings.associations import associations, corrected


def test_chi_square_and_cramers_v_against_a_plain_writing() -> None:
    members = np.arange(100) < 40
    source = np.where(members & (np.arange(100) % 4 > 0), "B", "A").astype(object)
    (found,) = associations({"source": source}, members)
    observed = np.array([[(source[side] == kind).sum() for kind in "AB"] for side in (members, ~members)])
    expected = observed.sum(1)[:, None] * observed.sum(0) / observed.sum()
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert found.effect == pytest.approx(np.sqrt(statistic / 100))
    assert found.test == "chi-square" and found.p_value < 1e-10


def test_ranks_of_numbers_against_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    members = np.arange(60) < 20
    width = rng.normal(0, 1, 60) + 1.5 * members
    width[::15] = np.nan
    (found,) = associations({"width": width}, members)
    inside, outside = width[members & ~np.isnan(width)], width[~members & ~np.isnan(width)]
    wins = np.mean([[a > b for b in outside] for a in inside])
    assert found.effect == pytest.approx(abs(2 * wins - 1)) and found.p_value < 1e-3


def test_columns_without_information_are_not_tested() -> None:
    members = np.arange(40) < 15
    columns = {
        "constant": np.full(40, "png", object),
        "unknown": np.full(40, "", object),
        "one number": np.ones(40),
        "all names differ": np.array([f"{i}.jpg" for i in range(40)], object),
        "mostly missing": np.where(np.arange(40) < 3, 1.0, np.nan),
    }
    assert associations(columns, members) == []
    assert associations({"x": np.arange(40.0)}, np.ones(40, bool)) == []


def test_chance_columns_are_rarely_significant_after_correction() -> None:
    """20 findings with 10 chance columns each: nearly always none of the 200 is significant at 5 %."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(20):
        found = [
            [
                one.to_json()
                for one in associations(
                    {str(c): rng.normal(size=80) for c in range(10)}, rng.permutation(80) < 30
                )
            ]
            for _ in range(20)
        ]
        alarms += any(one["q_value"] <= 0.05 for many in corrected(found) for one in many)
    assert alarms <= 4


def test_correction_keeps_findings_apart() -> None:
    found = [
        [{"column": "a", "p_value": 0.01}],
        [],
        [{"column": "a", "p_value": 0.04}, {"column": "b", "p_value": 1.0}],
    ]
    first, none, last = corrected(found)
    assert first[0]["q_value"] == pytest.approx(0.03) and none == []
    assert [one["q_value"] for one in last] == pytest.approx([0.06, 1.0])
