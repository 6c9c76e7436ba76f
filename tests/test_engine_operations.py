"""Every operation on the allow-list: homogeneous ones by Euler's identity, the others against a plain writing."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spray.engine import UnsupportedOperation, explain
from spray.engine.composites import COMPOSITES, Composite
from spray.engine.operations import HANDLERS, activations, homogeneous
from spray.engine.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, Norm, WSquare, Zero, ZPlus

ZERO = Composite("zero", Zero(), Zero())
X = torch.randn(2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Apply(nn.Module):
    """A model of one operation, its output flattened to logits."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x).flatten(1)


def relevance(function, x=X, target=0, composite=ZERO, **options):
    return explain(Apply(function).eval(), x, target, composite, **options)


EXAMPLES = {
    "view": lambda x: x.view(2, 64),
    "view_as": lambda x: x.view_as(torch.zeros(2, 64)),
    "reshape": lambda x: x.reshape(2, 8, 8),
    "reshape_as": lambda x: x.reshape_as(torch.zeros(2, 64)),
    "flatten": lambda x: torch.flatten(x, 2),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, 2),
    "t": lambda x: torch.stack([x[0, 0].t(), x[1, 0].t()]),
    "T": lambda x: torch.stack([x[0, 0].T, x[1, 0].T]),
    "mT": lambda x: x.mT,
    "adjoint": lambda x: x.adjoint(),
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "swapdims": lambda x: x.swapdims(1, 2),
    "movedim": lambda x: x.movedim(1, 3),
    "moveaxis": lambda x: x.moveaxis(1, 3),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "expand": lambda x: x[:, :1].expand(2, 3, 4, 4),
    "expand_as": lambda x: x[:, :1].expand_as(x),
    "broadcast_to": lambda x: x[:, :1].broadcast_to(2, 3, 4, 4),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "contiguous": lambda x: x.transpose(1, 2).contiguous(),
    "clone": lambda x: x.clone(),
    "to": lambda x: x.to(torch.float64),
    "float": lambda x: x.float().double(),
    "double": lambda x: x.double(),
    "type_as": lambda x: x.type_as(torch.zeros(1, dtype=torch.float64)),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split(3, 1)[0],
    "tensor_split": lambda x: x.tensor_split(2, 1)[0],
    "unsafe_chunk": lambda x: x.unsafe_chunk(2, 1)[0],
    "unsafe_split": lambda x: x.unsafe_split(2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(1, 1),
    "__getitem__": lambda x: x[:, 1:, ::2],
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "gather": lambda x: x.gather(1, torch.ones(2, 1, 4, 4, dtype=torch.int64)),
    "take_along_dim": lambda x: x.take_along_dim(torch.ones(2, 1, 4, 4, dtype=torch.int64), 1),
    "roll": lambda x: x.roll(1, 2),
    "flip": lambda x: x.flip(2),
    "unfold": lambda x: F.unfold(x, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
    "ravel": lambda x: torch.stack([x[0].ravel(), x[1].ravel()]),
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(2), 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool3d": lambda x: F.max_pool3d(x, 2),
    "max_pool1d_with_indices": lambda x: F.max_pool1d(x.flatten(2), 2, return_indices=True)[0],
    "max_pool2d_with_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool3d_with_indices": lambda x: F.max_pool3d(x, 2, return_indices=True)[0],
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x.flatten(2), 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x, 2),
    "adaptive_max_pool1d_with_indices": lambda x: F.adaptive_max_pool1d(x.flatten(2), 2, True)[0],
    "adaptive_max_pool2d_with_indices": lambda x: F.adaptive_max_pool2d(x, 2, True)[0],
    "adaptive_max_pool3d_with_indices": lambda x: F.adaptive_max_pool3d(x, 2, True)[0],
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3], dtype=torch.float64)),
    "neg": lambda x: -x,
    "positive": lambda x: +x,
    "abs": lambda x: x.abs(),
    "hardshrink": F.hardshrink,
    "sum": lambda x: x.sum((2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "avg_pool1d": lambda x: F.avg_pool1d(x.flatten(2), 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "avg_pool3d": lambda x: F.avg_pool3d(x, 2),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x, 2),
    "cumsum": lambda x: x.cumsum(1),
    "max": lambda x: x.max(1).values,
    "min": lambda x: x.min(1)[0],
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin(1),
    "maximum": lambda x: torch.maximum(x, -2 * x),
    "minimum": lambda x: torch.minimum(x, 3 * x),
    "fold": lambda x: F.fold(x.flatten(2), (5, 5), 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "pad": lambda x: F.pad(x, (1, 1, 0, 0), mode="reflect"),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "cat": lambda x: torch.cat([x, 2 * x], 1),
    "stack": lambda x: torch.stack([x, 2 * x], 1),
    "add": lambda x: x + 2 * x,
    "sub": lambda x: x - 3 * x,
    "mul": lambda x: 3 * x * 2,
    "div": lambda x: x / 4,
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "where": lambda x: torch.where(x > 0, x, 2 * x),
}


def test_every_homogeneous_operation_has_its_example():
    named = homogeneous.SHAPES | homogeneous.ELEMENTWISE | homogeneous.LINEAR
    assert named <= set(EXAMPLES), named - set(EXAMPLES)
    assert set(EXAMPLES) <= set(HANDLERS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_homogeneous_operations_satisfy_eulers_identity(name):
    function = EXAMPLES[name]
    expected = function(X).flatten(1)
    for target in {0, expected.shape[1] // 2, expected.shape[1] - 1}:
        explanation = relevance(function, target=target)
        torch.testing.assert_close(explanation.checks["sum"], expected[:, target], rtol=1e-6, atol=1e-9)


ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "mish": F.mish,
    "softsign": lambda x: x / (1 + x.abs()) if isinstance(x, float) else F.softsign(x),
    "tanh": torch.tanh,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardtanh, bounds": lambda x: F.hardtanh(x, -0.2, 0.7),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clip": lambda x: torch.clip(x, min=-0.5),
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "clamp_max": lambda x: x.clamp_max(0.5),
    "selu": F.selu,
    "elu": F.elu,
    "celu": F.celu,
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "erf": torch.erf,
    "sin": torch.sin,
    "atan": torch.atan,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_pass_relevance_unchanged(name):
    x = X.flatten(1)
    expected = ACTIVATIONS[name](x)
    for target in (0, 17):
        got = relevance(ACTIVATIONS[name], x, target).relevance
        torch.testing.assert_close(got[:, target], expected[:, target], rtol=1e-9, atol=1e-12)
        assert int((got != 0).sum()) <= 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_hand_on_the_slope_at_zero(name):
    """x·w with x = 0 behind a layer z = a − b: R_a = c·a needs c = φ'(0), not 0/0."""
    function = ACTIVATIONS[name]
    slope = torch.func.grad(lambda x: function(x[None])[0])(torch.tensor(1e-9, dtype=torch.float64))
    x = torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    got = relevance(lambda x: function(x[:, :1] - x[:, 1:]), x).relevance
    torch.testing.assert_close(
        got, torch.tensor([[2.0, -2.0]], dtype=torch.float64) * slope, rtol=1e-6, atol=1e-8
    )


def test_every_activation_has_its_example():
    assert set(activations.HANDLERS) - {"glu", "relu", "threshold", "_threshold"} <= set(ACTIVATIONS)


def test_glu_holds_its_gate_constant():
    got = relevance(lambda x: F.glu(x, 1), X, 5).relevance
    assert not got[:, 2:].any()
    torch.testing.assert_close(got.flatten(1).sum(1), F.glu(X, 1).flatten(1)[:, 5])


# -- normalisations: σ constant, centring linear, the bias takes its share -----------------------------------------

WEIGHT = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
BIAS = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
SHAPED = {"last": (4,), "channels": (4, 1, 1)}
NORMALISATIONS = {
    "layer_norm": (lambda x: F.layer_norm(x, (4,), WEIGHT, BIAS), (-1,), "last", True),
    "rms_norm": (lambda x: F.rms_norm(x, (4,), WEIGHT, 1e-5), (-1,), "last", False),
    "group_norm": (lambda x: F.group_norm(x, 1, WEIGHT, BIAS), (1, 2, 3), "channels", True),
    "instance_norm": (lambda x: F.instance_norm(x, weight=WEIGHT, bias=BIAS), (2, 3), "channels", True),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations_hold_sigma_constant(name):
    function, dims, shaped, centred = NORMALISATIONS[name]
    weight = WEIGHT.view(SHAPED[shaped])
    leaf = X.clone().requires_grad_()
    centre = leaf - leaf.mean(dims, keepdim=True) if centred else leaf
    sigma = (centre.square().mean(dims, keepdim=True) + 1e-5).sqrt().detach()
    plain = (centre / sigma * weight).flatten(1)
    (gradient,) = torch.autograd.grad(plain[:, 21].sum(), leaf)
    explanation = relevance(function, X, 21)
    torch.testing.assert_close(explanation.relevance, leaf.detach() * gradient)
    torch.testing.assert_close(
        explanation.checks["sum"] + explanation.checks["absorbed_bias"], function(X).flatten(1)[:, 21]
    )


def test_groups_are_normalised_apart():
    got = relevance(lambda x: F.group_norm(x, 2, WEIGHT, BIAS), X, 0).relevance
    assert got[:, :2].any()
    assert not got[:, 2:].any()


def test_normalize_holds_the_norm_constant():
    got = relevance(lambda x: F.normalize(x, dim=1), X, 3).relevance
    torch.testing.assert_close(got.flatten(1).sum(1), F.normalize(X, dim=1).flatten(1)[:, 3])
    assert int((got != 0).sum()) == 2


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 4, 5), (3, 7, 2, 5)])
@pytest.mark.parametrize("composite", ["lrp_epsilon", "epsilon_plus_no_bias"])
def test_a_batch_norm_over_another_dimension_than_the_layers_is_a_layer_of_its_own(shape, composite):
    torch.manual_seed(0)
    channels = shape[1]
    norm = (nn.BatchNorm1d if len(shape) == 3 else nn.BatchNorm2d)(channels)
    trained(norm)
    tail = (channels, *[1] * (len(shape) - 2))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().view(tail)
    shift = norm.bias.detach().view(tail) - norm.running_mean.view(tail) * scale
    first, head = nn.Linear(5, 7), nn.Linear(7 * math.prod(shape[1:-1]), 3)
    plain = Parts(first, lambda x: x * scale + shift, head).double().eval()
    scale, shift = scale.double(), shift.double()
    x = torch.randn(shape, dtype=torch.float64)
    expected = explain(plain, x, 1, composite)
    got = explain(Parts(first, norm, head).double().eval(), x, 1, composite)
    torch.testing.assert_close(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks["unaccounted"], torch.zeros(3, dtype=torch.float64))
    taken = expected.checks["absorbed_bias"] + expected.checks["tokens"]
    torch.testing.assert_close(got.checks["absorbed_bias"], taken)


class Parts(nn.Module):
    def __init__(self, first, norm, head):
        super().__init__()
        self.first, self.norm, self.head = first, norm, head

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.first(x))).flatten(1))


