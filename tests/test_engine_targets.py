"""Where relevance starts, several targets from one pass, and methods that are not the engine's own."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spray.engine import (
    AttributionError,
    BadInput,
    Explainer,
    Ranked,
    UnsupportedOperation,
    attribute,
    explain,
)
from spray.engine.methods import Captum, Function
from spray.engine.start import Difference
from stores.provenance import canonical_json, describe


def small_cnn(bias=True):
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 5, bias=bias),
        )
        .double()
        .eval()
    )


def images():
    torch.manual_seed(1)
    return torch.randn(3, 2, 8, 8, dtype=torch.float64)


def test_several_targets_come_from_one_forward_pass():
    model, x = small_cnn(), images()
    passes = []
    model[4].register_forward_hook(lambda *_: passes.append(1))
    explainer = Explainer(model, "epsilon_plus", layers=["2"])
    labels = torch.tensor([0, 1, 2])
    several = explainer.explain_each(x, [labels, None, Ranked(1), 4])
    assert len(passes) == 1
    order = several[0].logits.argsort(1, descending=True)
    for explanation, targets in zip(
        several, [labels, order[:, 0], order[:, 1], torch.full((3,), 4)], strict=True
    ):
        alone = explain(model, x, targets, "epsilon_plus", layers=["2"])
        assert torch.equal(explanation.targets, targets)
        assert torch.equal(explanation.relevance, alone.relevance)
        assert torch.equal(explanation.layers["2"], alone.layers["2"])
        assert all(torch.equal(explanation.checks[key], value) for key, value in alone.checks.items())


def test_each_target_can_have_a_start_of_its_own():
    model, x = small_cnn(), images()
    starts = ["logit", "unit", Difference(against=3)]
    several = Explainer(model, "epsilon_plus").explain_each(x, [1, None, 1], starts)
    for explanation, target, start in zip(several, [1, None, 1], starts, strict=True):
        alone = attribute(model, x, target, "epsilon_plus", start=start)
        assert torch.equal(explanation.relevance, alone)


def test_a_target_can_be_decided_by_the_logits():
    model, x = small_cnn(), images()
    least = explain(model, x, lambda logits: logits.argmin(1), "epsilon_plus")
    assert torch.equal(least.targets, least.logits.argmin(1))
    assert torch.equal(least.relevance, attribute(model, x, least.targets, "epsilon_plus"))


def test_a_difference_of_logits_is_the_difference_of_two_maps():
    model, x = small_cnn(bias=False), images()
    contrast = explain(model, x, 1, "lrp_0", start=Difference(against=3))
    expected = attribute(model, x, 1, "lrp_0") - attribute(model, x, 3, "lrp_0")
    torch.testing.assert_close(contrast.relevance, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(contrast.checks["start"], contrast.logits[:, 1] - contrast.logits[:, 3])
    runner_up = explain(model, x, None, "lrp_0", start="difference")
    best = runner_up.logits.sort(1, descending=True).values
    torch.testing.assert_close(runner_up.checks["start"], best[:, 0] - best[:, 1])
    assert describe(Difference(3)) == {"name": "difference", "against": 3}


@pytest.mark.parametrize(
    ("targets", "start", "message"),
    [
        (1, Difference(1), "rows"),
        (1, Difference(9), "not among 0 to 4"),
        (Ranked(5), "logit", "rank 5"),
        (1, "softmax", "'difference'"),
        (1, None, "'difference'"),
        (1, Difference, "'difference'"),
        (1, ["logit", "logit"], "2 starts for 1 targets"),
    ],
)
def test_starts_and_ranks_that_do_not_fit_are_refused(targets, start, message):
    with pytest.raises(BadInput, match=message):
        Explainer(small_cnn()).explain_each(images(), [targets], start)


def test_of_many_rows_an_error_names_the_first():
    with pytest.raises(BadInput, match=r"rows 0, 1, 2, 3, 4, …; a difference") as error:
        attribute(small_cnn(), images().repeat(3, 1, 1, 1), 1, start=Difference(1))
    assert error.value.rows == tuple(range(9))


def test_a_unit_start_from_a_logit_of_zero_is_refused():
    model = nn.Sequential(nn.Linear(2, 2, bias=False)).double().eval()
    with pytest.raises(BadInput, match="which is 0"):
        attribute(model, torch.zeros(1, 2, dtype=torch.float64), 0, start="unit")


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("kind", ["guided_backprop", "deconvnet"])
def test_guided_backprop_and_deconvnet_change_what_relus_hand_back(kind, inplace):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(inplace), nn.Linear(6, 6), nn.ReLU(inplace), nn.Linear(6, 2)
    )
    model, x = model.double().eval(), torch.randn(5, 4, dtype=torch.float64)
    first = F.relu(model[0](x))
    second = F.relu(model[2](first))
    g = model[4].weight[1].expand(5, 6)
    for layer, active in ((model[2], second), (model[0], first)):
        g = g.clamp(min=0) * ((active > 0) if kind == "guided_backprop" else 1)
        g = g @ layer.weight
    torch.testing.assert_close(attribute(model, x, 1, kind), g.detach())


class Elementwise(nn.Module):
    """Three linear layers with a function between them."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)])
        self.function = function
        self.double().eval()

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.function(layer(x))
        return self.layers[-1](x)


