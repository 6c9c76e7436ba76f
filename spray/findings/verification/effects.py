"""Effects of interventions beside their controls, paired image by image: means, intervals and p-values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from spray.findings.verification.judge import LOGIT, MEASURES, PROBABILITY, Readings
from spray.findings.verification.significance import sign_flip
from stores.provenance import Json

CONFIDENCE = 0.95
RESAMPLES = 1000
NOTHING = "nothing"
CHANCE = 1.0
"""Standard errors by which an effect may fall short of a control's on half A and still be worth a test on half B."""


@dataclass(frozen=True)
class Control:
    """A control's effects beside each unit: of the ``same`` image, or of another one dealt to it.

    Attributes:
        values: one reading for each unit of the effect; none where the control could not be measured.
        groups: which units, numbered from 0, were dealt one and the same other image, where these are fewer: they
            count as one, since they share its chance.
    """

    values: Float[np.ndarray, "n 3"]
    groups: Int[np.ndarray, " n"]
    same: bool = True

    @classmethod
    def of(cls, values: Readings, same: bool = True) -> Control:
        """Every unit with an image of its own."""
        return cls(values, np.arange(len(values)), same)

    @property
    def independent(self) -> int:
        """How many independent comparisons it makes."""
        return int(self.groups.max(initial=-1)) + 1

    def beside(self, effect: Readings, measure: int) -> Float[np.ndarray, " g"]:
        """Effect less control of each group; their mean is that over all units, however large the groups are."""
        difference = (effect - self.values)[:, measure]
        share: Float[np.ndarray, " g"] = np.bincount(
            self.groups, weights=difference, minlength=self.independent
        )
        return share * (self.independent / len(difference))