def trained(norm):
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()


@pytest.mark.parametrize("composite", ["lrp_epsilon", "epsilon_plus"])
def test_of_two_batch_norms_in_a_row_the_first_is_folded(composite):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    model = model.double().eval()
    trained(model[1])
    trained(model[2])
    folded = nn.Sequential(nn.utils.fuse_conv_bn_eval(model[0], model[1]), *model[2:])
    got, expected = (
        explain(each, X, 1, replace(COMPOSITES[composite], fold=fold))
        for each, fold in ((model, True), (folded, False))
    )
    torch.testing.assert_close(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks["unaccounted"], torch.zeros(2, dtype=torch.float64))


# -- products and constants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "product",
    [
        lambda x: x[:, :2] * x[:, 2:],
        lambda x: x[:, :2].mul(x[:, 2:]),
        lambda x: x[:, :2] @ x[:, 2:],
        lambda x: torch.matmul(x[:, :2], x[:, 2:]),
        lambda x: torch.einsum("nijk,nikl->nijl", x[:, :2], x[:, 2:]),
        lambda x: torch.bmm(x[:, 0], x[:, 2]),
    ],
)
def test_a_true_product_is_split_in_halves(product):
    explanation = relevance(product, X, 1)
    expected = product(X).flatten(1)[:, 1]
    torch.testing.assert_close(explanation.relevance[:, :2].flatten(1).sum(1), expected / 2)
    torch.testing.assert_close(explanation.relevance[:, 2:].flatten(1).sum(1), expected / 2)