ZERO = torch.zeros(1, dtype=torch.float64)
RELUS = {
    "clamp": lambda x: x.clamp(min=0),
    "clamp, by place": lambda x: torch.clamp(x, 0),
    "clamp, a tensor": lambda x: x.clamp(ZERO),
    "clip": lambda x: torch.clip(input=x, min=0.0),
    "clamp_": lambda x: x.clamp_(0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_min_": lambda x: torch.clamp_min_(x, 0),
    "maximum": lambda x: torch.maximum(x, ZERO),
    "maximum, zero first": lambda x: torch.maximum(ZERO, x),
    "max": lambda x: torch.max(x, other=torch.zeros_like(x)),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold_": lambda x: F.threshold(x, 0.0, 0.0, inplace=True),
    "nn.Threshold": nn.Threshold(0, 0),
    "relu_": lambda x: x.relu_(),
}


@pytest.mark.parametrize("kind", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("name", RELUS)
def test_a_relu_is_a_relu_however_it_is_written(name, kind):
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = attribute(Elementwise(F.relu), x, 1, kind)
    assert not torch.allclose(expected, attribute(Elementwise(F.relu), x, 1, "gradient"))
    torch.testing.assert_close(attribute(Elementwise(RELUS[name]), x, 1, kind), expected)


OTHER_ACTIVATIONS = {
    "gelu": F.gelu,
    "rrelu": F.rrelu,
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "sin": torch.sin,
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp_max": lambda x: x.clamp_max(0),
    "threshold": lambda x: F.threshold(x, 0.1, 0),
    "maximum": lambda x: torch.maximum(x, ZERO + 1),
    "min": lambda x: torch.min(ZERO, x),
}


@pytest.mark.parametrize("name", OTHER_ACTIVATIONS)
def test_guided_backprop_is_refused_where_activations_are_no_relus(name):
    x = torch.randn(5, 4, dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match=rf"{name}.*ReLU networks only"):
        attribute(Elementwise(OTHER_ACTIVATIONS[name]), x, 0, "guided_backprop")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.max(x, -x),
        lambda x: x * x.detach().clamp(0, 6),
        lambda x: x.unflatten(1, (2, -1)).max(1).values.repeat(1, 2),
    ],
)
def test_what_is_no_activation_keeps_its_gradient_under_guided_backprop(function):
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = attribute(Elementwise(function), x, 0, "gradient")
    torch.testing.assert_close(attribute(Elementwise(function), x, 0, "guided_backprop"), expected)


def test_any_function_comes_through_the_same_door():
    def occlusion(model, inputs, targets):
        with torch.no_grad():
            drop = model(inputs) - model(inputs * 0)
        share = drop.gather(1, targets[:, None]) / inputs[0].numel()
        return share.view(-1, 1, 1, 1).expand_as(inputs)

    model, x = small_cnn(), images()
    explanation = explain(model, x, 2, Function("occlusion", occlusion, version="1"))
    assert torch.equal(explanation.relevance, occlusion(model, x, torch.full((3,), 2)))
    torch.testing.assert_close(explanation.checks["sum"], explanation.relevance.flatten(1).sum(1))
    assert describe(Function("occlusion", occlusion, "1")) == {"name": "occlusion", "version": "1"}
    with pytest.raises(BadInput, match=r"shape \(3,\)"):
        explain(model, x, 2, Function("wrong", lambda model, inputs, targets: inputs[:, 0, 0, 0]))
    with pytest.raises(BadInput, match="NaN or infinity for 3 samples"):
        explain(model, x, 2, Function("wrong", lambda model, inputs, targets: inputs / 0))
    with pytest.raises(BadInput, match="inputs only"):
        explain(model, x, 2, Function("occlusion", occlusion), layers=["3"])


