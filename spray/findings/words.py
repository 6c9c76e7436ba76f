"""Findings in words: short, hedged sentences made from the numbers, never from what anybody hopes to read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from spray.findings.regions import describe_place
from stores.provenance import Json


def summary(
    members: int,
    class_size: int,
    class_name: str,
    region: Bool[np.ndarray, "y x"] | None,
    concentration: float | None,
    evidence: Mapping[str, Json],
    flagged: bool,
) -> str:
    """The finding in plain words."""
    sentences = [f"{members} of {class_size} '{class_name}' samples."]
    if region is not None and region.any() and concentration is not None:
        sentences.append(
            f"Their shared relevance lies at the {describe_place(region)}: {concentration:.0%} of it in "
            f"{region.mean():.1%} of the area."
        )
    if not evidence:
        return " ".join([*sentences, "Not tested by intervention: a suspicion only."])
    removal, transplant = evidence["removal"], evidence["transplant"]
    assert isinstance(removal, Mapping) and isinstance(transplant, Mapping)
    sentences.append(
        f"Removing it {_moves(removal, class_name, 'lowers', 'raises')}, net of the strongest control {_net(removal)}. "
        f"Pasted on {_number(transplant['images']):.0f} samples of other classes it "
        f"{_moves(transplant, class_name, 'raises', 'lowers')}, net {_net(transplant)}, and turns "
        f"{_number(evidence['flip_rate']):.0%} of them into '{class_name}'."
    )
    sentences.append(
        "The model uses this region by itself; whether it may is for you to judge."
        if flagged
        else "Not shown to be both necessary and sufficient."
    )
    return " ".join(sentences)


def _moves(effect: Mapping[str, Json], class_name: str, up: str, down: str) -> str:
    mean = _number(effect["mean"])
    return f"{up if round(mean, 2) >= 0 else down} P({class_name}) by {abs(mean):.2f}"


def _net(effect: Mapping[str, Json]) -> str:
    bounds = effect["net_interval"]
    assert isinstance(bounds, list)
    low, high = (_signed(_number(bound)) for bound in bounds)
    return f"{_signed(_number(effect['net']))} [{low}, {high}]"


def _number(value: Json) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _signed(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")