@pytest.mark.parametrize("square", [torch.square, lambda x: x**2, lambda x: x * x, lambda x: x.pow(2)])
def test_a_square_is_a_product(square):
    torch.testing.assert_close(relevance(square, X, 7).relevance.flatten(1)[:, 7], X.flatten(1)[:, 7] ** 2)


@pytest.mark.parametrize(
    "gate", [torch.sigmoid, F.hardsigmoid, lambda x: x.softmax(1), lambda x: (x > 0).double()]
)
def test_gates_are_held_constant(gate):
    got = relevance(lambda x: x[:, :2] * gate(x[:, 2:]), X, 3).relevance
    expected = X[:, :2] * gate(X[:, 2:])
    torch.testing.assert_close(got[:, :2].flatten(1)[:, 3], expected.flatten(1)[:, 3])
    assert not got[:, 2:].any()


@pytest.mark.parametrize("name", ["sum", "cat", "weighted layer"])
def test_a_gate_that_does_not_multiply_is_refused(name):
    gate = torch.sigmoid
    function = {
        "sum": lambda x: x + gate(x),
        "cat": lambda x: torch.cat([x, gate(x)], 1),
        "weighted layer": lambda x: x[:, :1] + F.linear(gate(x), torch.eye(4, dtype=x.dtype)),
    }[name]
    with pytest.raises(UnsupportedOperation, match="sigmoid"):
        relevance(function, X)


@pytest.mark.parametrize(
    ("function", "taken"),
    [
        (lambda x: x + 3.0, 3.0),
        (lambda x: 3.0 + x, 3.0),
        (lambda x: x - 3.0, -3.0),
        (lambda x: 3.0 - x, 3.0),
        (lambda x: torch.add(x, torch.full((4, 4), 2.0, dtype=x.dtype), alpha=2), 4.0),
        (lambda x: torch.cat([torch.full((2, 1, 4, 4), 5.0, dtype=x.dtype), x], 1), 5.0),
        (lambda x: x.masked_fill(torch.ones(4, 4, dtype=torch.bool), 6.0), 6.0),
        (lambda x: torch.where(torch.zeros(4, 4, dtype=torch.bool), x, 7.0), 7.0),
    ],
)
def test_constants_take_their_own_share(function, taken):
    checks = relevance(function, X, 0).checks
    torch.testing.assert_close(checks["tokens"], torch.full((2,), taken, dtype=torch.float64))
    torch.testing.assert_close(checks["sum"] + checks["tokens"], checks["start"])


HALF = torch.tensor(0.5, dtype=torch.float64)
EXTREMA = {
    "maximum": (lambda x: torch.maximum(x, HALF), lambda x: x > HALF),
    "max, constant first": (lambda x: torch.max(HALF, x), lambda x: x > HALF),
    "minimum": (lambda x: x.minimum(HALF), lambda x: x < HALF),
    "min, by keyword": (lambda x: torch.min(input=x, other=HALF), lambda x: x < HALF),
}


