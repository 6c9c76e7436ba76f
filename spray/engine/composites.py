"""Composites: which rule each weighted layer gets, by its kind, type, name or position. ``COMPOSITES`` names them.

A composite of one's own is a few lines::

    mine = Composite("mine", convolution=ZPlus(), linear=Epsilon(0.1), first=Flat())
    mine = mine.with_rules({"classifier.*": Zero(), nn.Conv1d: Epsilon(), 3: Gamma()})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from spray.engine.errors import BadInput
from spray.engine.methods import Attributor, Foreign, Function
from spray.engine.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, Rule, WSquare, Zero, ZPlus

EPSILON = Epsilon()


@dataclass(frozen=True)
class Override:
    """A rule for the layers of one name (a pattern with * and ?), one type, or one position in execution."""

    where: str | int
    by: Literal["name", "type", "position"]
    rule: Rule

    def matches(self, name: str, module: nn.Module | None, position: int) -> bool:
        """Whether the rule is for that call of a weighted layer."""
        if self.by == "position":
            return position == self.where
        if self.by == "type":
            return any(base.__name__ == self.where for base in type(module).__mro__)
        return fnmatchcase(name, str(self.where))


@dataclass(frozen=True)
class Composite:
    """LRP with one rule per kind of layer; ``first`` is for the first weighted layer in execution.

    Linear layers are ``F.linear``, ``torch.addmm`` and matrix products and einsums with a constant, too.

    ``fold`` draws a BatchNorm into the weighted layer before it where that is its only consumer. Overrides go
    before the rules by kind, the earliest that matches wins. ``attention`` holds attention weights constant (CP-LRP,
    which conserves) or follows softmax by its Taylor expansion (AttnLRP, which does not).

    Where biases take most of the relevance (the ``absorbed_bias`` of a map; folded normalisations of deep networks
    such as EfficientNet take 99.9 % under z⁺), ``epsilon_plus_flat_no_bias`` gives their share to the inputs, but for
    outputs without any contribution: what these held is counted as absorbed all the same.
    """

    name: str
    convolution: Rule = EPSILON
    linear: Rule = EPSILON
    first: Rule | None = None
    overrides: tuple[Override, ...] = ()
    fold: bool = True
    attention: Literal["constant", "taylor"] = "constant"

    def __post_init__(self) -> None:
        given: list[object] = [self.convolution, self.linear, *(override.rule for override in self.overrides)]
        for rule in given if self.first is None else [*given, self.first]:
            if not isinstance(rule, Rule):
                raise BadInput(
                    f"composite '{self.name}': {rule!r} is no rule. Give an instance, such as Epsilon() or Flat() of "
                    "spray.engine.rules."
                )

    def rule(self, *, kind: str, name: str, module: nn.Module | None, position: int) -> Rule:
        """The rule of a weighted layer: ``kind`` convolution or linear, ``position`` counted from 0 in execution."""
        for override in self.overrides:
            if override.matches(name, module, position):
                return override.rule
        if position == 0 and self.first is not None:
            return self.first
        return self.convolution if kind == "convolution" else self.linear

    def check_overrides(self, layers: Iterable[tuple[str, nn.Module | None]]) -> None:
        """Refuse rules meant for layers that are none of those that ran, given by name and module in execution.

        Raises:
            BadInput: an override matched none of them; the message suggests near ones.
        """
        ran = list(layers)
        for override in self.overrides:
            if any(override.matches(*layer, position) for position, layer in enumerate(ran)):
                continue
            names = list(dict.fromkeys(name for name, _ in ran))
            types = list(dict.fromkeys(type(module).__name__ for _, module in ran if module is not None))
            there = {
                "name": f"Near names: {', '.join(_near(str(override.where), names))}.",
                "type": f"There are: {', '.join(types)}.",
                "position": f"There are positions 0 to {len(ran) - 1}.",
            }
            raise BadInput(
                f"composite '{self.name}' has a rule for the {override.by} {override.where!r}, which no weighted "
                "layer of the model has (linear layers and convolutions take rules; what else there is has one of "
                f"its own). {there[override.by]}"
            )

    def with_rules(self, rules: Mapping[str | int | type[nn.Module], Rule], name: str = "") -> Composite:
        """This composite with other rules for some layers: by name pattern, by position, or by module type."""
        new = tuple(_override(where, rule) for where, rule in rules.items())
        return replace(self, name=name or f"{self.name}, changed", overrides=(*new, *self.overrides))


@dataclass(frozen=True)
class Gradient:
    """Backpropagation without rules: of any operation torch can differentiate, R = gradient or gradient × input.

    ``relu`` changes what ReLUs hand back: ``guided`` (Springenberg et al. 2015) lets only positive gradients of
    positive activations pass, ``deconvnet`` (Zeiler and Fergus 2014) positive gradients of any activation.
    """

    name: str
    times_input: bool = False
    relu: Literal["gradient", "guided", "deconvnet"] = "gradient"


def _override(where: str | int | type[nn.Module], rule: Rule) -> Override:
    if isinstance(where, type):
        return Override(where.__name__, "type", rule)
    return Override(where, "position" if isinstance(where, int) else "name", rule)


Method = Composite | Gradient

COMPOSITES: dict[str, Method] = {
    composite.name: composite
    for composite in (
        Composite("lrp_0", convolution=Zero(), linear=Zero()),
        Composite("lrp_epsilon"),
        Composite("epsilon_plus", convolution=ZPlus()),
        Composite("epsilon_plus_flat", convolution=ZPlus(), first=Flat()),
        Composite("epsilon_plus_no_bias", convolution=ZPlus(bias=False)),
        Composite("epsilon_plus_flat_no_bias", convolution=ZPlus(bias=False), first=Flat()),
        Composite("epsilon_alpha2_beta1", convolution=AlphaBeta()),
        Composite("epsilon_alpha2_beta1_flat", convolution=AlphaBeta(), first=Flat()),
        Composite("epsilon_gamma_box", convolution=Gamma(), first=Box()),
        Composite("deep_taylor", convolution=ZPlus(bias=False), linear=ZPlus(bias=False), first=Box()),
        Composite("deep_taylor_unbounded", ZPlus(bias=False), ZPlus(bias=False), first=WSquare()),
        Composite("excitation_backprop", convolution=ZPlus(bias=False), linear=ZPlus(bias=False)),
        Composite("attn_lrp", attention="taylor"),
        Composite("cp_lrp", attention="constant"),
        Gradient("gradient"),
        Gradient("gradient_x_input", times_input=True),
        Gradient("guided_backprop", relu="guided"),
        Gradient("deconvnet", relu="deconvnet"),
    )
}


def composite(given: str | Method | Foreign | Attributor) -> Method | Foreign:
    """The composite of that name, or the composite or foreign method itself; a bare function becomes a method.

    Raises:
        ValueError: no composite has that name; the message lists those there are.
        TypeError: it is neither a name, a composite nor a method.
    """
    if isinstance(given, str):
        if given not in COMPOSITES:
            raise ValueError(f"there is no composite {given!r}. There are: {', '.join(sorted(COMPOSITES))}.")
        return COMPOSITES[given]
    if isinstance(given, Composite | Gradient):
        return given
    if not isinstance(given, type | nn.Module):
        if isinstance(given, Foreign):
            return given
        if callable(given):
            return Function(_name(given), given)
    raise TypeError(
        f"composite is {given!r}, but one of these is needed: a name ({', '.join(sorted(COMPOSITES))}), a Composite "
        "(of one rule for all layers: Composite('mine', convolution=rule, linear=rule)), a Gradient, a method of "
        "spray.engine.methods, or a function (model, inputs, targets) -> relevance."
    )


def _name(function: Callable[..., object]) -> str:
    """What a function is called; one without a name goes by its type's."""
    return str(getattr(function, "__name__", type(function).__name__))


def _near(name: str, names: list[str]) -> list[str]:
    return get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
