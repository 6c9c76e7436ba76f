"""The engine on small models: identities, named refusals, and a model that is never changed."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spray.engine import BadInput, BadModel, Explainer, UnsupportedOperation, attribute, explain
from spray.engine.calls import LayerCall
from spray.engine.composites import COMPOSITES, Composite
from spray.engine.layer import Layer
from spray.engine.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare, Zero, ZPlus


class Block(nn.Module):
    """A residual block in the manner of torchvision: in-place ReLU, in-place sum, normalised convolutions."""

    def __init__(self, channels, inplace=True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.inplace = inplace

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.inplace:
            out += x
        else:
            out = torch.add(out, x)
        return self.relu(out)


def small_cnn(*, bias=True, inplace=True, seed=0):
    """Two convolutions, a residual block, global average pooling and a linear head, in float64, calibrated."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=bias),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        Block(6, inplace),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5, bias=bias),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if bias:
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
    return model.double().eval()


def images(n=3, seed=1):
    torch.manual_seed(seed)
    return torch.randn(n, 2, 8, 8, dtype=torch.float64).clamp(-3, 3)


WITHOUT_BIAS = ("deep_taylor", "deep_taylor_unbounded", "excitation_backprop")
LRP = [name for name, method in COMPOSITES.items() if isinstance(method, Composite)]


def test_an_explanation_shows_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    found = explain(model, torch.rand(2, 3, 8, 8), torch.tensor([0, 3]))
    told = found._repr_html_()
    assert "data:image/bmp" in told and told.count("<tr>") == 3
    assert f"{found.checks['start'][1]:.4g}" in told and ">3<" in told