@pytest.mark.parametrize("name", EXTREMA)
def test_a_constant_takes_the_relevance_it_was_chosen_for(name):
    function, chosen = EXTREMA[name]
    for target in (0, 1, 2, 21):
        explanation = relevance(function, X, target)
        x = X.flatten(1)[:, target]
        taken = torch.where(chosen(x), 0, HALF)
        torch.testing.assert_close(explanation.checks["tokens"], taken)
        torch.testing.assert_close(explanation.checks["sum"], torch.where(chosen(x), x, 0))


def test_an_extremum_tied_with_a_constant_is_shared_and_a_gate_is_refused():
    explanation = relevance(lambda x: torch.maximum(x, X.clone()), X, 0)
    torch.testing.assert_close(explanation.checks["unaccounted"], torch.zeros(2, dtype=torch.float64))
    tied = relevance(lambda x: torch.maximum(x, 2 * HALF), torch.ones_like(X), 0).checks
    assert tied["tokens"].tolist() == tied["sum"].tolist() == [0.5, 0.5]
    with pytest.raises(UnsupportedOperation, match="sigmoid"):
        relevance(lambda x: torch.maximum(x, torch.sigmoid(x)), X)
    signs = Composite("plus", ZPlus(), ZPlus())
    weight = -torch.ones(3, 4, dtype=torch.float64)
    lowered = relevance(lambda x: F.linear(torch.minimum(x.relu(), -HALF), weight), X, 0, signs).checks
    torch.testing.assert_close(lowered["tokens"], lowered["start"], rtol=1e-6, atol=0)


