"""Every classification family of torchvision: relevance is conserved, and equals a plain second writing.

Random networks have logits of 1e-14, where ε takes everything; so each is calibrated first: zero biases, BatchNorm
with mean 0 and variance E[x²] of a batch, heads that start at zero drawn anew, logits of about 1.

The second writing uses no code of the engine: modules are exchanged for surrogates in which whatever a rule holds
constant is detached, so that plain gradient × input of the surrogate is the relevance.
"""

import copy

import pytest
import torch
import torchvision.models as tv
from torch import nn
from torch.nn import functional as F
from torchvision.models.maxvit import MaxVit
from torchvision.ops import SqueezeExcitation

from spray.engine import explain
from spray.engine.composites import Composite
from spray.engine.rules import Zero, ZPlus


def small_maxvit():
    return MaxVit((64, 64), stem_channels=16, partition_size=4, block_channels=[16, 32], block_layers=[1, 1],
                  head_dim=8, stochastic_depth_prob=0.0)  # fmt: skip


def features(*numbers):
    return tuple(f"features.{number}" for number in numbers)


RESNET = ("relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
QUICK = {
    "alexnet": (tv.alexnet, 64, (*features(2, 5, 12), "avgpool", "classifier.5")),
    "vgg": (tv.vgg11, 32, (*features(2, 5, 10, 15, 20), "classifier.4")),
    "vgg_bn": (tv.vgg11_bn, 32, (*features(3, 7, 14, 21, 28), "classifier.4")),
    "resnet": (tv.resnet18, 64, RESNET[1:]),
    "resnext": (tv.resnext50_32x4d, 32, RESNET[1:]),
    "squeezenet": (tv.squeezenet1_1, 64, features(2, 5, 8, 12)),
    "densenet": (
        tv.densenet121,
        32,
        features("pool0", "denseblock1", "transition1", "transition2", "denseblock4"),
    ),
    "googlenet": (
        lambda: tv.googlenet(init_weights=True),
        64,
        ("maxpool1", "maxpool2", "maxpool3", "inception5b"),
    ),
    "mobilenet_v2": (tv.mobilenet_v2, 64, features(0, 3, 6, 10, 13, 17, 18)),
    "mobilenet_v3": (tv.mobilenet_v3_small, 64, features(0, 1, 3, 8, 11, 12)),
    "mnasnet": (tv.mnasnet0_5, 64, ("layers.2", "layers.8", "layers.9", "layers.11", "layers.16")),
    "shufflenet": (tv.shufflenet_v2_x0_5, 64, ("maxpool", "stage2", "stage3", "stage4", "conv5")),
    "efficientnet": (tv.efficientnet_b0, 64, features(*range(9))),
    "regnet": (tv.regnet_y_400mf, 64, ("stem", "trunk_output.block1", "trunk_output.block3", "trunk_output")),
    "convnext": (tv.convnext_tiny, 64, features(*range(8))),
    "vit": (lambda: tv.vit_b_16(image_size=32), 32, ("encoder.layers.encoder_layer_3", "encoder.ln")),
    "swin": (tv.swin_t, 64, features(*range(8))),
    "swin_v2": (tv.swin_v2_t, 64, features(*range(8))),
    "maxvit": (small_maxvit, 64, ("stem", "blocks.0", "blocks.1")),
}
SLOW = {
    "wide_resnet": (tv.wide_resnet50_2, 64, RESNET[1:]),
    "inception_v3": (
        lambda: tv.inception_v3(init_weights=True),
        96,
        ("maxpool1", "Mixed_5b", "Mixed_6a", "Mixed_7c"),
    ),
    "efficientnet_v2": (tv.efficientnet_v2_s, 64, features(*range(8))),
    "maxvit, full size": (tv.maxvit_t, 224, ("stem", "blocks.0", "blocks.3")),
}
FAMILIES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def calibrated(name):
    """A model of the family in float64 with its input, calibrated as described above."""
    build, size, boundaries = (QUICK | SLOW)[name]
    torch.manual_seed(0)
    model = build().double().eval()
    x = torch.randn(2, 3, size, size, dtype=torch.float64).clamp(-3, 3)
    handles = []
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if key.endswith("bias"):
                nn.init.zeros_(parameter)
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            handles.append(module.register_forward_pre_hook(_use_batch))
    with torch.no_grad():
        logits = model(x)
        head = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        if "squeezenet" in name:
            head = model.classifier[1]
        head.weight /= logits.abs().amax()
        for handle in handles:
            handle.remove()
        assert model(x).abs().amax(1).min() > 0.1
    return model, x, boundaries


def _use_batch(module, inputs):
    x = inputs[0]
    module.running_mean.zero_()
    module.running_var.copy_(x.square().mean([d for d in range(x.ndim) if d != 1]))


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "recommended"])
@pytest.mark.parametrize("name", FAMILIES)
def test_relevance_is_conserved_at_the_input_and_at_every_stage(name, composite):
    model, x, boundaries = calibrated(name)
    if composite == "recommended":
        composite = "cp_lrp" if name in ("vit", "swin", "swin_v2") else "epsilon_gamma_box"
    explanation = explain(model, x, model(x).argmax(1), composite, layers=boundaries)
    start, checks = explanation.checks["start"], explanation.checks
    within = 0.01 * start.abs()
    assert (abs(checks["sum"] + checks["tokens"] + checks["absorbed"] - start) <= within).all()
    assert (abs(checks["absorbed"]) <= within).all()
    assert (checks["tokens"] != 0).any() == (name == "vit")
    for boundary, relevance in explanation.layers.items():
        assert (abs(relevance.flatten(1).sum(1) - start) <= within).all(), boundary


