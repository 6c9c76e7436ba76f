"""Every rule against a plain writing in float64: the layer as one matrix, the formula as in the papers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spray.engine import BadInput, UnsupportedOperation, attribute, explain
from spray.engine.composites import Composite
from spray.engine.geometry import Linear
from spray.engine.layer import Layer
from spray.engine.ledger import Ledger
from spray.engine.rules import (
    RULES,
    AlphaBeta,
    Box,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Pass,
    QuotientRule,
    WSquare,
    Zero,
    ZPlus,
)

LINEAR = Linear()

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")

LAYERS = {
    "linear": (nn.Linear(7, 5), (7,)),
    "linear, no bias": (nn.Linear(7, 5, bias=False), (7,)),
    "linear over tokens": (nn.Linear(4, 3), (5, 4)),
    "conv1d": (nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 9)),
    "conv2d": (nn.Conv2d(2, 4, 3, padding=1), (2, 5, 6)),
    "conv2d, dilated": (nn.Conv2d(2, 3, 3, dilation=2, padding=2), (2, 5, 5)),
    "conv2d, groups": (nn.Conv2d(4, 6, 3, groups=2, stride=2), (4, 7, 7)),
    "conv2d, depthwise": (nn.Conv2d(3, 3, 3, groups=3, padding=1), (3, 5, 5)),
    "conv2d, same": (nn.Conv2d(2, 3, (2, 3), padding="same"), (2, 5, 4)),
    "conv3d": (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    "transposed 1d": (nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), (2, 4)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 4, 3)),
    "transposed 3d": (nn.ConvTranspose3d(1, 2, 2, stride=2), (1, 2, 2, 3)),
}


def as_matrix(function, shape):
    """The matrix of a linear map, a column per input value, and the shape of its output."""
    size = int(np.prod(shape))
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    with torch.no_grad():
        columns = function(basis)
    return columns.flatten(1).T.numpy(), columns.shape[1:]


def positive(a):
    return np.maximum(a, 0)


def negative(a):
    return np.minimum(a, 0)


def stable(z, epsilon):
    return z + epsilon * np.where(z >= 0, 1, -1)


def ratio(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def zero(W, ones, b, x, R):
    return x * (W.T @ (R / (W @ x + b)))


def epsilon(W, ones, b, x, R, eps=1e-6):
    return x * (W.T @ (R / stable(W @ x + b, eps)))


def z_plus(W, ones, b, x, R, eps=1e-6, one_sided=True):
    contributions = W * x
    p = positive(contributions).sum(1) + positive(b)
    q = negative(contributions).sum(1) + negative(b)
    alone = (p == 0) & (q < 0) & one_sided
    return positive(contributions).T @ (R / (p + eps)) + negative(contributions).T @ np.where(
        alone, R / (q - eps), 0
    )


def alpha_beta(W, ones, b, x, R, alpha=2.0, eps=1e-6):
    contributions = W * x  # one row per output
    p = positive(contributions).sum(1) + positive(b)
    q = negative(contributions).sum(1) + negative(b)
    share_p = np.where(q == 0, 1.0, alpha) * (p != 0)
    share_q = np.where(p == 0, 1.0, 1 - alpha) * (q != 0)
    return positive(contributions).T @ (share_p * R / (p + eps)) + negative(contributions).T @ (
        share_q * R / (q - eps)
    )


def gamma(W, ones, b, x, R, g=0.25, eps=1e-6):
    contributions = W * x
    z = contributions.sum(1) + b
    up = contributions + g * positive(contributions)
    down = contributions + g * negative(contributions)
    shares = np.where((z > 0)[:, None], up, down)
    biases = np.where(z > 0, b + g * positive(b), b + g * negative(b))
    return shares.T @ (R / stable(shares.sum(1) + biases, eps))


def box(W, ones, b, x, R, low=-5.0, high=5.0, eps=1e-6):
    contributions = W * x - positive(W) * low - negative(W) * high
    return contributions.T @ ratio(R, contributions.sum(1) + eps)


def flat(W, ones, b, x, R):
    return ones.T @ ratio(R, ones.sum(1))


def w_square(W, ones, b, x, R):
    return (W**2).T @ ratio(R, (W**2).sum(1))


def norm(W, ones, b, x, R, eps=1e-6):
    return x * (ones.T @ (R / stable(ones @ x, eps)))


PLAIN = {
    "zero": (Zero(), zero),
    "epsilon": (Epsilon(), epsilon),
    "epsilon, large": (Epsilon(0.3), lambda *a: epsilon(*a, eps=0.3)),
    "z_plus": (ZPlus(), z_plus),
    "alpha2 beta1": (AlphaBeta(), alpha_beta),
    "alpha3 beta2": (AlphaBeta(alpha=3.0), lambda *a: alpha_beta(*a, alpha=3.0)),
    "z_plus as published": (ZPlus(one_sided=False), lambda *a: z_plus(*a, one_sided=False)),
    "alpha1 beta0 is z_plus": (AlphaBeta(alpha=1.0), z_plus),
    "z_plus, no bias": (ZPlus(bias=False), lambda W, ones, b, x, R: z_plus(W, ones, 0 * b, x, R)),
    "gamma": (Gamma(), gamma),
    "gamma, large": (Gamma(10.0), lambda *a: gamma(*a, g=10.0)),
    "box": (Box(-5.0, 5.0), box),
    "flat": (Flat(), flat),
    "w_square": (WSquare(), w_square),
    "norm": (Norm(), norm),
}


def relevance_by_engine(layer, rule, x, R):
    """The rule as the engine runs it: behind the layer every output is multiplied so that its relevance is R."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, inputs):
            return (self.layer(inputs) * factor).flatten(1).sum(1, keepdim=True)

    factor = R / layer(x).detach()
    composite = Composite("one rule", convolution=rule, linear=rule)
    return explain(Model().eval(), x, 0, composite)


