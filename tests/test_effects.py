"""Effects beside controls: net, interval and p-value, on numbers that are easy to check."""

import numpy as np
import pytest

from spray.findings.verification.effects import Control, Effect, strongest
from spray.findings.verification.hosts import HostIndependence, host_independence
from spray.findings.verification.judge import FLIP, LOGIT, PROBABILITY
from spray.findings.verification.pairs import Pairs, first_half, matched


def readings(values: np.ndarray) -> np.ndarray:
    return np.column_stack([values, 10 * values, values > 0.5])


def effect(way: np.ndarray, *controls: np.ndarray, measure: int = PROBABILITY) -> Effect:
    named = {f"control {i}": {"a": Control.of(readings(c))} for i, c in enumerate(controls)}
    return Effect("removal", {"a": readings(way)}, named, measure, permutations=999)


def test_net_is_the_smallest_mean_difference_and_nothing_is_a_control() -> None:
    way = np.array([0.5, 0.3, 0.4, 0.4])
    assert effect(way).net == pytest.approx(0.4)
    assert effect(way, way - 0.1, way - 0.3).net == pytest.approx(0.1)
    assert effect(way, np.full(4, -0.5)).net == pytest.approx(0.4)  # a control below 0 helps nobody


def test_other_images_are_compared_in_log_odds_only() -> None:
    way, others = np.full(6, 0.3), readings(np.full(6, 0.25))
    compared = {"matched": {"a": Control.of(others, same=False)}}
    found = Effect("removal", {"a": readings(way)}, compared)
    assert found.net == pytest.approx(0.3)  # their probabilities saturate elsewhere
    assert found.net_of("a", LOGIT) == pytest.approx(0.5)
    assert found.size == pytest.approx(np.tanh(0.5 / 4))
    assert matched(6, others, np.random.default_rng(0)).same is False
    told = found.to_json()
    assert (
        told["elsewhere"] == ["matched"]
        and told["log_odds"]["controls"]["matched"] == others[:, LOGIT].mean()
    )


@pytest.mark.parametrize(("beyond", "worth_a_test"), [(0.3, True), (-0.1, True), (-0.6, False)])
def test_what_falls_short_of_other_images_by_chance_is_worth_a_test(
    beyond: float, worth_a_test: bool
) -> None:
    """In log-odds the differences vary by 2 on 40 images, so their mean by 0.3."""
    noise = np.random.default_rng(0).normal(0, 2, 40)
    differences = beyond + (noise - noise.mean()) / noise.std(ddof=1) * 2
    way = np.column_stack([np.full(40, 0.1), 3 + differences, np.zeros(40)])
    others = np.column_stack([np.full(40, 0.2), np.full(40, 3.0), np.zeros(40)])
    compared = {"matched": {"a": Control.of(others, same=False)}}
    found = Effect("removal", {"a": way}, compared)
    assert (found.possible("a") > 0) is worth_a_test
    assert (found.size > 0) is (beyond > 0)  # to be proven it has to go beyond them


def test_the_same_image_is_tested_in_what_is_told_of_it() -> None:
    """A control that moves hosts of no chance by as much in log-odds, and none of them in probability."""
    rng = np.random.default_rng(3)
    way = np.column_stack([rng.normal(0.3, 0.1, 40), rng.normal(3, 0.5, 40), np.zeros(40)])
    control = np.column_stack([rng.normal(0, 0.01, 40), rng.normal(3.2, 0.5, 40), np.zeros(40)])
    compared = {"matched": {"in place": Control.of(control)}}
    told = {
        measure: Effect("transplant", {"in place": way}, compared, measure)
        for measure in (PROBABILITY, LOGIT)
    }
    assert told[PROBABILITY].p_value < 0.01 and told[PROBABILITY].size == pytest.approx(0.3, abs=0.05)
    assert told[LOGIT].p_value > 0.5


def test_the_weakest_way_speaks() -> None:
    ways = {"a": readings(np.full(20, 0.4)), "b": readings(np.full(20, 0.1))}
    both = Effect("removal", ways, {}, permutations=99)
    assert both.weakest == "b" and both.net == pytest.approx(0.1)
    assert both.to_json()["ways"] == {"a": pytest.approx(0.4), "b": pytest.approx(0.1)}


def test_the_interval_holds_the_net_and_narrows_with_the_sample() -> None:
    rng = np.random.default_rng(0)
    few, many = (effect(rng.normal(0.3, 0.2, n), rng.normal(0.1, 0.2, n)) for n in (10, 400))
    for one in (few, many):
        low, high = one.interval
        assert low < one.net < high
    assert many.interval[1] - many.interval[0] < 0.5 * (few.interval[1] - few.interval[0])


@pytest.mark.parametrize("count", [5, 10, 40])
def test_the_interval_covers_what_it_says_where_units_are_few(count: int) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = effect(rng.normal(0.3, 0.2, count)).interval
        covered += low <= 0.3 <= high
    assert 0.9 <= covered / 400 <= 0.98


def test_one_control_that_explains_it_is_enough_to_fail() -> None:
    rng = np.random.default_rng(1)
    way = rng.normal(0.3, 0.1, 40)
    assert effect(way).p_value <= 0.002
    assert effect(way, rng.normal(0, 0.1, 40)).p_value <= 0.002
    assert effect(way, rng.normal(0, 0.1, 40), way + rng.normal(0, 0.01, 40)).p_value > 0.05


def test_sizes_end_at_one_and_need_both_measures() -> None:
    assert effect(np.full(9, 0.4)).size == pytest.approx(0.4)
    assert effect(np.full(9, 0.4), measure=LOGIT).size == pytest.approx(np.tanh(1))
    contradicting = {"a": np.column_stack([np.full(9, 0.3), np.full(9, -1.0), np.zeros(9)])}
    assert Effect("removal", contradicting, {}).size < 0