@dataclass(frozen=True)
class Effect:
    """Effects of one kind of intervention on n independent units (images), in one or more ways, with controls.

    Doing nothing is a control, too. The *net* effect is the smallest mean difference to a control, in the way where
    that is smallest: every way has to agree, and no control may explain it. What is done to the same image is compared,
    and tested, in ``measure``; effects on other images in log-odds only, which do not saturate: on the probability an
    image that the model is sure of hides what its neighbour shows.

    Attributes:
        name: "removal" or "transplant".
        ways: effects on each unit, one array for each way of doing it (such as each fill operator).
        controls: by the control's name, for each way.
        measure: the column of ``Readings`` in which effects are told.
        seed: of resamples and permutations.
        permutations: at most so many in a test.
    """

    name: str
    ways: Mapping[str, Readings]
    controls: Mapping[str, Mapping[str, Control]]
    measure: int = PROBABILITY
    seed: int = 0
    permutations: int = 9999

    @cached_property
    def weakest(self) -> str:
        """The way whose net effect is smallest."""
        return min(self.ways, key=self._size_of)

    @property
    def mean(self) -> float:
        """Mean effect of the weakest way."""
        return float(self.ways[self.weakest][:, self.measure].mean())

    @property
    def size(self) -> float:
        """The net effect on a scale that ends at 1: in probability, and no more than its log-odds can make.

        Log-odds d change a probability by at most tanh(d/4); where log-odds decide, that is the size.
        """
        return self._size_of(self.weakest)

    @property
    def net(self) -> float:
        """Mean effect less the strongest control's, of the weakest way."""
        return self.net_of(self.weakest, self.measure)

    @property
    def beyond(self) -> float:
        """Mean effect in log-odds less the strongest control's, in the way where that is least; without any, itself.

        Doing nothing is left aside: a fill has an effect of its own, on the class's competitors, too. Other channels
        suppressed alike raise the log-odds of a class that is hardly ever predicted, and that is what those of a
        finding have to be compared with. Whether the effect is above 0 at all is another question, and tested.
        """
        return min(self._beyond(way) for way in self.ways)

    def _beyond(self, way: str) -> float:
        differences = dict(self._differences(way, LOGIT))
        alone = differences.pop(NOTHING)
        return min((float(values.mean()) for values in differences.values()), default=float(alone.mean()))

    def compared(self, control: str) -> int:
        """How many images a control compares with, in the way where they are fewest; 0 where it was not measured."""
        ways = self.controls.get(control, {})
        return min((ways[way].independent if way in ways else 0 for way in self.ways), default=0)

    def possible(self, way: str) -> float:
        """The mean effect of one way before controls, but no more than its log-odds can make; the net, if below 0.

        Log-odds may fall short of those elsewhere by ``CHANCE``: this says what is worth a test, on few images.
        """
        net = self.net_of(way, self.measure)
        return (
            min(float(self.ways[way][:, self.measure].mean()), self._bound(way, CHANCE)) if net > 0 else net
        )

    def net_of(self, way: str, measure: int) -> float:
        """The same of one way, in one measure."""
        return min(float(values.mean()) for values in self._differences(way, measure).values())

    @cached_property
    def p_value(self) -> float:
        """Of the null that some way has no effect beyond some control: the largest p of all of them.

        An intersection-union test, which needs no correction for how many it joins. Source: Berger 1982.
        """
        return max(self._p_values.values())

    def p_of(self, way: str, control: str) -> float:
        """Sign-flip p-value of one way against one control; in log-odds where that is other images."""
        return self._p_values[way, control]

    @cached_property
    def _p_values(self) -> dict[tuple[str, str], float]:
        return {
            (way, name): sign_flip(values, self.seed, self.permutations)
            for way in self.ways
            for name, values in (self._differences(way, LOGIT) | self._differences(way, self.measure)).items()
        }

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bootstrapped 95 % interval of the net effect, units resampled.

        Percentiles alone are too narrow where units are few; further out ones make up for it.
        Source: Hesterberg 2015, "What teachers should know about the bootstrap", expanded percentile intervals.
        """
        values = self._net_differences
        count = len(values)
        rng = np.random.default_rng(self.seed)
        means = values[rng.integers(0, count, (RESAMPLES, count))].mean(1)
        reach = (
            stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1)) if count > 1 else 0.0
        )
        low, high = np.quantile(means, (stats.norm.cdf(-reach), stats.norm.cdf(reach)))
        return float(low), float(high)

    @property
    def _net_differences(self) -> Float[np.ndarray, " g"]:
        """Of the weakest way beside the strongest control."""
        differences = self._differences(self.weakest, self.measure)
        return min(differences.values(), key=lambda found: float(found.mean()))

    def to_json(self, tested: bool = True) -> dict[str, Json]:
        """Everything a reader of the report needs to judge the effect; p-values only where it was ``tested``.

        All means are over all units, so that ``net`` is ``mean`` less the strongest control that is compared; its
        interval is of ``net_images`` independent ones, fewer where others than the members had to be dealt repeatedly.
        Controls ``elsewhere`` are on other images: compared in log-odds, so not what the net effect is net of unless
        that is the measure.
        """
        way = self.weakest
        controls = {name: ways[way].values for name, ways in self.controls.items() if len(ways[way].values)}
        return {
            "measure": MEASURES[self.measure],
            "mean": self.mean,
            "net": self.net,
            "size": self.size,
            "net_interval": list(self.interval),
            "p_value": self.p_value if tested else None,
            "images": len(self.ways[way]),
            "net_images": len(self._net_differences),
            "way": way,
            "ways": {name: float(values[:, self.measure].mean()) for name, values in self.ways.items()},
            "controls": {name: float(values[:, self.measure].mean()) for name, values in controls.items()},
            "control_p_values": {name: self.p_of(way, name) for name in controls} if tested else {},
            "elsewhere": [name for name in controls if not self.controls[name][way].same],
            "log_odds": {
                "mean": float(self.ways[way][:, LOGIT].mean()),
                "controls": {name: float(values[:, LOGIT].mean()) for name, values in controls.items()},
            },
            "measures": {
                name: {"mean": float(self.ways[way][:, column].mean()), "net": self.net_of(way, column)}
                for column, name in enumerate(MEASURES)
            },
        }

    def _size_of(self, way: str) -> float:
        return min(self.net_of(way, self.measure), self._bound(way))

    def _bound(self, way: str, errors: float = 0.0) -> float:
        """The most that log-odds beyond controls on other images can change a probability; where they decide, all.

        So many standard ``errors`` are added to each difference.
        """
        beyond = self._differences(way, LOGIT)
        if self.measure != LOGIT:
            beyond = {
                name: values
                for name, values in beyond.items()
                if name == NOTHING or not self.controls[name][way].same
            }
        return float(np.tanh(min(_mean_and(values, errors) for values in beyond.values()) / 4))

    def _differences(self, way: str, measure: int) -> dict[str, Float[np.ndarray, " k"]]:
        """Effect less control, unit by unit, by the control's name; ``NOTHING`` is the effect itself."""
        effect = self.ways[way]
        found = {NOTHING: effect[:, measure]}
        for name, ways in self.controls.items():
            control = ways[way]
            if len(control.values) and (control.same or measure == LOGIT):
                found[name] = control.beside(effect, measure)
        return found


def _mean_and(values: Float[np.ndarray, " k"], errors: float) -> float:
    """The mean, and so many of its standard errors more; of fewer than two values just the mean."""
    error = float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean() + errors * error)


def strongest(controls: list[Control], measure: int) -> Control:
    """Of several controls of one kind the one with the largest mean; an empty one where there is none."""
    none = Control.of(np.zeros((0, len(MEASURES))))
    usable = [control for control in controls if len(control.values)]
    return max(usable, key=lambda control: float(control.values[:, measure].mean()), default=none)