WRITTEN = {
    "where, as a method": (lambda x: x.where(MASK, HALF), lambda x: torch.where(MASK, x, HALF)),
    "where, by keyword": (
        lambda x: torch.where(MASK, other=HALF, input=x),
        lambda x: torch.where(MASK, x, HALF),
    ),
    "add, by keyword": (lambda x: torch.add(input=x, other=x * 2), lambda x: x * 3),
    "mul, by keyword": (lambda x: torch.mul(input=x, other=HALF), lambda x: x * 0.5),
    "hstack": (lambda x: torch.hstack([ONES, x]), lambda x: torch.cat([ONES, x], 1)),
    "cat, by keyword": (lambda x: torch.cat(tensors=[ONES, x], dim=1), lambda x: torch.cat([ONES, x], 1)),
}
MASK = torch.eye(4, dtype=torch.bool)
ONES = torch.ones(2, 1, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_operation_is_the_same_however_it_is_written(name):
    for target in (0, 1, 20):
        got, expected = (relevance(function, X, target) for function in WRITTEN[name])
        torch.testing.assert_close(got.relevance, expected.relevance)
        torch.testing.assert_close(got.checks, expected.checks)
        torch.testing.assert_close(got.checks["unaccounted"], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(
    "taken", [lambda x: torch.add(x, x * 3, alpha=-1), lambda x: torch.sub(x, x * 3, alpha=1)]
)
def test_a_difference_written_as_a_sum_is_not_taken_for_nonnegative(taken):
    weight = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plus = Composite("plus", ZPlus(), ZPlus())
    got = relevance(lambda x: F.linear(taken(x.relu()), weight), X, 1, plus)
    expected = relevance(lambda x: F.linear(x.relu() * -2, weight), X, 1, plus)
    torch.testing.assert_close(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks["unaccounted"], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("aside", [F.relu, torch.tanh, nn.BatchNorm1d(3).double().eval()])
@pytest.mark.parametrize("composite", ["lrp_epsilon", "epsilon_plus_no_bias"])
def test_what_is_made_of_the_logits_aside_changes_nothing(aside, composite):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.kept = layers, None

        def forward(self, x):
            logits = self.layers(x)
            self.kept = aside(logits)
            return logits

    for target in range(3):
        got, expected = (explain(model.eval(), X, target, composite) for model in (Aside(), layers))
        torch.testing.assert_close(got.relevance, expected.relevance)
        torch.testing.assert_close(got.checks, expected.checks)


def test_what_would_hide_a_share_is_refused():
    with pytest.raises(UnsupportedOperation, match="rounding"):
        relevance(lambda x: torch.div(x, 0.1, rounding_mode="floor"))
    with pytest.raises(UnsupportedOperation, match=r"torch\.where"):
        relevance(lambda x: ONES.masked_fill(MASK, x.sum()) + x, X[:1])


# -- in place, of values of the model on constants ----------------------------------------------------------------


def added(x):
    total = torch.zeros_like(x)
    total.add_(x * 2)
    total.add_(x.relu())
    return total


def scaled(x):
    factor = torch.full_like(x, 3.0)
    factor.mul_(x)
    return factor - 1


def shifted(x):
    constant = torch.ones_like(x)
    constant += x
    return constant


IN_PLACE = {
    "added": (added, lambda x: x * 2 + x.relu()),
    "scaled": (scaled, lambda x: 3 * x - 1),
    "shifted": (shifted, lambda x: x + 1),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_values_added_to_a_constant_in_place_are_followed(name):
    for target in (0, 21):
        got, expected = (relevance(function, X, target) for function in IN_PLACE[name])
        torch.testing.assert_close(got.logits, IN_PLACE[name][0](X).flatten(1))
        torch.testing.assert_close(got.relevance, expected.relevance)
        torch.testing.assert_close(got.checks, expected.checks)


def part_of_a_constant(x):
    whole = torch.zeros_like(x)
    whole[:, :2].add_(x[:, :2])
    return whole + x


def view_made_before(x):
    whole = torch.zeros_like(x)
    view = whole[:, :2]
    whole.add_(x)
    return torch.cat([view, x], 1)


def shared_memory(x):
    whole = torch.zeros_like(x)
    same = whole.detach()
    whole += x
    return whole + same


def item(x):
    whole = torch.zeros_like(x)
    whole[:, 0] = x[:, 0]
    return whole


def cast(x):
    return torch.zeros(2, 4, 4, 4).add_(x)


def gate_in_a_constant(x):
    whole = torch.zeros_like(x)
    whole[:, :2] = torch.sigmoid(x)[:, :2]
    return whole + x


REFUSED = {
    part_of_a_constant: "shares memory",
    view_made_before: "shares memory",
    shared_memory: "shares memory",
    item: "__setitem__",
    cast: "casts",
    gate_in_a_constant: "sigmoid",
    lambda x: torch.add(x, x, out=torch.empty_like(x)): "out=",
}


@pytest.mark.parametrize("function", REFUSED)
def test_memory_of_constants_that_values_were_written_into_is_refused(function):
    with pytest.raises(UnsupportedOperation, match=REFUSED[function]):
        relevance(function)


def test_a_buffer_written_in_place_is_left_alone():
    model = nn.Sequential(nn.Flatten(), Accumulated()).double().eval()
    for _ in range(2):
        explanation = explain(model, X, 0, ZERO)
        torch.testing.assert_close(explanation.logits, X.flatten(1)[:, :3])
    assert not model[1].total.any()
    assert not model[1].total.__dict__


class Accumulated(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 3))

    def forward(self, x):
        self.total.add_(x[:, :3])
        return self.total * 1


# -- products with constants --------------------------------------------------------------------------------------

W = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
PRODUCTS = {
    "x @ W": lambda x: x @ W.T,
    "matmul": lambda x: torch.matmul(x, other=W.T),
    "W @ x": lambda x: (W @ x.transpose(1, 2)).transpose(1, 2),
    "W @ x, W in place of three": lambda x: (W[None] @ x.mT).mT,
    "x @ a matrix for all": lambda x: x @ W.T[None],
    "bmm": lambda x: torch.bmm(x, W.T.expand(len(x), 4, 5)),
    "einsum": lambda x: torch.einsum("ntc,oc->nto", x, W),
    "einsum, the constant first": lambda x: torch.einsum("oc,ntc->nto", W, x),
    "einsum, a list": lambda x: torch.einsum("ntc,oc->nto", [x, W]),
    "einsum with an ellipsis": lambda x: torch.einsum("...c,oc->...o", x, W),
    "einsum that moves places": lambda x: torch.einsum("ntc,oc->not", x, W).mT,
    "einsum without an arrow": lambda x: torch.einsum("atc,oc", x, W).mT,
    "places first": lambda x: (x.transpose(0, 1) @ W.T).transpose(0, 1),
    "W @ x, places first": lambda x: (W @ x.permute(1, 2, 0)).permute(2, 0, 1),
    "einsum, places first": lambda x: torch.einsum("tnc,oc->nto", x.transpose(0, 1), W),
    "one output": lambda x: torch.stack([x.flatten(0, 1) @ row for row in W], 1).unflatten(0, (len(x), 3)),
}
BY_RULE = {
    "zero": Composite("m", linear=Zero()),
    "epsilon": Composite("m", linear=Epsilon(0.1)),
    "relative epsilon": Composite("m", linear=Epsilon(0.1, relative=True)),
    "z_plus": Composite("m", linear=ZPlus()),
    "z_plus without bias": Composite("m", linear=ZPlus(bias=False)),
    "alpha_beta": Composite("m", linear=AlphaBeta()),
    "gamma": Composite("m", linear=Gamma()),
    "flat": Composite("m", linear=ZPlus(), first=Flat()),
    "w_square": Composite("m", linear=ZPlus(), first=WSquare()),
    "box": Composite("m", linear=ZPlus(), first=Box(-9.0, 9.0)),
    "box by channel": Composite(
        "m", linear=ZPlus(), first=Box((-9.0, -8.0, -7.0, -6.0), (6.0, 7.0, 8.0, 9.0))
    ),
    "norm": Composite("m", linear=Norm()),
}


class Multiplied(nn.Module):
    """A product with a constant, and a head after a ReLU."""

    def __init__(self, product):
        super().__init__()
        torch.manual_seed(0)
        self.product, self.head = product, nn.Linear(5, 3)
        self.double().eval()

    def forward(self, x):
        return self.head(torch.relu(self.product(x)).mean(1))


BY_ROWS = ("flat", "w_square", "box", "box by channel", "relative epsilon")
"""Rules under which five layers of one output each are another network than one layer of five."""


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name in PRODUCTS for rule in BY_RULE if name != "one output" or rule not in BY_ROWS],
)
def test_a_product_with_a_constant_is_a_linear_layer_however_it_is_written(name, rule):
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    expected = explain(Multiplied(lambda x: F.linear(x, W)), x, 1, BY_RULE[rule])
    got = explain(Multiplied(PRODUCTS[name]), x, 1, BY_RULE[rule])
    torch.testing.assert_close(got.logits, expected.logits)
    torch.testing.assert_close(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks, expected.checks)


@pytest.mark.parametrize("name", ["einsum", "W @ x", "x @ W"])
def test_the_rule_of_a_product_is_found_by_name_and_position(name):
    class Named(nn.Module):
        def forward(self, x):
            return PRODUCTS[name](x)

    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    plain = Composite("plain", linear=Epsilon())
    expected = explain(Multiplied(lambda x: F.linear(x, W)), x, 1, plain.with_rules({0: ZPlus()})).relevance
    for where in ("product", 0, Named):
        got = explain(Multiplied(Named()), x, 1, plain.with_rules({where: ZPlus()})).relevance
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("equation", ["ncs,oc->nos", "nsc,oc->nos"])
def test_a_batch_norm_after_a_product_is_folded_into_it(equation):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5).double().eval()
    trained(norm)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    x = x if equation.startswith("nc") else x.transpose(1, 2)
    convolution = nn.Conv1d(4, 5, 1, bias=False).double()
    convolution.weight.data = W[..., None]

    def by_convolution(x):
        return norm(convolution(x if equation.startswith("nc") else x.transpose(1, 2))).mT

    for composite in ("lrp_epsilon", Composite("z", ZPlus(), ZPlus())):
        got = explain(Multiplied(lambda x: norm(torch.einsum(equation, x, W)).mT), x, 1, composite)
        expected = explain(Multiplied(by_convolution), x, 1, composite)
        torch.testing.assert_close(got.relevance, expected.relevance)
        torch.testing.assert_close(got.checks, expected.checks)


