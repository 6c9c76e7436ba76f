"""What the manual of verification says is what the code does."""

from pathlib import Path

from spray.findings.scores import ASSOCIATION, SCORES
from spray.findings.suspicion import Ranking
from spray.findings.verification import Requirements
from spray.findings.verification.evidence import (
    APART,
    COMPARED,
    COMPARED_AT_LEAST,
    NECESSITY,
    SIGNIFICANCE,
    SUFFICIENCY,
)

MANUAL = (Path(__file__).parents[1] / "docs" / "verification.md").read_text(encoding="utf-8")


def row(name: str) -> str:
    """A table's row by the name that it begins with."""
    [found] = [line for line in MANUAL.splitlines() if line.startswith(f"| {name} |")]
    return found


def test_every_score_is_explained() -> None:
    assert all(f"`{name}`" in MANUAL for name in (*SCORES, ASSOCIATION))


def test_requirements_are_told_with_their_defaults() -> None:
    asked = Requirements()
    assert f"at least {asked.necessity}" in row(NECESSITY) and f"at least {asked.sufficiency}" in row(
        SUFFICIENCY
    )
    assert f"at least {asked.score}, of a region that moves {asked.moving}" in row("size of the effect")
    assert row(SIGNIFICANCE).count(f"at most {asked.alpha}") == 2
    assert asked.fills == 2 and "two at least" in row("agreement of fills")
    assert COMPARED_AT_LEAST == 5 and "at least five others" in row(COMPARED)
    assert f"at least {asked.mode:.0%}".replace("%", " %") in row(APART)
    assert asked.hosts == 0.5 and "more than half" in row("independence of the host")


def test_suspicion_is_told_with_its_numbers() -> None:
    rank = Ranking()
    assert f"{rank.prior_weight} · √(separation · agreement)" in MANUAL
    assert f"a separability of {rank.separation}," in MANUAL and rank.flags_per_class == 3
