"""Summaries say what the numbers say, with their signs, and no more."""

from typing import Any

import numpy as np

from spray.findings.words import summary
from stores import Finding

REGION = np.zeros((10, 10), bool)
REGION[:2, :2] = True
EVIDENCE: dict[str, Any] = {
    "where": "fixed",
    "removal": {
        "measure": "probability", "mean": 0.41, "net": 0.36, "net_interval": [0.3, 0.42], "images": 60,
        "controls": {"matched": 0.05},
    },
    "transplant": {
        "measure": "probability", "mean": 0.6, "net": 0.55, "net_interval": [0.5, 0.6], "images": 60,
        "controls": {"matched": 0.02},
    },
    "flip_rate": 0.61,
    "flip_rates": {"shared": 0.61, "matched": 0.04},
    "pasted_on": 200,
    "q_value": 0.0013,
    "unmet": [],
}  # fmt: skip


def words(
    name: str = "shirt", flagged: bool = False, target: str = "", concentration: float = 0.83, **changes: Any
) -> str:
    evidence = {**EVIDENCE, **changes}
    finding = Finding(
        "c0.f0",
        0,
        "hdbscan",
        (0,),
        np.arange(120),
        0.5,
        flagged,
        {"concentration": concentration},
        REGION,
        None,
        evidence,
    )
    return summary(finding, 600, name, target)


def test_a_confirmed_finding() -> None:
    assert words(flagged=True, confirmed=True, jittered={"mean": 0.5}) == (
        "120 of 600 'shirt' samples. Their shared relevance lies at the top left: 83 % of it in 4.0 % of the area. "
        "Removing it lowers P(shirt) by 0.41 (matched regions of other samples: 0.05), net of the strongest control "
        "0.36 [0.30, 0.42]. Pasting it on 200 samples of other classes raises P(shirt) by 0.60, net 0.55 [0.50, 0.60], "
        "and turns 61 % of them into 'shirt' (matched patches: 4 %). A little beside its place it "
        "still works (83 %). "
        "Confirmed (q = 0.0013): the model uses this region by itself; whether it may is for you to judge."
    )


def test_on_whom_it_was_measured_is_told_where_not_all_carry_the_region() -> None:
    assert "measured" not in words() and "measured" not in words(carriers=120, clustered=120)
    assert (
        "of the area. What follows is measured on 60 of the 90 of its 130 clustered samples that have more relevance "
        "there than 95 % of the rest. Removing it"
    ) in words(carriers=90, clustered=130)
    assert "measured on the 30 of its 130 clustered samples that have more relevance in them than" in words(
        carriers=30, clustered=130, channels=[1, 2]
    )


def test_relevance_that_is_spread_over_the_picture_is_told_to_lie_nowhere() -> None:
    for spread in (0.0, 0.04, 0.055):
        said = words(concentration=spread)
        assert "no place in common: the region that tells them best, 4.0 % of the area" in said
        assert "lies at" not in said
    assert "lies at the top left: 7 % of it in 4.0 % of the area" in words(concentration=0.07)


def test_what_moves_has_no_place_that_it_could_lie_beside() -> None:
    assert "beside its place" in words(jittered={"mean": 0.5})
    assert "beside its place" not in words(jittered={"mean": 0.5}, where="moving")


def test_a_q_value_below_what_a_double_holds_is_not_0() -> None:
    found = {"column": "hospital", "test": "chi-square", "effect": 1.0, "q_value": 0.0}
    assert "effect 1.00, q < 1e-300)" in words(associations=[found])


def test_why_a_finding_was_not_tested_is_told() -> None:
    notes = ("Too few members.",)
    found = Finding("c0.f0", 0, "hdbscan", (0,), np.arange(12), 0.0, False, {}, None, None, {}, notes=notes)
    assert summary(found, 20, "cat").endswith(
        "Not tested by intervention: a suspicion only. Too few members."
    )


def test_an_interval_of_few_comparisons_is_told_with_their_number() -> None:
    few, many = (words(transplant={**EVIDENCE["transplant"], "net_images": count}) for count in (7, 50))
    assert "net 0.55 [0.50, 0.60] (of 7 independent comparisons only), and turns" in few
    assert "comparisons only" not in many


def test_a_confirmed_finding_that_is_not_flagged_is_confirmed_all_the_same() -> None:
    said = words(confirmed=True)
    assert "Confirmed (q = 0.0013)" in said and said.endswith(
        "Not among the most suspicious of its class, which are flagged."
    )


def test_without_a_control_on_the_same_samples_nothing_is_called_net() -> None:
    compared = {
        "net": 0.41,
        "elsewhere": ["matched"],
        "log_odds": {"mean": 3.4, "controls": {"matched": 0.8}},
    }
    assert (
        "Removing it lowers P(shirt) by 0.41 [0.30, 0.42] (matched regions of other samples: 0.05); it lowers the "
        "log-odds by 3.40 (matched regions: 0.80). Pasting it on 200 samples of other classes raises P(shirt) by "
        "0.60 [0.50, 0.60], and turns"
    ) in words(removal=EVIDENCE["removal"] | compared, transplant=EVIDENCE["transplant"] | {"controls": {}})


def test_samples_have_the_name_of_their_group_and_effects_that_of_the_class_explained() -> None:
    said = words("cat", target="dog")
    assert said.startswith("120 of 600 'cat' samples.")
    assert "lowers P(dog) by 0.41" in said and "61 % of them into 'dog'" in said


