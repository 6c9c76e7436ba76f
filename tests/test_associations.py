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


def test_whole_numbers_of_few_values_are_codes_or_amounts() -> None:
    """The middle one of three hospitals has no rank of its own; an order of many values has."""
    members = np.arange(90) % 3 == 1
    coded = np.arange(90) % 3
    (as_code,) = associations({"hospital": coded}, members)
    (as_text,) = associations({"hospital": coded.astype(str).astype(object)}, members)
    assert as_code.test == "chi-square" and as_code.effect == pytest.approx(1.0)
    assert as_code.p_value == pytest.approx(2 * as_text.p_value)
    amounts = np.arange(90) // 10 + 3 * members
    (as_amount,) = associations({"images": amounts}, members)
    assert as_amount.test == "Mann-Whitney U"
    (many,) = associations({"bytes": np.arange(90) * 7 + 100 * members}, members)
    assert (
        many.test == "Mann-Whitney U"
        and many.p_value
        == associations({"bytes": (np.arange(90) * 7 + 100 * members).astype(float)}, members)[0].p_value
    )


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