def test_the_strongest_of_several_controls_of_a_kind() -> None:
    controls = [Control.of(readings(np.full(3, value))) for value in (0.1, 0.3, 0.2)]
    assert strongest(controls, FLIP - FLIP).values[0, 0] == 0.3
    assert len(strongest([], PROBABILITY).values) == 0


@pytest.mark.parametrize(("donors", "hosts"), [(5, 20), (20, 5), (7, 7), (3, 10), (1, 4)])
def test_pairs_share_no_image_between_units(donors: int, hosts: int) -> None:
    pairs = Pairs.deal(donors, hosts, np.random.default_rng(0))
    assert len(pairs.unit) == max(donors, hosts) and pairs.units == min(donors, hosts)
    for side in (pairs.donor, pairs.host):
        units = [set(pairs.unit[side == image].tolist()) for image in np.unique(side)]
        assert all(len(of_image) == 1 for of_image in units)
    for count in (2, 8, 40):
        sources, groups = pairs.sources(count, np.random.default_rng(1))
        assert len(groups) == pairs.units and len(np.unique(groups)) == min(count, pairs.units)
        assert sources.min() >= 0 and sources.max() < count
        for source in np.unique(sources):  # no image in two groups
            assert len(set(groups[pairs.unit[sources == source]].tolist())) == 1


def test_units_are_means_of_their_pairs() -> None:
    pairs = Pairs.deal(2, 6, np.random.default_rng(0))
    values = readings(np.arange(6) / 10)
    expected = [values[pairs.unit == unit, 0].mean() for unit in range(2)]
    assert pairs.averaged(values)[:, 0] == pytest.approx(expected)


def test_where_others_are_fewer_all_units_are_compared_and_those_that_share_one_count_as_one() -> None:
    """So that what is told of the effect, of the control and of their difference are figures of the same images."""
    rng = np.random.default_rng(0)
    way, others = rng.normal(0.5, 0.1, 10), readings(rng.normal(0.2, 0.1, 4))
    control = matched(10, others, rng)
    assert control.independent == 4 and len(control.values) == 10
    for group in range(4):
        assert len(np.unique(control.values[control.groups == group, 0])) == 1
    found = Effect("removal", {"a": readings(way)}, {"matched": {"a": control}}, LOGIT, permutations=999)
    told = found.to_json()
    assert told["net"] == pytest.approx(told["mean"] - told["controls"]["matched"])
    assert found.compared("matched") == told["net_images"] == 4 and told["images"] == 10
    assert found.p_of("a", "matched") == pytest.approx(2**-4)  # four independent ones, all above 0
    assert matched(10, readings(rng.normal(0, 1, 30)), rng).independent == 10
    assert matched(10, others[:0], rng).independent == 0


def test_an_image_is_in_one_half_whatever_its_part_and_no_group_is_cut_unevenly() -> None:
    groups = [np.arange(11), np.arange(8, 19), np.arange(40), np.arange(30, 60)]
    first = first_half(groups, np.random.default_rng(0))
    assert len(np.unique(first)) == len(first) == 30 and np.isin(first, np.arange(60)).all()
    assert (np.diff(first) > 0).all()
    for own in (groups[0], np.arange(11, 19), np.arange(19, 40), np.arange(40, 60)):
        assert abs(2 * np.isin(own, first).sum() - len(own)) <= 1
    assert not np.array_equal(first, first_half(groups, np.random.default_rng(1)))


def independence(rise: np.ndarray, control: float = 0.0, classes: int = 4) -> HostIndependence:
    hosts = np.arange(40)
    labels = hosts % classes if classes else np.full(40, -1)
    return host_independence(labels, rise, {"random": np.full(40, control)})


def test_a_transplant_that_works_on_any_host_is_independent_of_it() -> None:
    found = independence(np.full(40, 2.0), 0.5)
    assert found.hosts == 1 and found.classes == 1 and found.holds(0.5)
    assert not independence(np.full(40, 2.0), 2.5).holds(0.5)  # anything of the members would do


def test_one_that_needs_a_host_that_is_half_there_is_not() -> None:
    only_high = np.where(np.arange(40) >= 20, 3.0, 0.0)
    assert not independence(only_high, classes=0).holds(0.5)
    only_one_class = np.where(np.arange(40) % 4 == 0, 6.0, -0.1)
    found = independence(only_one_class)
    assert found.classes == 0.25 and not found.holds(0.5)


def test_beyond_what_the_same_does_elsewhere_leaves_doing_nothing_aside() -> None:
    way = np.array([0.05, 0.15, 0.1, 0.1])  # log-odds are ten times as large
    assert effect(way).beyond == pytest.approx(1.0)
    assert effect(way, np.full(4, -0.2), np.full(4, -0.1)).beyond == pytest.approx(2.0)
    assert effect(way, np.full(4, -0.2), np.full(4, 0.06)).beyond == pytest.approx(0.4)
    ways = {"a": readings(way), "b": readings(way - 0.03)}
    controls = {"random": {name: Control.of(readings(np.full(4, -0.1))) for name in ways}}
    assert Effect("removal", ways, controls).beyond == pytest.approx(1.7)


def test_where_others_do_not_suffice_hosts_of_any_place_in_the_order_share_one() -> None:
    pairs = Pairs.deal(100, 100, np.random.default_rng(0))
    sources, groups = pairs.sources(20, np.random.default_rng(1))
    assert (np.bincount(groups) == 5).all() and len(np.unique(sources)) == 20
    assert all(np.ptp(pairs.host[groups[pairs.unit] == group]) > 20 for group in range(20))
