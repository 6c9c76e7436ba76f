"""Findings in words: short, hedged sentences made from the numbers, never from what anybody hopes to read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from spray.regions import describe_place
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
        f"Removing it changes P({class_name}) by {_signed(-_number(removal['mean']))} "
        f"(net of the strongest control {_interval(removal, -1)}); pasting it on {_count(transplant['images'])} "
        f"samples of other classes changes it by {_signed(_number(transplant['mean']))} "
        f"(net {_interval(transplant, 1)}) and turns {_number(evidence['flip_rate']):.0%} of them "
        f"into '{class_name}'."
    )
    sentences.append(
        "The model uses this region by itself; whether it may is for you to judge."
        if flagged
        else "Not shown to be both necessary and sufficient."
    )
    return " ".join(sentences)


def _number(value: Json) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _count(value: Json) -> int:
    return int(_number(value))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _interval(effect: Mapping[str, Json], sign: int) -> str:
    bounds = effect["net_interval"]
    assert isinstance(bounds, list)
    low, high = sorted(sign * _number(bound) for bound in bounds)
    return f"{_signed(sign * _number(effect['net']))} [{_signed(low)}, {_signed(high)}]"