def test_weights_of_each_sample_have_rules_but_those_of_weights_alone():
    x = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    weights = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))

    def own(rows):
        return Multiplied(lambda x: torch.bmm(x, weights[rows]))

    for rule in ("zero", "epsilon", "z_plus", "alpha_beta", "gamma", "norm"):
        whole = explain(own([0, 1, 2]), x, 1, BY_RULE[rule])
        for row in range(3):
            alone = explain(own([row]), x[row : row + 1], 1, BY_RULE[rule])
            torch.testing.assert_close(whole.relevance[row], alone.relevance[0])
            torch.testing.assert_close(whole.checks["absorbed"][row], alone.checks["absorbed"][0])
    for rule in ("flat", "w_square", "box"):
        with pytest.raises(UnsupportedOperation, match="each sample has weights of its own"):
            explain(own([0, 1, 2]), x, 1, BY_RULE[rule])


MIXED = {
    "a mean over everything": lambda x: x - x.mean(),
    "a sum over samples": lambda x: x + x.sum(0),
    "a maximum over samples": lambda x: x - torch.amax(x, 0, keepdim=True),
    "a softmax over samples": lambda x: x * F.softmax(x, dim=0),
    "a matrix over samples": lambda x: (torch.ones(2, 2, dtype=x.dtype) @ x.transpose(0, 1)).transpose(0, 1),
    "an einsum over samples": lambda x: x + torch.einsum("ntc,n->tc", x, torch.ones(2, dtype=x.dtype)),
    "a normalisation over samples": lambda x: F.layer_norm(x, x.shape),
    "a linear layer over samples": lambda x: F.linear(x.movedim(0, 2), torch.eye(2, dtype=x.dtype)).movedim(
        2, 0
    ),
    "attention over samples": lambda x: F.softmax(x.flatten(1) @ x.flatten(1).T, -1) @ x.transpose(0, 1),
    "fused attention over samples": lambda x: F.scaled_dot_product_attention(
        *3 * [x.transpose(0, 1)]
    ).transpose(0, 1),
    "pooling over samples": lambda x: F.avg_pool1d(x.movedim(0, 2), 3, 1, 1).movedim(2, 0),
    "a gate by all samples": lambda x: x * torch.sigmoid(x.mean(0)),
    "gates that share one sum": lambda x: x * (torch.sigmoid(x) / torch.sigmoid(x).sum(0)),
    "sample by sample": lambda x: torch.cat([F.relu(one) for one in x.split(1)]),
    "row by row": lambda x: torch.stack([F.relu(row) for row in x]),
    "flipped samples": lambda x: x + x.flip(0),
    "one sample for all": lambda x: x - x[:1] + F.linear(x[0], torch.eye(4, dtype=x.dtype)),
    "two views of each": lambda x: F.linear(torch.cat([x, -x]), torch.eye(4, dtype=x.dtype))[:2],
    "repeated": lambda x: F.linear(x.repeat(2, 1, 1), torch.eye(4, dtype=x.dtype))[2:],
}


@pytest.mark.parametrize("name", MIXED)
def test_operations_that_mix_samples_are_refused(name):
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match="samples"):
        explain(Multiplied(lambda x: F.linear(MIXED[name](x), W)), x, 1, "lrp_epsilon")


class KeepsALoss(Multiplied):
    def forward(self, x):
        h = torch.relu(self.product(x))
        self.loss = 0.01 * h.abs().mean() + h.square().sum((1, 2)).max()
        return self.head(h.mean(1))


def test_what_is_taken_of_all_samples_but_kept_aside_changes_nothing():
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    got, expected = (
        explain(each(lambda x: F.linear(x, W)), x, 1, "lrp_epsilon") for each in (KeepsALoss, Multiplied)
    )
    assert torch.equal(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks, expected.checks)