@pytest.mark.parametrize("inplace", [True, False])
def test_lrp_0_is_gradient_times_input_without_biases(inplace):
    model, x = small_cnn(bias=False, inplace=inplace), images()
    torch.testing.assert_close(
        attribute(model, x, 1, "lrp_0"), attribute(model, x, 1, "gradient_x_input"), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("composite", LRP)
def test_relevance_in_equals_relevance_out_with_what_was_absorbed(composite):
    checks = explain(small_cnn(), images(), None, composite).checks
    assert (checks["absorbed_bias"].abs().min() > 0) == (composite not in WITHOUT_BIAS)
    torch.testing.assert_close(checks["unaccounted"], torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("composite", LRP)
def test_in_place_and_out_of_place_models_give_the_same_map(composite):
    x = images()
    maps = [attribute(small_cnn(inplace=inplace), x, 0, composite) for inplace in (True, False)]
    assert torch.equal(*maps)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_model_is_never_changed(composite):
    model = small_cnn()
    before = copy.deepcopy(model.state_dict())
    parameters = {name: id(p) for name, p in model.named_parameters()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    explain(model, images(), None, composite, layers=["0", "3"])
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks


def test_the_model_is_unchanged_after_a_refusal_too():
    model = nn.Sequential(nn.Linear(3, 3), nn.Softplus()).eval()
    with pytest.raises(UnsupportedOperation):
        explain(model, torch.ones(1, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("composite", COMPOSITES)
def test_inputs_are_left_alone(composite):
    x = images()
    before = x.clone()
    attribute(nn.Sequential(nn.ReLU(inplace=True), small_cnn()), x, 0, composite)
    assert torch.equal(x, before)
    assert not x.requires_grad


@pytest.mark.parametrize("composite", LRP)
def test_relevance_is_conserved_from_layer_to_layer_of_one_pass(composite):
    names = ["0", "1", "2", "3", "4", "5", "6"]
    explanation = explain(small_cnn(bias=False), images(), None, composite, layers=names)
    assert list(explanation.layers) == names
    for name, relevance in explanation.layers.items():
        torch.testing.assert_close(
            relevance.flatten(1).sum(1), explanation.checks["start"], rtol=1e-3, atol=1e-6, msg=name
        )


def test_layers_are_given_in_the_shape_of_their_outputs_and_do_not_change_the_map():
    model, x = small_cnn(), images()
    explanation = explain(model, x, 2, layers=["3.conv2", "5"])
    assert explanation.layers["3.conv2"].shape == (3, 6, 4, 4)
    assert explanation.layers["5"].shape == (3, 24)
    assert torch.equal(explanation.relevance, attribute(model, x, 2))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_relevance_of_a_layer_is_that_before_an_in_place_operation(composite):
    names, x = ["3.bn1", "3.conv2"], images()
    layers = [explain(small_cnn(inplace=inplace), x, 0, composite, names).layers for inplace in (True, False)]
    for name in names:
        torch.testing.assert_close(layers[0][name], layers[1][name])


def test_relevance_before_and_after_a_folded_batch_norm_is_the_same():
    layers = explain(small_cnn(), images(), 0, layers=["3.conv1", "3.bn1"]).layers
    torch.testing.assert_close(layers["3.conv1"], layers["3.bn1"])


def test_folding_is_the_same_as_a_convolution_with_the_folded_weights():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
    model = model.double().eval()
    nn.init.uniform_(model[1].weight, -1, 1)
    nn.init.normal_(model[1].bias)
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.01, 2.0)
    fused = nn.Sequential(torch.nn.utils.fusion.fuse_conv_bn_eval(model[0], model[1]), *model[2:]).eval()
    for composite in LRP:
        torch.testing.assert_close(
            attribute(model, images(), 1, composite), attribute(fused, images(), 1, composite)
        )


def test_a_convolution_with_another_consumer_is_not_folded():
    class Twice(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.conv, self.bn, self.head = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(108, 2)
            self.order = order

        def forward(self, x):
            z = self.conv(x)
            y = z * 1 + self.bn(z) if self.order else self.bn(z) + z * 1
            return self.head(y.flatten(1))

    torch.manual_seed(0)
    model = Twice(True).double().eval()
    model.bn.running_var.fill_(4.0)
    other = Twice(False).double().eval()
    other.load_state_dict(model.state_dict())
    maps = [attribute(m, images(), 1, "epsilon_plus") for m in (model, other)]
    torch.testing.assert_close(*maps)
    checks = explain(model, images(), 1, "epsilon_plus").checks
    assert checks["unaccounted"].abs().max() < 1e-9


def test_a_layer_used_twice_keeps_its_state_per_call():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(F.relu(self.layer(x)))

    torch.manual_seed(2)
    shared = Shared().double().eval()
    apart = nn.Sequential(copy.deepcopy(shared.layer), nn.ReLU(), copy.deepcopy(shared.layer)).eval()
    x = torch.randn(3, 4, dtype=torch.float64)
    for composite in ("lrp_epsilon", "epsilon_plus_flat"):
        assert torch.equal(attribute(shared, x, 0, composite), attribute(apart, x, 0, composite))
    with pytest.raises(BadInput, match="runs more than once"):
        explain(shared, x, layers=["layer"])


def test_a_normalisation_inside_the_model_gives_the_map_of_one_outside():
    class Normalised(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.tensor([0.4, 0.6], dtype=torch.float64).view(2, 1, 1))

        def forward(self, x):
            return self.model((x - self.mean) / 0.25)

    x, model = images(), small_cnn()
    inside = Normalised(model).eval()
    torch.testing.assert_close(attribute(inside, x, 0), attribute(model, (x - inside.mean) / 0.25, 0))


def test_relevance_rules_are_refused_where_relevance_would_have_to_pass_a_sum():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(128, 2)

        def forward(self, x):
            return self.head((self.conv(x) + x).flatten(1))

    model = Skip().double().eval()
    with pytest.raises(UnsupportedOperation, match="epsilon_plus instead"):
        attribute(model, images(), 0, "epsilon_plus_flat")
    assert explain(model, images(), 0, "epsilon_plus").checks["unaccounted"].abs().max() < 1e-9


def test_what_flat_gives_to_padding_outside_the_layer_is_in_the_books():
    model = nn.Sequential(
        nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(189, 2)
    )
    checks = explain(model.double().eval(), images(), 0, Composite("f", first=Flat())).checks
    assert (checks["tokens"] != 0).all()
    torch.testing.assert_close(checks["unaccounted"], torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("join", [torch.cat, torch.stack])
@pytest.mark.parametrize("rule", [Flat(), WSquare(), Box(), Epsilon()])
def test_what_the_first_layer_gives_to_constants_beside_the_input_is_in_the_books(rule, join):
    torch.manual_seed(0)
    constant = torch.rand(3, 2, 8, 8, dtype=torch.float64)

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))

        def forward(self, x):
            return self.layers(join([constant, x], 1).reshape(3, 4, 8, 8))

    model, x = Beside().double().eval(), images().clamp(-2, 2)
    beside = Composite("beside", first=rule)
    got = explain(model, x, 0, beside)
    whole = explain(model.layers, torch.cat([constant, x], 1), 0, beside)
    torch.testing.assert_close(got.relevance, whole.relevance[:, 2:])
    torch.testing.assert_close(got.checks["tokens"], whole.relevance[:, :2].sum((1, 2, 3)))
    torch.testing.assert_close(got.checks["absorbed"], whole.checks["absorbed"])


def test_flat_may_stand_in_the_first_layers_but_not_behind_others():
    model = (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
    )
    x = torch.randn(3, 4, dtype=torch.float64)
    two = Composite("two", linear=Epsilon()).with_rules({0: Flat(), "2": Flat()})
    flat = explain(model, x, 0, two, layers=["2"])
    torch.testing.assert_close(flat.relevance, flat.layers["2"].sum(1, keepdim=True).expand(3, 4) / 4)
    with pytest.raises(UnsupportedOperation, match="first layer"):
        explain(model, x, 0, Composite("late").with_rules({"4": Flat()}))


def test_an_explainer_keeps_derived_weights_and_sees_when_the_model_changes():
    model, x = small_cnn(), images()
    explainer = Explainer(model, "epsilon_plus")
    first = explainer.explain(x, 0).relevance
    assert torch.equal(explainer.explain(x, 0).relevance, first)
    with torch.no_grad():
        model[3].conv1.weight.mul_(-1)
        model[3].bn2.running_var.mul_(2)
    assert torch.equal(explainer.explain(x, 0).relevance, attribute(model, x, 0, "epsilon_plus"))
    assert not torch.equal(explainer.explain(x, 0).relevance, first)
    model[0] = nn.Conv2d(2, 6, 3, padding=1).double().eval()
    assert torch.equal(explainer.explain(x, 0).relevance, attribute(model, x, 0, "epsilon_plus"))


def test_memory_is_freed_without_the_cycle_collector():
    """Tensors held in cycles would pile up batch after batch: the collector does not see their size."""
    model = small_cnn()
    alive = []
    model[3].conv2.register_forward_hook(lambda module, inputs, output: alive.append(weakref.ref(output)))
    gc.collect()
    gc.disable()
    try:
        for composite in COMPOSITES:
            attribute(model, images(), 0, composite)
        assert len(alive) == len(COMPOSITES)
        assert [reference() for reference in alive] == [None] * len(alive)
    finally:
        gc.enable()


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (3, 1, 8, 8), (1, 1, 8, 8)])
def test_channels_stay_side_by_side_for_one_sample_and_one_channel_too(shape):
    """Where shapes leave the memory format open torch takes the slower one, for all that follows."""
    convolutions = (nn.Conv2d(shape[1], 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    model = nn.Sequential(*convolutions, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)).eval()
    strides = []
    for module in model[:5]:
        module.register_forward_hook(lambda module, inputs, output: strides.append(output.stride(1)))
    attribute(model, torch.rand(shape), 0, "epsilon_alpha2_beta1")
    assert strides == [1] * 5


@pytest.mark.parametrize("targets", [[0], [0, 1]])
def test_what_a_layer_saw_is_freed_while_the_last_backward_pass_goes_on(targets, monkeypatch):
    seen, alive = [], []
    backward = LayerCall.backward

    def watched(call, carried):
        alive.append(sum(reference() is not None for reference in seen))
        seen.append(weakref.ref(call.z))
        return backward(call, carried)

    monkeypatch.setattr(LayerCall, "backward", watched)
    Explainer(small_cnn(), "epsilon_plus").explain_each(images(), targets)
    assert alive[-4:] == [0, 0, 0, 0] if len(targets) == 1 else alive[:4] == [0, 1, 2, 3]


def test_samples_do_not_depend_on_their_batch():
    model, x = small_cnn(), images(8)
    whole = attribute(model, x)
    alone = torch.cat([attribute(model, x[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(whole, alone, rtol=1e-9, atol=1e-12)


class Windows(nn.Module):
    """Samples parted into rows of their own and joined again, as Swin does with its windows."""

    def __init__(self):
        super().__init__()
        self.inside, self.head = nn.Linear(3, 5), nn.Linear(20, 4)

    def forward(self, x):
        rows = torch.relu(self.inside(x.reshape(-1, 2, 3)))
        return self.head(rows.reshape(len(x), -1))


@pytest.mark.parametrize(
    "composite", ["lrp_epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "gamma", "rows"]
)
def test_large_outputs_are_explained_by_slices_of_the_batch(composite, monkeypatch):
    """Slices of three samples, of which seven leave one over: rows of one sample stay together, so do the books."""
    model, x, each, rows = small_cnn(), images(7), 384, 1
    if composite == "rows":
        model, x, each, rows = Windows().double().eval(), torch.randn(7, 4, 3, dtype=torch.float64), 20, 2
    named = {"gamma": Composite("γ", convolution=Gamma()), "rows": Composite("z⁺", linear=ZPlus(bias=False))}
    whole = explain(model, x, composite=named.get(composite, composite))
    sizes, adjoint = set(), Layer.adjoint

    def watched(layer, r, weight, like):
        sizes.add(len(r))
        return adjoint(layer, r, weight, like)

    monkeypatch.setattr(Layer, "adjoint", watched)
    monkeypatch.setattr("spray.engine.layer.SLICE_PER_WEIGHT", 0)
    monkeypatch.setattr("spray.engine.layer.SLICE", 3 * each)
    sliced = explain(model, x, composite=named.get(composite, composite))
    assert sizes == {3 * rows, rows, 7}
    torch.testing.assert_close(sliced.relevance, whole.relevance, rtol=1e-9, atol=1e-12)
    for kind, booked in whole.checks.items():
        torch.testing.assert_close(sliced.checks[kind], booked, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_alpha_beta_is_the_same_where_a_relu_is_the_only_use_of_the_output(alpha):
    """There fewer cases arise, and so less is computed: a second use of no weight makes it the general case."""
    conv, x = nn.Conv2d(2, 6, 3, groups=2), images()
    conv.weight.data[2].abs_()  # outputs with contributions of one sign only
    conv.weight.data[:, :, :2] = 0

    class Model(nn.Module):
        def __init__(self, twice):
            super().__init__()
            self.conv, self.twice = conv, twice

        def forward(self, x):
            z = self.conv(x)
            out = F.relu(z).flatten(1).sum(1, keepdim=True)
            return out + z.flatten(1)[:, :0].sum(1, keepdim=True) if self.twice else out

    composite = Composite("αβ", convolution=AlphaBeta(alpha))
    once, twice = (explain(Model(twice).double().eval(), x, 0, composite) for twice in (False, True))
    torch.testing.assert_close(once.relevance, twice.relevance, rtol=1e-9, atol=1e-12)
    for kind, booked in twice.checks.items():
        torch.testing.assert_close(once.checks[kind], booked, rtol=1e-9, atol=1e-9)


def test_gradients_are_enabled_inside_and_left_as_they_were_outside():
    model, x = small_cnn(), images()
    expected = attribute(model, x)
    with torch.no_grad():
        assert torch.equal(attribute(model, x), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert torch.equal(attribute(model, x.clone()), expected)


def test_the_start_is_the_logit_or_one():
    model, x = small_cnn(), images()
    logit = explain(model, x, 1)
    unit = explain(model, x, 1, start="unit")
    torch.testing.assert_close(logit.checks["start"], logit.logits[:, 1])
    torch.testing.assert_close(unit.checks["start"], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(unit.relevance * logit.logits[:, 1].view(3, 1, 1, 1), logit.relevance)


# -- refusals -----------------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """A model around one function."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.layer(x)))


def overwrite_a_view(x):
    first = x[:, :2]
    x.relu_()
    return torch.cat([first, first], 1)


def no_gradient(x):
    with torch.no_grad():
        return F.relu(x)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g


REFUSED = {
    "softplus": (F.softplus, "softplus"),
    "exp": (torch.exp, "exp"),
    "sigmoid as an activation": (torch.sigmoid, "sigmoid"),
    "division by the input": (lambda x: 1 / x, "__r.*div__: a constant divided"),
    "a power": (lambda x: x**3, "exponent 3"),
    "fft": (lambda x: torch.fft.fft(x).real, "fft"),
    "item assignment": (lambda x: x.__setitem__(0, 1.0), "__setitem__"),
    "detach": (lambda x: x.detach(), "detach"),
    "data": (lambda x: x.data, "data"),
    "no_grad": (no_gradient, "turns gradients off"),
    "active dropout": (lambda x: F.dropout(x, 0.5, True), "eval"),
    "a view of an overwritten tensor": (overwrite_a_view, "shares memory"),
    "an unseen function": (Cube.apply, "turns gradients off"),
    "out=": (lambda x: torch.add(x, x, out=torch.empty(3, 4)), "out="),
    "padding with a value": (lambda x: F.pad(x, (1, 0), value=2.0)[:, :4], "padding with 2.0"),
    "a shifted clamp": (lambda x: x.clamp(1, 2), "value at 0"),
    "a number taken out": (lambda x: x * float(x[0, 0]), "__float__|item"),
    "batch statistics": (lambda x: F.batch_norm(x, None, None, training=True), "statistics of the batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_without_a_rule_is_refused_by_name_and_place(name):
    function, message = REFUSED[name]
    with pytest.raises(UnsupportedOperation, match=message):
        attribute(Calls(function).eval(), torch.randn(3, 4))


def test_a_model_that_ends_in_a_softmax_or_sigmoid_is_told_so():
    with pytest.raises(UnsupportedOperation, match="without that"):
        attribute(nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()).eval(), torch.randn(3, 4))


@pytest.mark.filterwarnings(
    "ignore:.*is deprecated:FutureWarning", "ignore:.*is deprecated:DeprecationWarning"
)
def test_a_scripted_part_is_refused():
    part = torch.jit.trace(nn.ReLU(), torch.randn(3, 4))
    with pytest.raises(UnsupportedOperation, match="outside the sight"):
        attribute(Calls(part).eval(), torch.randn(3, 4))


@pytest.mark.filterwarnings(
    "ignore:.*is deprecated:FutureWarning", "ignore:.*is deprecated:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("wrap", "way_out"),
    [
        (torch.compile, "model._orig_mod"),
        (nn.DataParallel, "model.module"),
        (lambda model: torch.jit.trace(model, images()), "the eager model"),
    ],
)
def test_a_compiled_scripted_or_parallel_model_is_refused_with_the_way_out(wrap, way_out):
    with pytest.raises(BadModel, match=way_out):
        attribute(wrap(small_cnn()), images())


@pytest.mark.parametrize("composite", ["epsilon_plus", "gradient"])
@pytest.mark.parametrize("part", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_training_mode_is_refused_where_it_matters(part, composite):
    model = nn.Sequential(nn.Linear(4, 4), part)
    with pytest.raises(BadModel, match=r"module '1' .* training mode"):
        attribute(model, torch.randn(3, 4), 0, composite)
    attribute(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0)).train(), torch.randn(3, 4), 0, composite)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_weights_are_refused_by_name(value):
    model = small_cnn()
    explainer = Explainer(model)
    with torch.no_grad():
        model[3].conv2.weight[0, 0, 0, 0] = value
    with pytest.raises(BadModel, match=r"'3\.conv2\.weight' holds 1 NaN or infinite"):
        explainer.explain(images())


def test_nan_inputs_are_refused_with_their_rows():
    x = images(4)
    x[2, 0, 0, 0] = float("nan")
    with pytest.raises(BadInput, match="rows 2") as caught:
        attribute(small_cnn(), x)
    assert caught.value.rows == (2,)


def test_half_precision_is_refused():
    with pytest.raises(BadModel, match="half precision"):
        attribute(small_cnn().half(), images().half())
    with pytest.raises(BadInput, match=r"inputs are torch\.float16"):
        attribute(small_cnn(), images().half())


def test_autocast_outside_changes_nothing():
    model, x = small_cnn().float(), images().float()
    expected = attribute(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attribute(model, x), expected)


def test_autocast_inside_the_model_is_off_as_well():
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_cnn().float()

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(x * (torch.eye(8) @ torch.eye(8)).sum()).float()

    model, x = Cast().eval(), images().float()
    got, expected = explain(model, x, 0), explain(model.inner, x * 8, 0)
    torch.testing.assert_close(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks, expected.checks)


@pytest.mark.parametrize("cast", [lambda x: x.to(torch.bfloat16).float(), lambda x: x.half().float()])
def test_a_cast_to_half_precision_inside_the_model_is_refused(cast):
    with pytest.raises(UnsupportedOperation, match=r"bfloat16|half"):
        attribute(Calls(cast).eval(), torch.randn(3, 4), 0, "lrp_epsilon")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (5, "classes 0 to 4"),
        (-1, "classes 0 to 4"),
        (torch.tensor([0, 1]), "integer class"),
        (torch.ones(3), "int"),
        ("cat", "one for each of 3 samples"),
        (["cat", "dog", "cat"], "one for each of 3 samples"),
        (True, "integer class"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(BadInput, match=message):
        attribute(small_cnn(), images(), targets)


@pytest.mark.parametrize(
    "x", [torch.zeros(0, 2, 8, 8), torch.zeros(3), torch.zeros(3, 2, 8, 8, dtype=torch.uint8)]
)
def test_inputs_that_do_not_fit_are_refused(x):
    with pytest.raises(BadInput):
        attribute(small_cnn().float(), x)


def test_an_unknown_layer_name_gets_near_ones():
    with pytest.raises(BadInput, match=r"no module '3\.conv9'.*3\.conv"):
        explain(small_cnn(), images(), layers=["3.conv9"])


def test_unknown_composite_and_start_list_what_there_is():
    with pytest.raises(ValueError, match="epsilon_plus_flat"):
        attribute(small_cnn(), images(), 0, "epsilon_minus")
    with pytest.raises(ValueError, match="'logit'"):
        attribute(small_cnn(), images(), 0, start="probability")


def test_a_model_that_returns_no_logits_is_refused():
    with pytest.raises(BadModel, match=r"returned shape \(3, 6, 8, 8\)"):
        attribute(small_cnn()[:2], images())


def test_a_numpy_integer_is_a_target():
    model, x = small_cnn(), images()
    assert torch.equal(attribute(model, x, np.int64(2)), attribute(model, x, 2))


@pytest.mark.parametrize(
    ("pool", "shares"),
    [
        (nn.MaxPool1d(2), [1.0, 0.0]),
        (lambda x: x.max(2).values, [1.0, 0.0]),
        (lambda x: x.amax(2), [0.5, 0.5]),
        (lambda x: torch.max(x[..., :1], x[..., 1:]), [0.5, 0.5]),
    ],
)
def test_tied_maxima_share_as_documented(pool, shares):
    class Pooled(nn.Module):
        def forward(self, x):
            return pool(x).flatten(1)

    assert attribute(Pooled().eval(), torch.ones(1, 1, 2), 0, "lrp_0").flatten().tolist() == shares


def test_rules_by_name_type_and_position():
    model = (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    )
    x = torch.randn(3, 4, dtype=torch.float64)
    base = Composite("base", linear=Zero())
    every = attribute(model, x, 0, Composite("z", linear=ZPlus()))
    for rules in ({"*": ZPlus()}, {nn.Linear: ZPlus()}, {0: ZPlus(), 1: ZPlus(), 2: ZPlus()}):
        assert torch.equal(attribute(model, x, 0, base.with_rules(rules)), every)
    one = attribute(model, x, 0, base.with_rules({"2": ZPlus()}))
    assert not torch.equal(one, every)
    assert not torch.equal(one, attribute(model, x, 0, base))


def view_overwritten(c, x):
    h = c(x)
    h.view(len(h), -1).relu_()
    return h.flatten(1)


def overwritten_then_flattened(c, x):
    h = c(x)
    v = h.flatten(1)
    F.relu_(h)
    return v


def input_view_overwritten(c, x):
    x.view(len(x), -1).sub_(0.5)
    return c(x).flatten(1)


def overwritten_then_contiguous(c, x):
    h = c(x)
    v = h.contiguous()
    F.relu_(h)
    return v.flatten(1)


def copied_then_overwritten(c, x):
    h = c(x)
    v = h.permute(0, 2, 3, 1).contiguous()
    F.relu_(v)
    return (v + h.permute(0, 2, 3, 1)).flatten(1)


class Layout(nn.Module):
    """A convolution whose values a function shows in other shapes and overwrites."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.function = nn.Conv2d(3, 4, 3), nn.Linear(144, 3), function
        self.double().eval()

    def forward(self, x):
        return self.head(self.function(self.conv, x))


@pytest.mark.parametrize("function", [view_overwritten, overwritten_then_flattened, input_view_overwritten])
def test_memory_that_views_share_in_the_models_own_layout_is_refused_in_any(function):
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match="shares memory"):
        attribute(Layout(function), x, 0, "lrp_epsilon")


@pytest.mark.parametrize("function", [overwritten_then_contiguous, copied_then_overwritten])
def test_what_is_one_tensor_and_what_is_a_copy_is_so_as_in_the_models_own_layout(function):
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model = Layout(function)
    explanation = explain(model, x, 0, "lrp_epsilon")
    torch.testing.assert_close(explanation.logits, model(x.clone()))
    torch.testing.assert_close(explanation.checks["unaccounted"], torch.zeros(2, dtype=torch.float64))


def test_relevance_of_a_batch_norm_whose_layer_is_used_beside_it():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 3)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(self.norm.bias)

        def forward(self, x):
            h = self.conv(x)
            return self.head((torch.relu(self.norm(h)) + h).flatten(1))

    model, x = Beside().double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    got = explain(model, x, 0, "lrp_0", layers=["norm"]).layers["norm"]
    expected = torch.relu(model.norm(model.conv(x))) * model.head.weight[0].view(4, 6, 6)
    torch.testing.assert_close(got, expected.detach())


def test_another_eps_of_a_batch_norm_is_seen():
    model, x = (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3)).double(),
        images(),
    )
    model(x)
    explainer = Explainer(model.eval(), "epsilon_plus")
    explainer.explain(x, 0)
    model[1].eps = 1.0
    assert torch.equal(explainer.explain(x, 0).relevance, attribute(model, x, 0, "epsilon_plus"))
