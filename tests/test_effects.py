"""Net effects: the weakest way against the strongest control, with honest intervals."""

import numpy as np
import pytest

from spray.findings.effects import Effect


def effect(images: dict[str, float], controls: dict[str, dict[str, float]], n: int = 80) -> Effect:
    rng = np.random.default_rng(0)

    def noisy(mean: float) -> np.ndarray:
        values = rng.normal(0, 0.1, n)
        return values - values.mean() + mean

    return Effect(
        "removal",
        {way: noisy(mean) for way, mean in images.items()},
        {name: {way: noisy(mean) for way, mean in ways.items()} for name, ways in controls.items()},
    )


def test_the_weakest_way_counts_against_the_strongest_control() -> None:
    found = effect(
        {"mean": 0.5, "blur": 0.4},
        {"matched": {"mean": 0.3, "blur": 0.05}, "random": {"mean": 0.0, "blur": 0.1}},
    )
    assert found.weakest == "mean"
    assert found.net == pytest.approx(0.2)
    assert found.net_of("blur") == pytest.approx(0.3)


def test_controls_below_zero_give_no_bonus() -> None:
    found = effect({"mean": 0.1}, {"matched": {"mean": -0.4}})
    assert found.net == pytest.approx(0.1)
    low, high = found.interval(seed=0)
    assert low < 0.1 < high <= found.mean + 0.1


def test_no_control_counts_as_no_effect() -> None:
    assert effect({"mean": 0.25}, {}).net == pytest.approx(0.25)
    empty = Effect("removal", {"mean": np.full(5, 0.25)}, {"matched": {"mean": np.zeros(0)}})
    assert empty.net == pytest.approx(0.25)


def test_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        images, control = rng.normal(0.3, 0.2, 60), rng.normal(0.1, 0.2, 60)
        low, high = Effect("removal", {"a": images}, {"c": {"a": control}}).interval(
            seed=trial, resamples=300
        )
        covered += low <= 0.2 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_interval_and_record_are_the_same_for_the_same_seed() -> None:
    found = effect({"mean": 0.5}, {"matched": {"mean": 0.1}})
    assert found.interval(3) == found.interval(3)
    record = found.to_json(3)
    assert record["way"] == "mean" and record["images"] == 80
    assert record["controls"] == {"matched": pytest.approx(0.1)}