def test_logits_that_mix_samples_are_refused():
    class Centred(Multiplied):
        def forward(self, x):
            logits = super().forward(x)
            return logits - logits.mean(0)

    x = torch.randn(2, 3, 4, dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match="mean: values of several samples meet"):
        explain(Centred(lambda x: F.linear(x, W)), x, 1, "lrp_epsilon")


@pytest.mark.parametrize(
    "mask",
    [
        lambda h: h > h.mean(),
        lambda h: (h > h.mean()) & (h > 0),
        lambda h: ~(h <= h.mean(0)),
        lambda h: (h > h.mean()).to(h.dtype) > 0,
    ],
    ids=["where", "and", "not", "cast"],
)
def test_a_mask_made_of_all_samples_is_refused_where_it_is_used(mask):
    class Masked(Multiplied):
        def forward(self, x):
            h = torch.relu(self.product(x))
            self.share = mask(h)
            return self.head((torch.where(self.share, h, 0.0) if self.used else h).mean(1))

    x = torch.randn(2, 3, 4, dtype=torch.float64)
    model = Masked(lambda x: F.linear(x, W))
    model.used = False
    assert explain(model, x, 1, "lrp_epsilon").relevance.shape == x.shape
    model.used = True
    with pytest.raises(UnsupportedOperation, match="mean: values of several samples meet"):
        explain(model, x, 1, "lrp_epsilon")


def test_addmm_is_a_linear_layer_and_refused_in_other_forms():
    x, b = (
        X.flatten(1)[:, :4],
        torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(8)),
    )
    for composite in BY_RULE.values():
        expected = relevance(lambda x: F.linear(x, W, b).relu(), x, 1, composite)
        for form in (lambda x: torch.addmm(b, x, W.T), lambda x: torch.addmm(b, mat1=x, mat2=W.T)):
            got = relevance(lambda x, form=form: form(x).relu(), x, 1, composite)
            torch.testing.assert_close(got.relevance, expected.relevance)
            torch.testing.assert_close(got.checks, expected.checks)
    for form in (lambda x: torch.addmm(b, x, W.T, beta=2), lambda x: torch.addmm(x, x, x.T @ x)):
        with pytest.raises(UnsupportedOperation, match="addmm"):
            relevance(form, x[:1])


def test_threshold_at_zero_is_a_relu_and_no_other_has_a_rule():
    for form in (lambda x: F.threshold(x, 0, 0), nn.Threshold(0, 0), lambda x: F.threshold_(x.clone(), 0, 0)):
        torch.testing.assert_close(
            relevance(lambda x, form=form: F.linear(form(x.flatten(1)[:, :4]), W), X, 2).relevance,
            relevance(lambda x: F.linear(F.relu(x.flatten(1)[:, :4]), W), X, 2).relevance,
        )
    for form in (lambda x: F.threshold(x, 0.1, 0), nn.Threshold(0, 1)):
        with pytest.raises(UnsupportedOperation, match=r"threshold\(x, 0, 0\)"):
            relevance(form)


def test_attention_of_places_first_fed_with_samples_first_is_refused():
    class Mistaken(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0].mean(1))

    with pytest.raises(
        UnsupportedOperation, match=r"multi_head_attention_forward.*values of several samples meet"
    ):
        explain(Mistaken().double().eval(), torch.randn(4, 5, 8, dtype=torch.float64), 0, "cp_lrp")


def test_a_mask_for_each_sample_and_head_is_that_of_its_sample():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    masks, x = torch.randn(6, 5, 5, dtype=torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)

    def attended(mask):
        return lambda x: layer(x, x, x, attn_mask=mask)[0]

    whole = relevance(attended(masks), x, 6, "cp_lrp").relevance
    for n in range(3):
        alone = relevance(attended(masks[2 * n : 2 * n + 2]), x[n : n + 1], 6, "cp_lrp").relevance
        torch.testing.assert_close(whole[n], alone[0])


def test_products_of_more_than_two_are_refused():
    with pytest.raises(UnsupportedOperation, match="Multiply two at a time"):
        relevance(lambda x: torch.einsum("nchw,hk,wl->nckl", x, W[:4], W[:4]))


# -- attention ----------------------------------------------------------------------------------------------------

TOKENS = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def written_out(x):
    q, k, v = x[..., :2], x[..., 2:4], x[..., 4:]
    return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(2), -1) @ v


def fused(x):
    q, k, v = (part[:, None] for part in (x[..., :2], x[..., 2:4], x[..., 4:]))
    return F.scaled_dot_product_attention(q, k, v)[:, 0]


@pytest.mark.parametrize("attention", [written_out, fused])
def test_cp_lrp_holds_attention_weights_constant_and_conserves(attention):
    explanation = relevance(attention, TOKENS, 6, "cp_lrp")
    q, k, v = TOKENS[..., :2], TOKENS[..., 2:4], TOKENS[..., 4:]
    weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(2), -1)
    expected = torch.zeros_like(TOKENS)
    expected[:, :, 6] = weights[:, 1] * v[:, :, 2]  # output 6 is token 1, feature 2
    torch.testing.assert_close(explanation.relevance, expected)
    torch.testing.assert_close(explanation.checks["sum"], explanation.checks["start"])