@pytest.mark.parametrize("signed", [True, False], ids=["signed inputs", "inputs ≥ 0"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", PLAIN)
def test_rule_equals_its_matrix_form(name, kind, signed):
    torch.manual_seed(7)
    rule, plain = PLAIN[name]
    layer, shape = LAYERS[kind]
    layer = layer.double().eval()
    x = torch.randn(3, *shape, dtype=torch.float64)
    x = x if signed else F.relu(x)
    z = layer(x).detach()
    R = torch.randn_like(z)
    weight, bias = layer.weight, layer.bias
    zeros = torch.zeros((1, *shape), dtype=torch.float64)
    b = layer(zeros).detach().flatten().numpy()
    W, _ = as_matrix(lambda basis: layer(basis) - layer(zeros), shape)
    with torch.no_grad():
        saved = weight.clone()
        weight.fill_(1.0)
        ones, _ = as_matrix(lambda basis: layer(basis) - layer(zeros), shape)
        weight.copy_(saved)
    explanation = relevance_by_engine(layer, rule, x, R)
    expected = np.stack(
        [plain(W, ones, b, xi.flatten().numpy(), Ri.flatten().numpy()) for xi, Ri in zip(x, R, strict=True)]
    )
    got = explanation.relevance.flatten(1).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert bias is None or b.any()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", PLAIN)
def test_what_does_not_arrive_is_in_the_books(name, kind):
    torch.manual_seed(1)
    rule, _ = PLAIN[name]
    layer, shape = LAYERS[kind]
    layer = layer.double().eval()
    x = torch.randn(3, *shape, dtype=torch.float64)
    R = torch.randn_like(layer(x).detach())
    checks = relevance_by_engine(layer, rule, x, R).checks
    torch.testing.assert_close(checks["start"], R.flatten(1).sum(1))
    books = checks["sum"] + checks["absorbed_bias"] + checks["absorbed_epsilon"]
    torch.testing.assert_close(books, checks["start"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("signed", [True, False], ids=["signed inputs", "inputs ≥ 0"])
@pytest.mark.parametrize(
    "name", ["epsilon", "z_plus", "z_plus, no bias", "alpha2 beta1", "alpha3 beta2", "gamma"]
)
def test_ahead_of_a_relu_a_rule_gives_what_it_gives_ahead_of_any_activation(name, signed, dtype):
    """A ReLU is left to the layer before it, with short cuts; the same function as LeakyReLU is not."""
    torch.manual_seed(3)
    rule, _ = PLAIN[name]
    composite = Composite("one rule", convolution=rule, linear=Zero())
    layer, head = nn.Conv2d(2, 6, 3, padding=1).to(dtype), nn.Linear(150, 1, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight[0].abs_()  # outputs of one sign, and one that no input contributes to
        layer.weight[1].abs_().neg_()
        layer.weight[2] = 0
    x = torch.randn(3, 2, 5, 5, dtype=dtype)
    x = x if signed else F.relu(x - 0.5)
    merged, apart = (
        explain(nn.Sequential(layer, activation, nn.Flatten(), head).eval(), x, 0, composite)
        for activation in (nn.ReLU(inplace=True), nn.LeakyReLU(0.0))
    )
    within = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(merged.relevance, apart.relevance, **within)
    for check in ("absorbed_bias", "absorbed_epsilon", "unaccounted"):
        torch.testing.assert_close(merged.checks[check], apart.checks[check], atol=1e-4, rtol=1e-3)


def test_pass_hands_relevance_on_unchanged_even_where_the_input_is_zero():
    layer = nn.Conv2d(2, 2, 3, padding=1).double()
    x = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    R = torch.randn_like(x)
    torch.testing.assert_close(relevance_by_engine(layer, Pass(), x, R).relevance, R)


def test_pass_refuses_a_layer_that_changes_the_shape():
    layer = nn.Linear(3, 2).double()
    with pytest.raises(
        UnsupportedOperation, match=r"hands relevance on unchanged.*\(1, 3\) into \(1, 2\).*'layer'"
    ):
        relevance_by_engine(layer, Pass(), torch.randn(1, 3).double(), torch.ones(1, 2).double())


def test_flat_map_does_not_depend_on_the_weights_or_inputs():
    R = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    maps = [
        relevance_by_engine(
            nn.Conv2d(2, 3, 3, padding=1).double(), Flat(), torch.randn(1, 2, 4, 4).double(), R
        )
        for _ in range(2)
    ]
    torch.testing.assert_close(maps[0].relevance, maps[1].relevance)


@pytest.mark.parametrize(
    "rule",
    [
        *(Zero(), Epsilon(), Epsilon(0.0), ZPlus(), ZPlus(epsilon=0.0), AlphaBeta(), AlphaBeta(epsilon=0.0)),
        *(Gamma(), Gamma(epsilon=0.0), Norm(), Flat(), WSquare(), Box(), Box(epsilon=0.0)),
    ],
)
def test_zero_input_and_zero_output_give_zero_relevance_not_nan(rule):
    layer = Layer(LINEAR, torch.zeros(2, 3), None, ledger=Ledger(1))
    x, z = torch.zeros(1, 3), torch.zeros(1, 2)
    if isinstance(rule, QuotientRule):
        got = rule.backward(layer, x, z, torch.zeros(1, 2)) * x
    else:
        got = rule.backward(layer, x, z)
    assert torch.equal(got, torch.zeros(1, 3))


def test_the_stabiliser_never_meets_a_denominator_of_minus_epsilon():
    layer = Layer(LINEAR, torch.tensor([[-1e-6]]), None)
    x = torch.ones(1, 1)
    z = layer.forward(x, layer.weight)
    c = Epsilon(1e-6).backward(layer, x, z, 1 * z)
    torch.testing.assert_close(c * x, torch.tensor([[-0.5e-6]]))


def test_an_output_that_a_relu_cuts_off_never_divides_by_a_denominator_of_zero():
    """z + γp + ε = −2 + 1 + 1 = 0 where z < 0: such an output has no relevance, and 0/0 would be NaN."""
    layer, head = nn.Linear(2, 1, bias=False), nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -3.0]]))
    model = nn.Sequential(layer, nn.ReLU(), head).eval()
    rule = Composite("gamma", linear=Gamma(1.0, epsilon=1.0)).with_rules({"2": Zero()})
    assert not explain(model, torch.ones(1, 2), 0, rule).relevance.any()


def test_alpha_beta_gives_a_one_sided_output_all_of_its_relevance():
    layer = Layer(LINEAR, torch.tensor([[1.0, 2.0], [-1.0, -3.0]]), None)
    x = torch.tensor([[1.0, 1.0]])
    z = layer.forward(x, layer.weight)
    kept = AlphaBeta(epsilon=0.0).backward(layer, x, z, torch.ones_like(z))
    published = AlphaBeta(epsilon=0.0, one_sided=False).backward(layer, x, z, torch.ones_like(z))
    assert float((kept * x).sum()) == pytest.approx(2.0)
    assert float((published * x).sum()) == pytest.approx(2.0 - 1.0)


def test_gamma_runs_from_epsilon_to_z_plus():
    torch.manual_seed(5)
    layer, x = nn.Linear(6, 4).double(), torch.rand(3, 6).double()
    R = (layer(x) > 0).double().detach() * torch.rand(3, 4).double()
    maps = {
        rule: relevance_by_engine(layer, rule, x, R).relevance for rule in (Gamma(0.0), Gamma(1e9), Epsilon())
    }
    torch.testing.assert_close(maps[Gamma(0.0)], maps[Epsilon()])
    torch.testing.assert_close(maps[Gamma(1e9)], relevance_by_engine(layer, ZPlus(0.0), x, R).relevance)


def test_box_takes_bounds_per_channel_and_refuses_inputs_outside():
    layer, x = nn.Conv2d(2, 3, 3, padding=1).double(), torch.rand(2, 2, 4, 4).double()
    R = torch.rand_like(layer(x)).detach()
    one = relevance_by_engine(layer, Box(0.0, 1.0), x, R).relevance
    torch.testing.assert_close(relevance_by_engine(layer, Box((0.0, 0.0), (1.0, 1.0)), x, R).relevance, one)
    assert (one >= -1e-12).all()
    x[1, 0, 0, 0] = 1.5
    with pytest.raises(BadInput, match="outside the box") as caught:
        relevance_by_engine(layer, Box(0.0, 1.0), x, R)
    assert caught.value.rows == (1,)
    with pytest.raises(BadInput, match="3 bounds"):
        relevance_by_engine(layer, Box((0.0,) * 3, 2.0), x, R)


def test_w_square_with_the_bias_in_its_denominator_loses_relevance():
    layer, x = nn.Linear(3, 2).double(), torch.rand(1, 3).double()
    R = torch.ones(1, 2).double()
    lost = relevance_by_engine(layer, WSquare(bias=True), x, R)
    expected = (layer.weight**2).sum(1) / ((layer.weight**2).sum(1) + layer.bias**2)
    torch.testing.assert_close(lost.checks["sum"][0], expected.sum().detach())
    torch.testing.assert_close(relevance_by_engine(layer, WSquare(), x, R).checks["sum"][0], R.sum())


def test_relative_epsilon_follows_the_size_of_the_layer():
    layer = Layer(LINEAR, torch.randn(4, 3).double(), None)
    x = torch.randn(2, 3).double()
    z = layer.forward(x, layer.weight)
    c = torch.randn_like(z)
    rule = Epsilon(0.1, relative=True)
    small = Layer(LINEAR, layer.weight * 1e-3, None)
    torch.testing.assert_close(
        rule.backward(layer, x, z, c * z),
        1e3 * rule.backward(small, x, z * 1e-3, c * z * 1e-3),
        rtol=1e-9,
        atol=0,
    )


def test_z_plus_in_float32_is_as_exact_for_signed_inputs_as_for_their_two_parts():
    torch.manual_seed(3)
    layer = nn.Conv2d(8, 16, 3, padding=1)
    x = torch.randn(2, 8, 9, 9)
    R = torch.rand_like(layer(x).detach())
    single = relevance_by_engine(layer, ZPlus(), x, R).relevance
    double = relevance_by_engine(layer.double(), ZPlus(), x.double(), R.double()).relevance
    assert float((single - double).norm() / double.norm()) < 1e-5


def test_parameters_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="gamma ≥ 0"):
        Gamma(-1.0)
    with pytest.raises(ValueError, match="alpha ≥ 1"):
        AlphaBeta(alpha=0.5)
    with pytest.raises(ValueError, match="low ≤ high"):
        Box(3.0, -3.0)
    with pytest.raises(ValueError, match="low ≤ high"):
        Box((0.0, 2.0), 1.0)