def test_other_images_are_compared_in_log_odds_where_probability_is_the_measure() -> None:
    compared = {
        "controls": {"matched": 0.05, "random": 0.01},
        "elsewhere": ["matched"],
        "log_odds": {"mean": 3.4, "controls": {"matched": 0.8, "random": 0.1}},
    }
    assert (
        "Removing it lowers P(shirt) by 0.41 (matched regions of other samples: 0.05), net of the strongest control on "
        "the same samples 0.36 [0.30, 0.42]; it lowers the log-odds by 3.40 (matched regions: 0.80). Pasting"
    ) in words(removal=EVIDENCE["removal"] | compared)
    log_odds = EVIDENCE["removal"] | compared | {"measure": "logit"}
    assert "same samples" not in words(removal=log_odds)


def test_an_unconfirmed_finding_claims_nothing_and_says_what_is_missing() -> None:
    assert words(unmet=["necessity", "significance"]).endswith(
        "Not shown to be both necessary and sufficient."
    )
    assert words(unmet=["independence of the host"]).endswith(
        "Not confirmed; it lacks independence of the host."
    )
    assert words(unmet=["size of the effect", "significance"]).endswith(
        "Not confirmed; it lacks size of the effect, significance."
    )
    screened = (
        "Too little showed on one half of the samples to test it on the other; its figures are upper bounds."
    )
    assert words(unmet=["tested on the other half", "significance"]).endswith(f"Not confirmed. {screened}")
    assert words(unmet=["tested on the other half", "necessity"]).endswith(f"sufficient. {screened}")
    assert words().endswith("Not confirmed: too many candidates for its significance.")
    assert "uses" not in words(unmet=["necessity"])


def test_an_untested_finding_without_place() -> None:
    finding = Finding("c0.f0", 0, "hdbscan", (0,), np.arange(12), 0.5, False, {}, None, None)
    assert summary(finding, 60, "a <b>") == (
        "12 of 60 'a <b>' samples. Not tested by intervention: a suspicion only."
    )


def test_effects_the_other_way_are_told_as_such() -> None:
    said = words(
        "cat",
        removal=EVIDENCE["removal"]
        | {"mean": -0.051, "net": -0.1, "net_interval": [-0.2, -0.004], "controls": {}},
        transplant=EVIDENCE["transplant"] | {"mean": -0.001, "net": -0.08, "net_interval": [-0.1, 0.0]},
        flip_rate=0.0,
        flip_rates={"shared": 0.0},
        jittered={"mean": 0.0},
    )
    assert "Removing it raises P(cat) by 0.05 [0.00, 0.20]. Pasting" in said
    assert "raises P(cat) by 0.00, net −0.08 [−0.10, 0.00], and turns 0 % of them into 'cat'." in said
    assert "beside" not in said


def test_of_too_few_comparisons_nothing_can_be_confirmed_and_one_has_no_interval() -> None:
    said = {
        count: words(transplant={**EVIDENCE["transplant"], "net_images": count}) for count in (1, 4, 5, 7)
    }
    assert "net 0.55 (of 1 independent comparison only, too few to be confirmed), and turns" in said[1]
    assert "net 0.55 [0.50, 0.60] (of 4 independent comparisons only, too few to be confirmed)" in said[4]
    assert "too few" not in said[5] and "too few" not in said[7]


def test_content_that_does_the_contrary_beside_its_place_does_not_work_there() -> None:
    said = words(jittered={"mean": -0.1})
    assert (
        "A little beside its place it does not work." in said and "-" not in said.split("beside its place")[1]
    )


def test_channels_and_log_odds_have_words_of_their_own() -> None:
    log_odds = {"measure": "logit", "mean": 3.4, "net": 3.1, "net_interval": [2.9, 3.3]}
    said = words(
        "carton",
        channels=list(range(10)),
        removal=EVIDENCE["removal"] | log_odds,
        transplant=EVIDENCE["transplant"] | log_odds,
    )
    assert "They share 10 channels: 0, 1, 2, 3, 4, 5, 6, 7, …." in said
    assert (
        "Suppressing them lowers the log-odds of 'carton' by 3.40 (matched channels of other samples: 0.05)"
        in said
    )
    assert "Injecting them into 200 samples of other classes raises the log-odds of 'carton' by 3.40" in said


def test_a_region_that_moves_has_no_place() -> None:
    assert "no fixed place" in words(where="moving") and "top left" not in words(where="moving")


def test_a_joint_finding_is_one_of_all_classes() -> None:
    finding = Finding("c-1.f0", -1, "hdbscan", (0,), np.arange(12), 0.5, False, {}, None, None)
    assert summary(finding, 60, "any class").startswith("12 of 60 samples of all classes. Not tested")


def test_the_strongest_significant_association_is_told() -> None:
    found = [
        {"column": "width", "test": "Mann-Whitney U", "effect": 0.8, "p_value": 0.2, "q_value": 0.4},
        {"column": "source", "test": "chi-square", "effect": 0.61, "p_value": 1e-5, "q_value": 0.0002},
        {"column": "bytes", "test": "Mann-Whitney U", "effect": 0.3, "p_value": 1e-9, "q_value": 1e-7},
    ]
    assert "Membership goes with 'source' (chi-square, effect 0.61, q = 0.0002)." in words(associations=found)
    assert "Membership" not in words(associations=found[:1])


def test_findings_can_be_looked_for_in_a_list() -> None:
    one, other = (
        Finding("c0.f0", 0, "hdbscan", (0,), np.arange(12), 0.0, False, {}, REGION, None, {})
        for _ in range(2)
    )
    assert one in [other, one] and one not in [other]
