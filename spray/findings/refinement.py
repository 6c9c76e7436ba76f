"""Who belongs to a strategy? Members refined by what the class does where the strategy looks.

Spectral clusters are made of whole maps: they take along what merely looks alike, and leave out members in which other
things matter, too. In the few cells of a strategy's region the question is a small one, answered by a discriminant
without labels: a mixture of two Gaussians of one covariance, started from the cluster (Day 1969; McLachlan and Peel
2000, section 3.8). No model is asked, and no effect is looked at: what is proved later is not fitted here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation

from spray.findings.discriminant import upper_mode
from spray.findings.halves import crossed_halves

AT_LEAST = 5
"""Samples that a component needs."""
RIDGE = 1e-3
"""Of the mean variance, added to every dimension's: corners are black in most pictures."""
SETTLED = 0.1
"""Samples' worth of membership that still move when the mixture counts as found."""
SURE = 50.0
"""Log-odds beyond which a sample is of one component alone."""


@dataclass(frozen=True)
class Refinement:
    """Members by a two-component mixture in the region's cells, taken where they are a mode of their own.

    Args:
        margin: cells by which the region is grown; beside what is shared lies what tells it from the like.
        samples: so many for each dimension; of wider regions only the leading principal components are looked at.
        mode: least share of the refined members above the density of the valley before them (``upper_mode``). Measured
            in Fashion-MNIST: tags, borders and texts 0.6 to 1.0; of honest clusters about one in fifty has so much.
        overlap: Jaccard index with the cluster below which refined members are others, and are not taken.
        rounds: of expectation and maximisation, at most.
    """

    margin: int = 2
    samples: int = 10
    mode: float = 0.5
    overlap: float = 1 / 3
    rounds: int = 100

    def members(
        self,
        units: Float[np.ndarray, "m y x"],
        members: Bool[np.ndarray, " m"],
        region: Bool[np.ndarray, "y x"],
        seed: int,
    ) -> tuple[Bool[np.ndarray, " m"], float]:
        """The refined members and how much of a mode they are, or those given and 0 where there is no such mode.

        A mixture that starts from all of them and finds none starts from either half of them: two groups that share a
        place are one cluster, and only one of them may be a mode.
        """
        features = self._features(units, region)
        starts = (members,), self._halves(features, members)
        for tried in starts:
            found = [held_out(features, mixture(features, start, self.rounds), seed) for start in tried]
            modes = [
                upper_mode(log_odds) if self._alike(log_odds > 0, members) else 0.0 for log_odds in found
            ]
            if max(modes, default=0.0) >= self.mode:
                best = int(np.argmax(modes))
                return found[best] > 0, modes[best]
        return members, 0.0

    def _alike(self, refined: Bool[np.ndarray, " m"], members: Bool[np.ndarray, " m"]) -> bool:
        return float((refined & members).sum()) >= self.overlap * float((refined | members).sum())

    def _halves(
        self, features: Float[np.ndarray, "m d"], members: Bool[np.ndarray, " m"]
    ) -> tuple[Bool[np.ndarray, " m"], ...]:
        """Members on either side of their median along their first principal component; none of most of the class."""
        inside = features[members]
        if not 2 * AT_LEAST <= len(inside) <= len(features) / 2:
            return ()
        centred = inside - inside.mean(axis=0)
        along = features @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
        beyond = along > np.median(along[members])
        return members & beyond, members & ~beyond

    def _features(
        self, units: Float[np.ndarray, "m y x"], region: Bool[np.ndarray, "y x"]
    ) -> Float[np.ndarray, "m d"]:
        cells = binary_dilation(region, iterations=self.margin) if self.margin else region
        return reduced(units[:, cells], self.samples)


def reduced(features: Float[np.ndarray, "m c"], samples: int) -> Float[np.ndarray, "m d"]:
    """Centred; the leading principal components of features that are more than one for so many samples."""
    centred: Float[np.ndarray, "m c"] = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    dimensions = max(1, len(centred) // samples)
    if centred.shape[1] <= dimensions:
        return centred
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :dimensions]
    found: Float[np.ndarray, "m d"] = centred @ axes
    return found


def mixture(
    features: Float[np.ndarray, "m d"], members: Bool[np.ndarray, " m"], rounds: int = 100
) -> Float[np.ndarray, " m"]:
    """Share of each sample in the component that starts as the members, of two Gaussians of one covariance.

    By expectation and maximisation. NaN where a component has less than ``AT_LEAST`` samples' worth.
    """
    samples = GroupsOfOneScatter(features)
    share = members.astype(np.float64)
    for _ in range(rounds):
        before = share
        share = 1 / (1 + np.exp(-np.clip(samples.log_odds(share, features), -SURE, SURE)))
        if not np.isfinite(share).all() or float(np.abs(share - before).sum()) < SETTLED:
            break
    return share


def held_out(
    features: Float[np.ndarray, "m d"], share: Float[np.ndarray, " m"], seed: int
) -> Float[np.ndarray, " m"]:
    """Log-odds of the component with these shares, of each half of the samples by the discriminant of the other.

    NaN where a component has less than ``AT_LEAST`` samples' worth in a half.
    """
    found = np.empty(len(features))
    for fitted, told in crossed_halves(len(features), seed):
        found[told] = GroupsOfOneScatter(features[fitted]).log_odds(share[fitted], features[told])
    return found


class GroupsOfOneScatter:
    """Samples that a discriminant is fitted on, and what of it does not depend on the shares."""

    def __init__(self, features: Float[np.ndarray, "f d"]) -> None:
        self.features, self.mean = features, features.mean(axis=0)
        self.covariance = features.T @ features / len(features) - np.outer(self.mean, self.mean)

    def log_odds(
        self, share: Float[np.ndarray, " f"], told: Float[np.ndarray, "t d"]
    ) -> Float[np.ndarray, " t"]:
        """Log-odds of the component with these shares of the samples, for others; NaN where one is too small."""
        count, size = len(self.features), float(share.sum())
        if not AT_LEAST <= size <= count - AT_LEAST:
            return np.full(len(told), np.nan)
        inside = share @ self.features / size
        outside = (count * self.mean - size * inside) / (count - size)
        apart = inside - outside
        within = self.covariance - size * (count - size) / count**2 * np.outer(apart, apart)
        variance = max(float(np.trace(within)) / len(within), np.finfo(float).tiny)
        direction = np.linalg.solve(within + RIDGE * variance * np.eye(len(within)), apart)
        offset = float(np.log(size / (count - size)))
        found: Float[np.ndarray, " t"] = (told - (inside + outside) / 2) @ direction + offset
        return found
