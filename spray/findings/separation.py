"""Two groups told apart where the samples between them are the fewest: by Fisher's line, where one comes by degrees.

A half-transparent word is plain on what is dark and gone on what is white. Those who carry it scatter along the line
that tells them from the others several times as widely as these, so that what halves the odds of two groups of one
scatter (`robust_mixture`) cuts off a part of them. The valley between the two needs no scatter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from spray.findings.discriminant import Valley, valley
from spray.findings.halves import Half, crossed_halves
from spray.findings.refinement import GroupsOfOneScatter

SETTLED = 1e-3
"""Of all samples: so few change sides when they count as told apart."""
Told = tuple[Bool[np.ndarray, " n"], float]
"""Members, and how much of a mode they are (`upper_mode`)."""
Place = Callable[[Bool[np.ndarray, " f"]], Float[np.ndarray, " h"] | None]
"""Where the held half lies on a line, by who of the fitted half are members; above 0, nearer to them. None: nowhere."""


def low_density_separation(
    features: Float[np.ndarray, "n d"], members: Bool[np.ndarray, " n"], rounds: int, seed: int
) -> Told | None:
    """Those beyond the valley of Fisher's line, between the medians of the two; None where there is no valley.

    Source: Chapelle and Zien 2005, Semi-supervised classification by low density separation.
    """

    def on_fishers_line(half: Half) -> Place:
        fitted, held = half
        groups = GroupsOfOneScatter(features[fitted])

        def place(side: Bool[np.ndarray, " f"]) -> Float[np.ndarray, " h"] | None:
            log_odds = groups.log_odds(side.astype(np.float64), features)
            if not np.isfinite(log_odds).all():
                return None
            low, high = np.median(log_odds[fitted][~side]), np.median(log_odds[fitted][side])
            return np.asarray((log_odds[held] - low) / (high - low) - 0.5) if high > low else None

        return place

    return beyond_the_valley(on_fishers_line, members, rounds, seed)


def beyond_the_valley(
    line: Callable[[Half], Place], members: Bool[np.ndarray, " n"], rounds: int, seed: int
) -> Told | None:
    """Those beyond the valley of a line that either half of the samples shows for the other; None if there is none.

    They are the members that the next line is taught, until they stay. No sample has a say in where it lies, so that
    what the members are at first does not confirm itself.
    """
    places = [(held, line((fitted, held)), fitted) for fitted, held in crossed_halves(len(members), seed)]
    inside, found = members, Valley(0.0, 0.0)
    for _ in range(rounds):
        values = np.empty(len(members))
        for held, place, fitted in places:
            at = place(inside[fitted])
            if at is None:
                return None
            values[held] = at
        found = valley(values)
        if not found.mode:
            return None
        before, inside = inside, values > found.at
        if (inside != before).sum() <= SETTLED * len(values):
            break
    return inside, found.mode