@pytest.mark.parametrize("rule", [Epsilon, ZPlus, AlphaBeta, Gamma, Box, Norm])
@pytest.mark.parametrize("epsilon", [-1e-6, float("nan"), float("inf")])
def test_a_stabiliser_that_would_not_stabilise_is_refused(rule, epsilon):
    with pytest.raises(ValueError, match="epsilon ≥ 0"):
        rule(epsilon=epsilon)


def test_relative_epsilon_is_that_of_the_sample_in_however_many_rows():
    torch.manual_seed(0)
    layer, head = nn.Linear(4, 6).double(), nn.Linear(6, 2, bias=False).double()
    rule = Composite("relative", linear=Epsilon(0.5, relative=True))

    class Rows(nn.Module):
        def __init__(self, apart):
            super().__init__()
            self.layer, self.head, self.apart = layer, head, apart

        def forward(self, x):
            z = self.layer(x.reshape(-1, 4)).reshape(*x.shape[:2], 6) if self.apart else self.layer(x)
            return self.head(z.mean(1))

    x = torch.randn(3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(*(attribute(Rows(apart).eval(), x, 1, rule) for apart in (True, False)))


@pytest.mark.parametrize(
    "rule", [Zero(), Epsilon(0.0), ZPlus(0.0), AlphaBeta(epsilon=0.0), Gamma(epsilon=0.0), Norm(0.0)]
)
def test_zero_denominators_without_a_stabiliser_give_zero(rule):
    layer = nn.Linear(4, 3, bias=False).double()
    x = torch.tensor([[0.0, 0, 0, 0], [1, -1, 1, -1]], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    model = nn.Sequential(layer, nn.Linear(3, 2, bias=False).double())
    relevance = attribute(model.eval(), x, 0, Composite("mine", linear=Epsilon()).with_rules({0: rule}))
    assert torch.isfinite(relevance).all() and not relevance[0].any()


@pytest.mark.parametrize("first", [Flat(), WSquare(), Box(-5.0, 5.0)])
def test_the_share_of_padding_in_unfolded_windows_is_booked(first):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unfold(3, padding=1), nn.Flatten(), nn.Linear(18 * 16, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    checks = explain(model.double().eval(), x, 0, Composite("mine", first=first)).checks
    torch.testing.assert_close(checks["unaccounted"], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (checks["tokens"] != 0).all()


@pytest.mark.parametrize("inplace", [True, False])
def test_relative_epsilon_is_that_of_the_output_whatever_activation_follows(inplace):
    torch.manual_seed(0)
    layer, head = nn.Linear(4, 6).double(), nn.Linear(6, 2, bias=False).double()
    rule = Composite("relative", linear=Zero()).with_rules({0: Epsilon(0.5, relative=True)})
    x = torch.randn(3, 4, dtype=torch.float64)
    got = attribute(nn.Sequential(layer, nn.ReLU(inplace), head).eval(), x, 1, rule)
    z = layer(x).detach()
    r = head.weight[1] * z.clamp(min=0) / (z + 0.5 * z.square().mean(1, keepdim=True).sqrt() * z.sign())
    torch.testing.assert_close(got, (x * (r @ layer.weight)).detach())


def test_every_rule_is_listed_under_its_name():
    assert all(rule.name == name for name, rule in RULES.items())
