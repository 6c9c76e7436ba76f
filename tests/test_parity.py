"""Parity with zennit in float64, on models without one-sided outputs, and who is right where the two differ.

Parity settings: zennit's stabilisers are as small as ours in every rule (it stabilises flat, w², norm and residual
sums too, ours have no need to), and it works on a copy, since it changes the model.
"""

import copy

import pytest
import torch
import torchvision.models as tv
from torch import nn

from spray.engine import attribute, explain
from spray.engine.composites import Composite
from spray.engine.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare, ZPlus

zennit = pytest.importorskip("zennit")

from zennit import composites as peer  # noqa: E402
from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.rules import AlphaBeta as PeerAlphaBeta  # noqa: E402
from zennit.rules import Epsilon as PeerEpsilon  # noqa: E402
from zennit.rules import WSquare as PeerWSquare  # noqa: E402
from zennit.torchvision import ResNetCanonizer, VGGCanonizer  # noqa: E402

EPSILON = 1e-12
OURS = {
    "epsilon_plus": Composite("p", ZPlus(EPSILON), Epsilon(EPSILON)),
    "epsilon_plus_flat": Composite("pf", ZPlus(EPSILON), Epsilon(EPSILON), first=Flat()),
    "epsilon_alpha2_beta1": Composite("ab", AlphaBeta(epsilon=EPSILON, one_sided=False), Epsilon(EPSILON)),
    "epsilon_gamma_box": Composite(
        "gb", Gamma(epsilon=EPSILON), Epsilon(EPSILON), first=Box(-3.0, 3.0, EPSILON)
    ),
}
THEIRS = {
    "epsilon_plus": peer.EpsilonPlus,
    "epsilon_plus_flat": peer.EpsilonPlusFlat,
    "epsilon_alpha2_beta1": peer.EpsilonAlpha2Beta1,
    "epsilon_gamma_box": lambda **settings: peer.EpsilonGammaBox(low=-3.0, high=3.0, **settings),
}
MODELS = {
    "alexnet": (tv.alexnet, 64, None),
    "vgg11": (tv.vgg11, 32, VGGCanonizer),
    "vgg11_bn": (tv.vgg11_bn, 32, VGGCanonizer),
    "resnet18": (tv.resnet18, 32, ResNetCanonizer),
    "squeezenet": (tv.squeezenet1_1, 32, None),
    "resnet50": (tv.resnet50, 32, ResNetCanonizer),
    "vgg16": (tv.vgg16, 32, VGGCanonizer),
}


def randomised(build, size, seed=0):
    """A model in float64 whose biases and normalisations do something, and images for it."""
    torch.manual_seed(seed)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.02)
    return model, torch.randn(2, 3, size, size, dtype=torch.float64).clamp(-3, 3)


def by_zennit(model, x, target, composite, classes):
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(
            module, nn.BatchNorm2d
        ):  # the same function, without the eps zennit leaves behind when folding
            module.running_var += module.eps
            module.eps = 0.0
    start = torch.eye(classes, dtype=x.dtype)[[target] * len(x)]
    with torch.no_grad():
        start = start * model(x)
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, start)[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("composite", OURS)
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("vgg11_bn", "resnet18", "squeezenet") else pytest.param(name, marks=pytest.mark.slow)
        for name in MODELS
    ],
)
def test_maps_equal_those_of_zennit(name, composite):
    build, size, canonizer = MODELS[name]
    model, x = randomised(build, size)
    canonizers = [canonizer()] if canonizer else []
    settings = THEIRS[composite](epsilon=EPSILON, stabilizer=EPSILON, canonizers=canonizers)
    theirs = by_zennit(model, x, 7, settings, 1000)
    ours = attribute(model, x, 7, OURS[composite])
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-9


def test_zennit_doubles_one_sided_outputs_under_alpha_beta_and_ours_conserves():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        model[2].weight.fill_(1.0)
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    rules = [(nn.Conv2d, PeerAlphaBeta(2, 1)), (nn.Linear, PeerEpsilon())]
    theirs = by_zennit(model, x, 0, peer.LayerMapComposite(rules), 1)
    checks = explain(model, x, 0, Composite("ab", AlphaBeta())).checks
    assert theirs.sum().item() / checks["start"].item() == pytest.approx(2.0, rel=1e-4)
    assert checks["sum"].item() / checks["start"].item() == pytest.approx(1.0, rel=1e-4)


def test_zennit_gives_relevance_to_the_bias_under_w_square_and_ours_conserves():
    model = nn.Sequential(nn.Linear(3, 1)).double()
    x = torch.randn(1, 3, dtype=torch.float64)
    theirs = by_zennit(model, x, 0, peer.LayerMapComposite([(nn.Linear, PeerWSquare(1e-12))]), 1)
    ours = {bias: attribute(model, x, 0, Composite("w", linear=WSquare(bias))) for bias in (True, False)}
    torch.testing.assert_close(ours[True], theirs, rtol=1e-9, atol=0)
    logit = model(x).sum().detach()
    torch.testing.assert_close(ours[False].sum(), logit)
    assert abs(theirs.sum().item()) < 0.99 * abs(logit.item())


@pytest.mark.filterwarnings("ignore")
def test_zennit_leaves_eps_in_a_folded_batch_norm_and_ours_is_exact():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.1), nn.Flatten(), nn.Linear(8, 1)
    ).double()
    model.eval()
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    changed = copy.deepcopy(model)
    instances = SequentialMergeBatchNorm().apply(changed)
    assert instances
    with torch.no_grad():
        logit, theirs = model(x).item(), changed(x).item()
    assert abs(theirs - logit) > 1e-3 * abs(logit)
    explanation = explain(model, x, 0, "epsilon_plus")
    assert explanation.logits.item() == pytest.approx(logit, rel=1e-12)
    assert abs(explanation.checks["unaccounted"].item()) < 1e-12
