"""Other ranks than the combined one: weights, a score, a function; and what a wrong name is told."""

from functools import partial

import pytest

from spray.findings import OwnRank, Ranking, Weighted
from spray.findings.scores import SCORES
from spray.findings.suspicion import rank_of
from stores import describe

PARTS = {"causal": 0.4, "separation": 0.9, "agreement": None, "share": 0.1}


def test_weights_of_scores() -> None:
    rank = rank_of("causal=2, share=-1,agreement=3", SCORES)
    assert rank == Weighted((("causal", 2.0), ("share", -1.0), ("agreement", 3.0)))
    assert rank.score(PARTS) == pytest.approx(0.7)
    assert rank_of("separation", SCORES).score(PARTS) == pytest.approx(0.9)
    assert rank_of("combined", SCORES) == Ranking()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("casual", "no score 'casual'"),
        ("causal=much", "expected a number"),
        ("causal=nan", "expected a number"),
        ("causal=1,share=2,causal=3", "'causal' has two weights"),
        ("", "no score ''"),
    ],
)
def test_what_is_no_rank_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rank_of(text, SCORES)


def test_a_function_of_ones_own_has_a_name_and_gives_finite_numbers() -> None:
    rank = OwnRank(lambda parts: 2 * (parts["causal"] or 0))
    assert rank.score(PARTS) == pytest.approx(0.8)
    assert "test_ranks:" in str(describe(rank)["identity"])
    assert describe(OwnRank(partial(max, 0.5)))["identity"] == "functools:partial"
    for odd in (float("nan"), float("inf"), None, "much"):
        with pytest.raises(ValueError, match="expected a finite number"):
            OwnRank(lambda parts, odd=odd: odd).score(PARTS)


def test_members_told_by_content_stand_apart_by_their_mode() -> None:
    rank, by_degrees = (
        Ranking(),
        {**PARTS, "separation": 0.6},
    )  # Fisher's ratio of 1.5, a sixth of that of 0.9
    assert rank.apart(by_degrees) == pytest.approx(1.5 / 9)
    assert rank.apart({**by_degrees, "mode": None}) == rank.apart({**by_degrees, "mode": 0.1})
    assert rank.apart({**by_degrees, "mode": 0.8}) == 0.8
    assert rank.score({**by_degrees, "mode": 0.8}) == pytest.approx(0.4 * 0.8)
    assert rank.apart({**PARTS, "separation": 0.95, "mode": 0.8}) == 1  # one of both suffices
    assert rank.apart({"separation": None, "mode": 0.8}) == 0  # nothing to stand apart from