@pytest.mark.parametrize("attention", [written_out, fused])
def test_attn_lrp_follows_its_published_formulas(attention):
    """Achtibat et al. 2024: eq. 15 for the products (with 1/2 each), eq. 13 for softmax, token by token."""
    got = relevance(attention, TOKENS, 6, "attn_lrp").relevance
    for n in range(2):
        q, k, v = TOKENS[n, :, :2], TOKENS[n, :, 2:4], TOKENS[n, :, 4:]
        z = q @ k.T / math.sqrt(2)
        s = torch.softmax(z, -1)
        expected = torch.zeros(5, 8, dtype=torch.float64)
        R_weights = s[1] * v[:, 2] / 2
        expected[:, 6] = R_weights
        R_scores = z[1] * (R_weights - s[1] * R_weights.sum())
        for j in range(5):
            contributions = q[1] * k[j] / math.sqrt(2)
            expected[1, :2] += contributions / z[1, j] * R_scores[j] / 2
            expected[j, 2:4] += contributions / z[1, j] * R_scores[j] / 2
        torch.testing.assert_close(got[n], expected)


def biased_written_out(x):
    q, k, v = x[..., :2], x[..., 2:4], x[..., 4:]
    return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(2) + x[..., 4:5].transpose(1, 2), -1) @ v


@pytest.mark.parametrize("by_keyword", [True, False])
@pytest.mark.parametrize("composite", ["cp_lrp", "attn_lrp"])
def test_a_mask_made_of_the_input_is_followed_as_if_written_out(composite, by_keyword):
    def biased_fused(x):
        q, k, v, mask = x[..., :2], x[..., 2:4], x[..., 4:], x[..., 4:5].transpose(1, 2)
        q, k, v, mask = q[:, None], k[:, None], v[:, None], mask.expand(-1, 5, -1)[:, None]
        given = {"attn_mask": mask} if by_keyword else {}
        return F.scaled_dot_product_attention(q, k, v, *([] if by_keyword else [mask]), **given)[:, 0]

    got, expected = (relevance(each, TOKENS, 6, composite) for each in (biased_fused, biased_written_out))
    torch.testing.assert_close(got.relevance, expected.relevance)
    assert composite == "attn_lrp" or torch.allclose(got.checks["sum"], got.checks["start"])


@pytest.mark.parametrize("held", ["q", "k", "v", "qk", "qv"])
def test_constants_take_no_part_of_attention_fused_or_written_out(held):
    """Learned queries, as of a pooling by attention, and their like; LRP-0, so that both forms are exact."""
    learned = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def parts(x):
        columns = {"q": slice(0, 2), "k": slice(2, 4), "v": slice(4, 8)}
        return [
            (learned.expand(len(x), -1, -1) if name in held else x)[..., part]
            for name, part in columns.items()
        ]

    def one_by_one(x):
        q, k, v = parts(x)
        return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(2), -1) @ v

    def at_once(x):
        return F.scaled_dot_product_attention(*(part[:, None] for part in parts(x)))[:, 0]

    composite = replace(ZERO, attention="taylor")
    got, expected = (relevance(each, TOKENS, 6, composite) for each in (at_once, one_by_one))
    torch.testing.assert_close(got.relevance, expected.relevance)
    if held == "qk":
        torch.testing.assert_close(got.checks["sum"], got.checks["start"])


@pytest.mark.parametrize("composite", ["cp_lrp", "attn_lrp"])
@pytest.mark.parametrize(
    "options", [{}, {"need_weights": False}, {"attn_mask": "bool"}, {"attn_mask": "float"}]
)
def test_multi_head_attention_equals_its_plain_parts(options, composite):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    nn.init.normal_(layer.in_proj_bias)
    forbidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    additive = torch.zeros(5, 5, dtype=torch.float64).masked_fill(forbidden, float("-inf"))
    mask = {"bool": forbidden, "float": additive}.get(options.get("attn_mask"))
    options = {**options, "attn_mask": mask}

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x, x, x, **options)[0].flatten(1)

    class Parts(Whole):
        def forward(self, x):
            parts = zip(layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)
            q, k, v = (F.linear(x, W, b).unflatten(-1, (2, 4)).transpose(1, 2) for W, b in parts)
            scores = q @ k.transpose(2, 3) / 2
            weights = (scores if mask is None else scores + additive).softmax(-1)
            return F.linear(
                (weights @ v).transpose(1, 2).flatten(2), layer.out_proj.weight, layer.out_proj.bias
            ).flatten(1)

    whole, parts = (explain(model().eval(), TOKENS, 11, composite) for model in (Whole, Parts))
    torch.testing.assert_close(whole.logits, layer(TOKENS, TOKENS, TOKENS, **options)[0].flatten(1).detach())
    torch.testing.assert_close(whole.relevance, parts.relevance)
    if composite == "cp_lrp":
        assert whole.checks["unaccounted"].abs().max() < 1e-9


def test_a_transformer_encoder_is_followed_through_its_layers():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
    model = (
        nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten())
        .double()
        .eval()
    )
    checks = explain(model, TOKENS, 0, "cp_lrp").checks
    assert checks["unaccounted"].abs().max() < 1e-9


def test_padding_masks_of_multi_head_attention_are_refused():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    padded = torch.zeros(2, 5, dtype=torch.bool)
    with pytest.raises(UnsupportedOperation, match="key padding"):
        relevance(lambda x: layer(x, x, x, key_padding_mask=padded)[0], TOKENS)
