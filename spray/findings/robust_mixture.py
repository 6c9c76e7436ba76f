"""Two groups of one scatter among samples some of which lie far out: a mixture of two t distributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from spray.findings.halves import crossed_halves

AT_LEAST = 5
"""Samples' worth that a component needs."""
RIDGE = 1e-3
"""Of the mean variance, added to every dimension's: corners are black in most pictures."""
SETTLED = 1e-4
"""Of all samples: so much membership still moves when the mixture counts as found."""
SURE = 50.0
"""Log-odds beyond which a sample is of one component alone."""


class Fitted(NamedTuple):
    """Shares of the samples in the component that was started from, and the weights of them in both."""

    share: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, "2 n"]


class _Components(NamedTuple):
    """Means of both, what makes their scatter the identity, and the log-odds before a sample is seen."""

    inside: Float[np.ndarray, " d"]
    outside: Float[np.ndarray, " d"]
    whiten: Float[np.ndarray, "d d"]
    prior: float


def t_mixture(
    features: Float[np.ndarray, "n d"],
    members: Bool[np.ndarray, " n"],
    freedom: float,
    rounds: int,
) -> Fitted | None:
    """The mixture that expectation and maximisation find from the members; None where a component vanishes.

    ``freedom`` degrees of freedom of both: the fewer, the less do samples far from everything weigh.

    Source: Peel and McLachlan 2000, Robust mixture modelling using the t distribution.
    """
    fitted = Fitted(members.astype(np.float64), np.ones((2, len(features))))
    for _ in range(rounds):
        components = _components(features, fitted)
        if components is None:
            return None
        log_odds, weights = _told(features, components, freedom)
        share = 1 / (1 + np.exp(-np.clip(log_odds, -SURE, SURE)))
        moved = float(np.abs(share - fitted.share).sum())
        fitted = Fitted(share, weights)
        if moved < SETTLED * len(features):
            break
    return fitted


def held_out(
    features: Float[np.ndarray, "n d"], fitted: Fitted, freedom: float, seed: int
) -> Float[np.ndarray, " n"] | None:
    """Log-odds of the first component, of each half of the samples by the other; None where it vanishes in one."""
    found = np.empty(len(features))
    for known, told in crossed_halves(len(features), seed):
        components = _components(features[known], Fitted(fitted.share[known], fitted.weights[:, known]))
        if components is None:
            return None
        found[told] = _told(features[told], components, freedom)[0]
    return found


def _components(features: Float[np.ndarray, "n d"], fitted: Fitted) -> _Components | None:
    """Of samples whose shares and weights are known."""
    size, count = float(fitted.share.sum()), len(features)
    if not AT_LEAST <= size <= count - AT_LEAST:
        return None
    shares = np.stack([fitted.share, 1 - fitted.share]) * fitted.weights
    totals = shares.sum(axis=1)
    means = shares @ features / totals[:, None]
    scatter = (features * shares.sum(axis=0)[:, None]).T @ features
    scatter = (scatter - (means * totals[:, None]).T @ means) / count
    least = float(np.finfo(float).eps * np.square(features).mean() + np.finfo(float).tiny)
    variance = max(float(np.trace(scatter)) / len(scatter), least)
    factor = np.linalg.cholesky(scatter + RIDGE * variance * np.eye(len(scatter)))
    whiten = np.linalg.solve(factor, np.eye(len(factor)))
    return _Components(means[0], means[1], whiten, float(np.log(size / (count - size))))


def _told(
    features: Float[np.ndarray, "n d"], components: _Components, freedom: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "2 n"]]:
    """Log-odds of the first component, and what weight a sample has in each."""
    dimensions = features.shape[1]
    white = (features - (components.inside + components.outside) / 2) @ components.whiten.T
    half = components.whiten @ (components.inside - components.outside) / 2
    middle = np.einsum("nd,nd->n", white, white) + half @ half
    tilt = 2 * white @ half
    from_each = freedom + np.maximum([middle - tilt, middle + tilt], 0)
    log_odds = components.prior + (freedom + dimensions) / 2 * np.log(from_each[1] / from_each[0])
    return log_odds, (freedom + dimensions) / from_each
