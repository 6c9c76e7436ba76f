"""Summaries say what the numbers say, with their signs, and no more."""

import numpy as np

from spray.findings.words import summary

REGION = np.zeros((10, 10), bool)
REGION[:2, :2] = True
EVIDENCE = {
    "removal": {"mean": 0.41, "net": 0.36, "net_interval": [0.3, 0.42], "images": 60},
    "transplant": {"mean": 0.6, "net": 0.55, "net_interval": [0.5, 0.6], "images": 200},
    "flip_rate": 0.61,
}


def test_a_flagged_finding() -> None:
    words = summary(120, 600, "shirt", REGION, 0.83, EVIDENCE, True)
    assert words == (
        "120 of 600 'shirt' samples. Their shared relevance lies at the top left: 83% of it in 4.0% of the area. "
        "Removing it lowers P(shirt) by 0.41, net of the strongest control 0.36 [0.30, 0.42]. Pasted on 200 samples of "
        "other classes it raises P(shirt) by 0.60, net 0.55 [0.50, 0.60], and turns 61% of them into 'shirt'. "
        "The model uses this region by itself; whether it may is for you to judge."
    )


def test_an_unflagged_finding_claims_nothing() -> None:
    words = summary(120, 600, "shirt", REGION, 0.83, EVIDENCE, False)
    assert words.endswith("Not shown to be both necessary and sufficient.")
    assert "uses" not in words


def test_an_untested_finding_without_place() -> None:
    words = summary(12, 60, "a <b>", None, None, {}, False)
    assert words == "12 of 60 'a <b>' samples. Not tested by intervention: a suspicion only."


def test_effects_the_other_way_are_told_as_such() -> None:
    evidence = {
        "removal": EVIDENCE["removal"] | {"mean": -0.051, "net": -0.1, "net_interval": [-0.2, -0.004]},
        "transplant": EVIDENCE["transplant"] | {"mean": -0.001, "net": -0.08, "net_interval": [-0.1, 0.0]},
        "flip_rate": 0.0,
    }
    words = summary(12, 60, "cat", REGION, 0.5, evidence, False)
    assert (
        "Removing it raises P(cat) by 0.05, net of the strongest control −0.10 [−0.20, 0.00]. Pasted" in words
    )
    assert "it raises P(cat) by 0.00, net −0.08 [−0.10, 0.00], and turns 0% of them into 'cat'" in words