def test_a_function_or_model_that_writes_into_its_inputs_harms_nobody():
    class Shifted(nn.Module):
        def forward(self, x):
            return x.sub_(1).sum((2, 3))

    def given_then_zeroed(model, inputs, targets):
        seen = inputs.clone()
        inputs.zero_()
        return seen

    x = images()
    before = x.clone()
    for _ in range(2):
        assert torch.equal(attribute(Shifted().eval(), x, 1, given_then_zeroed), before)
    assert torch.equal(x, before)


CAPTUM = {
    "IntegratedGradients": {"n_steps": 64},
    "Occlusion": {"sliding_window_shapes": (2, 4, 4), "strides": (2, 4, 4)},
    "GradientShap": {"baselines": torch.zeros(4, 2, 8, 8, dtype=torch.float64), "n_samples": 8},
    "Saliency": {"abs": False},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CAPTUM)
def test_captums_attributors_come_through_the_same_door(name):
    pytest.importorskip("captum", reason="pip install 'spray-audit[captum]'")
    model, x = small_cnn(), images()
    explanation = explain(model, x, 2, Captum(name, CAPTUM[name]))
    assert torch.equal(explain(model, x, 2, Captum(name, CAPTUM[name])).relevance, explanation.relevance)
    assert explanation.relevance.shape == x.shape
    assert not explanation.relevance.requires_grad
    drop = explanation.logits[:, 2] - model(torch.zeros_like(x))[:, 2].detach()
    if name == "Saliency":
        torch.testing.assert_close(explanation.relevance, attribute(model, x, 2, "gradient"))
    elif name == "Occlusion":  # every window's own drop, which need not add up
        without = x.clone()
        without[:, :, :4, :4] = 0
        expected = explanation.logits[:, 2] - model(without)[:, 2].detach()
        torch.testing.assert_close(explanation.relevance[:, 0, 0, 0].double(), expected, rtol=1e-6, atol=1e-6)
    else:  # completeness: Σ R is the difference to the baseline
        tolerance = 0.05 if name == "IntegratedGradients" else 0.5
        torch.testing.assert_close(explanation.checks["sum"], drop, rtol=tolerance, atol=0.05)


def test_settings_that_are_tensors_stand_in_provenance_by_shape_type_and_digest():
    def recorded(baselines):
        return describe(Captum("GradientShap", {"baselines": baselines}))["settings"]["baselines"]

    zeros = torch.zeros(2, 1, 64)
    assert recorded(zeros)["shape"] == [2, 1, 64] and recorded(zeros)["dtype"] == "float32"
    same = (
        zeros.clone().requires_grad_(),
        zeros.numpy(),
        zeros.mT.contiguous().mT,
        zeros.numpy().astype(">f4"),
    )
    assert all(recorded(each) == recorded(zeros) for each in same)
    others = (zeros + 1, zeros.double(), zeros[:1], torch.cat([zeros[:1], zeros[1:] - 0.5]))
    assert len({canonical_json(recorded(each)) for each in (zeros, *others)}) == 5
    with pytest.raises(TypeError, match="array of object"):
        recorded(np.array([object()]))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("as_array", [True, False])
def test_baselines_come_to_the_inputs_precision_and_device(as_array):
    pytest.importorskip("captum", reason="pip install 'spray-audit[captum]'")
    model, x = small_cnn(), images()
    baselines = torch.zeros(4, 2, 8, 8, dtype=torch.float32)
    single = Captum(
        "GradientShap", {"baselines": baselines.numpy() if as_array else baselines, "n_samples": 3}
    )
    double = Captum("GradientShap", {"baselines": baselines.double(), "n_samples": 3})
    assert torch.equal(attribute(model, x, 2, single), attribute(model, x, 2, double))


def test_captum_is_an_optional_extra():
    model, x = small_cnn(), images()
    method = Captum("IntegratedGradients", {"n_steps": 8})
    assert describe(method) == {
        "name": "captum.IntegratedGradients",
        "attributor": "IntegratedGradients",
        "settings": {"n_steps": 8},
        "seed": 0,
    }
    if importlib.util.find_spec("captum") is None:
        with pytest.raises(AttributionError, match=r"spray-audit\[captum\]"):
            attribute(model, x, 0, method)
    else:
        assert attribute(model, x, 0, method).shape == x.shape
        with pytest.raises(AttributionError, match="no attributor"):
            attribute(model, x, 0, Captum("Nothing"))
