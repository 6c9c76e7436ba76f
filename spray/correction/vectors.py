"""Concept activation vectors: which direction over channels tells samples with an artifact from those without.

Kim et al. 2018 (filters by a linear classifier); Pahde et al. 2022 (patterns by the signal, after Haufe et al. 2014: a
classifier's filter also points at what it has to cancel, the pattern only at what the artifact adds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Bool, Float

from spray.correction.errors import CorrectionError


@dataclass(frozen=True)
class Direction:
    """A filter w, which reads the artifact from an activation (wᵀh), and a pattern v, along which it is written."""

    filter: Float[np.ndarray, " c"]
    pattern: Float[np.ndarray, " c"]

    def __post_init__(self) -> None:
        gain = float(self.filter @ self.pattern)
        if not np.isfinite(gain) or gain <= 1e-9 * np.linalg.norm(self.filter) * np.linalg.norm(self.pattern):
            raise CorrectionError(
                "the direction found does not tell the finding's samples from the others (wᵀv is "
                f"{gain:.3g}, and must be positive): name another layer, or take the signal for both."
            )

    def read(self, activations: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
        """wᵀh of each sample."""
        return np.asarray(activations @ self.filter)

    def projection(self, target: float) -> tuple[Float[np.ndarray, "c c"], Float[np.ndarray, " c"]]:
        """A and b of h′ = h + (z − wᵀh)/(wᵀv)·v = A·h + b, after which wᵀh′ = z (Anders et al. 2022)."""
        along = self.pattern / float(self.filter @ self.pattern)
        return np.eye(len(along)) - np.outer(along, self.filter), target * along


class Estimator(Protocol):
    """How a direction is fitted."""

    @property
    def name(self) -> str:
        """As listed in ``CAVS``."""
        ...

    def filter(self, h: Float[np.ndarray, "n c"], y: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " c"]:
        """The direction that reads y from h."""
        ...


@dataclass(frozen=True)
class Signal:
    """cov(h, y) / var(y): for a yes-or-no artifact, the difference of the two means."""

    name: ClassVar[str] = "signal"

    def filter(self, h: Float[np.ndarray, "n c"], y: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " c"]:
        """The signal, the same as the pattern."""
        centred = y - y.mean()
        return np.asarray(centred @ (h - h.mean(0)) / (centred @ centred))


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on ±1, both sides weighing the same; ``penalty`` on standardised channels, per sample."""

    penalty: float = 0.001
    name: ClassVar[str] = "ridge"

    def filter(self, h: Float[np.ndarray, "n c"], y: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " c"]:
        """The regression's coefficients."""
        from sklearn.linear_model import RidgeClassifier

        scaled, scale = _standardised(h)
        fitted = RidgeClassifier(alpha=self.penalty * len(h), class_weight="balanced").fit(scaled, y)
        return np.asarray(fitted.coef_.ravel() / scale)


@dataclass(frozen=True)
class Logistic:
    """Logistic regression, both sides weighing the same; ``strength`` as scikit-learn's C."""

    strength: float = 1.0
    name: ClassVar[str] = "logistic"

    def filter(self, h: Float[np.ndarray, "n c"], y: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " c"]:
        """The regression's coefficients."""
        from sklearn.linear_model import LogisticRegression

        scaled, scale = _standardised(h)
        fitted = LogisticRegression(C=self.strength, class_weight="balanced", max_iter=2000).fit(scaled, y)
        return np.asarray(fitted.coef_.ravel() / scale)


@dataclass(frozen=True)
class SVM:
    """A linear support vector machine (Kim et al. 2018), both sides weighing the same; ``strength`` is C."""

    strength: float = 0.1
    name: ClassVar[str] = "svm"

    def filter(self, h: Float[np.ndarray, "n c"], y: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " c"]:
        """The normal of the separating plane."""
        from sklearn.svm import LinearSVC

        scaled, scale = _standardised(h)
        machine = LinearSVC(C=self.strength, class_weight="balanced", dual=False, max_iter=5000)
        return np.asarray(machine.fit(scaled, y).coef_.ravel() / scale)


def fit(
    estimator: Estimator, h: Float[np.ndarray, "n c"], y: Bool[np.ndarray, " n"], *, pattern: bool = True
) -> Direction:
    """The direction of an estimator; its pattern is the signal, or with ``pattern=False`` the filter itself.

    Raises:
        CorrectionError: one side has no samples, activations are not finite, or do not differ between the sides.
    """
    if y.all() or not y.any():
        raise CorrectionError(
            f"a direction needs samples with and without the artifact, got {int(y.sum())} with and "
            f"{int((~y).sum())} without."
        )
    if not np.isfinite(h).all():
        raise CorrectionError("activations hold NaN or infinity: this layer cannot be corrected.")
    signal = Signal().filter(h, y)
    scale = float(np.abs(h).max(initial=0))
    if np.abs(signal).max(initial=0) <= 1e-9 * scale or scale == 0:
        raise CorrectionError(
            "the layer's activations are the same with and without the artifact: name another layer."
        )
    found = estimator.filter(h, y)
    return Direction(found / np.linalg.norm(found), signal if pattern else found / np.linalg.norm(found))


def auc(scores: Float[np.ndarray, " n"], y: Bool[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: how often a sample with the artifact reads higher than one without, ties half."""
    from scipy.stats import rankdata

    ones = int(y.sum())
    if not ones or ones == len(y):
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[y].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def _standardised(h: Float[np.ndarray, "n c"]) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, " c"]]:
    """Centred channels of unit variance; channels that never change stay zero."""
    spread = h.std(0)
    scale = np.where(spread > 1e-12 * max(float(np.abs(h).max(initial=0)), 1e-300), spread, 1.0)
    return (h - h.mean(0)) / scale, scale


CAVS: dict[str, Estimator] = {cav.name: cav for cav in (Signal(), SVM(), Ridge(), Logistic())}
"""By name."""