@pytest.mark.parametrize("name", FAMILIES)
def test_relevance_equals_a_plain_second_writing(name, monkeypatch):
    model, x, _ = calibrated(name)
    targets = model(x).argmax(1)
    tight = Composite("tight", convolution=ZPlus(epsilon=1e-12), linear=Zero())
    got = explain(model, x, targets, tight).relevance
    monkeypatch.setattr(F, "softmax", lambda x, dim=-1, **_: x.softmax(dim).detach())
    monkeypatch.setattr(
        F, "normalize", lambda x, dim=-1: x / x.norm(dim=dim, keepdim=True).clamp_min(1e-12).detach()
    )
    leaf = x.clone().requires_grad_()
    plain = surrogate(model)(leaf)
    torch.testing.assert_close(plain, model(x))
    (gradient,) = torch.autograd.grad(plain.gather(1, targets[:, None]).sum(), leaf)
    expected = leaf.detach() * gradient
    assert float((got - expected).norm() / expected.norm()) < 1e-6


# -- the second writing -------------------------------------------------------------------------------------------


def surrogate(model):
    """A copy of the model whose gradient × input is its relevance under z⁺ (convolutions) and LRP-0 (the rest)."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            for kind, replacement in SURROGATES.items():
                if isinstance(child, kind):
                    setattr(module, name, replacement(child))
                    break
    return model


class Surrogate(nn.Module):
    def __init__(self, original):
        super().__init__()
        object.__setattr__(self, "original", original)
        self.eval()

    def __getattr__(self, name):
        return getattr(self.original, name)


class PlusConvolution(Surrogate):
    def forward(self, x):
        layer = self.original
        p = layer._conv_forward(x.clamp(min=0), layer.weight.clamp(min=0), None)
        p = p + layer._conv_forward(x.clamp(max=0), layer.weight.clamp(max=0), None)
        q = layer._conv_forward(x.clamp(min=0), layer.weight.clamp(max=0), None)
        q = q + layer._conv_forward(x.clamp(max=0), layer.weight.clamp(min=0), None)
        share = torch.where(p > 0, p, q)
        held = share.detach()
        return layer(x).detach() * torch.where(held == 0, 0, share / torch.where(held == 0, 1, held))


class Ratio(Surrogate):
    def forward(self, x):
        held = x.detach()
        return x * torch.where(held == 0, 0, self.original(held.clone()) / torch.where(held == 0, 1, held))


class Standardised(Surrogate):
    def forward(self, x):
        layer = self.original
        channels_first = type(layer).__name__ == "LayerNorm2d"
        x = x.movedim(1, -1) if channels_first else x
        centred = x - x.mean(-1, keepdim=True)
        sigma = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt().detach()
        out = centred / sigma * layer.weight + layer.bias
        return out.movedim(-1, 1) if channels_first else out


class HeldGate(Surrogate):
    def forward(self, x):
        return x * self.original._scale(x).detach()


class HeldAttention(Surrogate):
    def forward(self, query, key, value, need_weights=False):
        layer = self.original
        q, k, v = (
            (query @ W.T + b).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
            for W, b in zip(layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True)
        )
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1).detach()
        out = (weights @ v).transpose(1, 2).flatten(2)
        return out @ layer.out_proj.weight.T + layer.out_proj.bias, None


SURROGATES = {
    nn.Conv2d: PlusConvolution,
    nn.SiLU | nn.GELU | nn.Hardswish | nn.ReLU6 | nn.Tanh: Ratio,
    nn.LayerNorm: Standardised,
    SqueezeExcitation: HeldGate,
    nn.MultiheadAttention: HeldAttention,
}
