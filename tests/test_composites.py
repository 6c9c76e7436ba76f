"""Composites: which rule a layer gets, and that a composite is its own provenance."""

import json
from collections import OrderedDict
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from spray.engine import BadInput, attribute, explain
from spray.engine.composites import COMPOSITES, Composite, composite
from spray.engine.methods import Captum
from spray.engine.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare, Zero, ZPlus
from stores.provenance import Provenance, canonical_json, describe

PUBLISHED = {
    "lrp_0": (Zero, Zero, Zero),
    "lrp_epsilon": (Epsilon, Epsilon, Epsilon),
    "epsilon_plus": (ZPlus, ZPlus, Epsilon),
    "epsilon_plus_flat": (Flat, ZPlus, Epsilon),
    "epsilon_plus_no_bias": (ZPlus, ZPlus, Epsilon),
    "epsilon_plus_flat_no_bias": (Flat, ZPlus, Epsilon),
    "epsilon_alpha2_beta1": (AlphaBeta, AlphaBeta, Epsilon),
    "epsilon_alpha2_beta1_flat": (Flat, AlphaBeta, Epsilon),
    "epsilon_gamma_box": (Box, Gamma, Epsilon),
    "deep_taylor": (Box, ZPlus, ZPlus),
    "deep_taylor_unbounded": (WSquare, ZPlus, ZPlus),
    "excitation_backprop": (ZPlus, ZPlus, ZPlus),
    "attn_lrp": (Epsilon, Epsilon, Epsilon),
    "cp_lrp": (Epsilon, Epsilon, Epsilon),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_kind_of_layer_gets_the_rule_of_the_paper(name):
    chosen = COMPOSITES[name]
    first = chosen.rule(kind="convolution", name="a", module=None, position=0)
    convolution = chosen.rule(kind="convolution", name="b", module=None, position=1)
    linear = chosen.rule(kind="linear", name="c", module=None, position=2)
    assert (type(first), type(convolution), type(linear)) == PUBLISHED[name]


def test_alpha2_beta1_and_gamma_have_their_published_parameters():
    assert COMPOSITES["epsilon_alpha2_beta1"].convolution == AlphaBeta(alpha=2.0)
    assert COMPOSITES["epsilon_gamma_box"].convolution == Gamma(gamma=0.25)


def test_composites_without_bias_differ_from_their_namesakes_in_that_alone():
    for name in ("epsilon_plus", "epsilon_plus_flat"):
        without, published = COMPOSITES[f"{name}_no_bias"], COMPOSITES[name]
        assert (without.first, without.linear) == (published.first, published.linear)
        assert (without.convolution, published.convolution) == (ZPlus(bias=False), ZPlus())


def test_every_composite_is_listed_under_its_name_and_none_is_forgotten():
    assert all(method.name == name for name, method in COMPOSITES.items())
    assert set(PUBLISHED) | {"gradient", "gradient_x_input", "guided_backprop", "deconvnet"} == set(
        COMPOSITES
    )


def test_a_composite_is_its_own_provenance():
    ids = {Provenance((describe(method),)).id for method in COMPOSITES.values()}
    assert len(ids) == len(COMPOSITES)
    record = json.loads(canonical_json(describe(COMPOSITES["epsilon_plus_flat"])))
    assert record["first"] == {"name": "flat"}
    assert record["linear"] == {"name": "epsilon", "epsilon": 1e-6, "relative": False}
    other = COMPOSITES["epsilon_plus_flat"].with_rules({"head.*": Zero()}, name="mine")
    assert json.loads(canonical_json(describe(other)))["overrides"][0] == {
        "name": "Override",
        "where": "head.*",
        "by": "name",
        "rule": {"name": "zero"},
    }


def test_overrides_go_first_and_the_latest_given_wins():
    chosen = Composite("mine", convolution=ZPlus(), first=Flat()).with_rules(
        {"a.*": Zero(), nn.Linear: Gamma()}
    )
    chosen = chosen.with_rules({1: WSquare()})
    assert chosen.rule(kind="convolution", name="a.0", module=None, position=0) == Zero()
    assert chosen.rule(kind="convolution", name="b", module=None, position=0) == Flat()
    assert chosen.rule(kind="linear", name="b", module=nn.Linear(1, 1), position=2) == Gamma()
    assert chosen.rule(kind="convolution", name="a.1", module=None, position=1) == WSquare()


def test_first_is_first_in_execution_not_in_definition():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    torch.manual_seed(0)
    relevance = explain(Backwards().eval(), torch.randn(2, 4), 0, Composite("f", first=Flat())).relevance
    torch.testing.assert_close(relevance, relevance[:, :1].expand(2, 4))


def test_composites_may_be_given_themselves():
    mine = Composite("mine")
    assert composite(mine) is mine
    assert composite("lrp_0") is COMPOSITES["lrp_0"]


def test_a_bare_function_is_run_as_a_method():
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    given = []

    def sevens(model, inputs, targets):
        given.append((model, targets))
        return inputs * 0 + 7

    assert torch.equal(attribute(model, x, 2, sevens), torch.full((2, 4), 7.0))
    assert given[0][0] is model and given[0][1].tolist() == [2, 2]
    assert composite(sevens).name == "sevens"
    assert torch.equal(attribute(model, x, 2, partial(sevens)), torch.full((2, 4), 7.0))


@pytest.mark.parametrize("given", [ZPlus(), None, 3, Composite, Captum, nn.ReLU(), {"*": ZPlus()}])
def test_what_is_no_composite_is_refused_with_what_would_be(given):
    with pytest.raises(
        TypeError, match=r"a name \(.*epsilon_plus_flat.*Composite\('mine'.*model, inputs, targets"
    ):
        attribute(nn.Linear(4, 3).eval(), torch.randn(2, 4), 0, given)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("haed", r"the name 'haed'.*Near names: head"),
        ("body.9", r"the name 'body.9'.*Near names: body.0"),
        (2, r"the position 2.*positions 0 to 1"),
        (-1, r"the position -1.*positions 0 to 1"),
        (nn.AvgPool2d, r"the type 'AvgPool2d'.*There are: Conv2d, Linear\."),
        (nn.BatchNorm2d, r"the type 'BatchNorm2d'.*one of its own"),
    ],
)
def test_rules_for_layers_that_are_not_there_are_refused_with_near_ones(where, message):
    parts = OrderedDict(
        body=nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AvgPool2d(2)),
        flat=nn.Flatten(),
        head=nn.Linear(8, 3),
    )
    model, x = nn.Sequential(parts).eval(), torch.randn(2, 1, 6, 6)
    mine = Composite("mine", convolution=ZPlus())
    with pytest.raises(BadInput, match=message):
        explain(model, x, 0, mine.with_rules({where: Zero(), "head": Zero()}))
    explain(model, x, 0, mine.with_rules({"body.*": Zero(), nn.Module: Zero(), 1: Zero()}))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_layers_of_multi_head_attention_are_found_by_name_and_type():
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    base = COMPOSITES["cp_lrp"]
    by_position = [attribute(Attends(), x, 0, base.with_rules({k: ZPlus()})) for k in range(5)]
    queries, keys, values, out, head = by_position
    plain = attribute(Attends(), x, 0, base)
    assert torch.equal(queries, plain) and torch.equal(keys, plain)  # CP-LRP gives them nothing
    own = attribute(Attends(), x, 0, base.with_rules({"attention": ZPlus()}))
    torch.testing.assert_close(own, values)
    torch.testing.assert_close(
        attribute(Attends(), x, 0, base.with_rules({nn.MultiheadAttention: ZPlus()})), values
    )
    torch.testing.assert_close(
        attribute(Attends(), x, 0, base.with_rules({"attention.out_proj": ZPlus()})), out
    )
    assert not torch.allclose(out, values) and not torch.allclose(out, head)
    both = attribute(Attends(), x, 0, base.with_rules({3: ZPlus(), 4: ZPlus()}))
    torch.testing.assert_close(attribute(Attends(), x, 0, base.with_rules({nn.Linear: ZPlus()})), both)


@pytest.mark.parametrize("wrong", [ZPlus, "flat", 0.1, None])
def test_what_is_no_rule_is_refused_where_it_is_given(wrong: Any) -> None:
    with pytest.raises(BadInput, match=r"composite 'mine.*is no rule\. Give an instance"):
        Composite("mine", convolution=wrong)
    with pytest.raises(BadInput, match="is no rule"):
        Composite("mine").with_rules({"0": wrong})
