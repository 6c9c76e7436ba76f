"""Samples along another dimension than the first: maps and books of the same model written with samples first."""

import pytest
import torch
from torch import nn

from spray.engine import UnsupportedOperation, explain
from spray.engine.composites import Composite
from spray.engine.rules import Epsilon

RELATIVE = Composite("relative", linear=Epsilon(0.5, relative=True))


def assert_the_same(got, expected):
    torch.testing.assert_close(got.logits, expected.logits)
    torch.testing.assert_close(got.relevance, expected.relevance)
    torch.testing.assert_close(got.checks, expected.checks)


class Places(nn.Module):
    """A network over places that brings them first by ``there``, and takes the mean over dimension ``dim``."""

    def __init__(self, there, dim, norm=None):
        super().__init__()
        torch.manual_seed(0)
        self.there, self.dim, self.norm = there, dim, norm or nn.LayerNorm(6)
        self.layer, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        nn.init.normal_(self.norm.bias)
        self.double().eval()

    def forward(self, x):
        h = self.norm(torch.relu(self.layer(self.there(x)) + torch.arange(6.0, dtype=x.dtype)))
        return self.head(h.mean(self.dim))


FIRST = {
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(1, 0, 2),
    "movedim": lambda x: torch.movedim(x, 1, 0),
    "stack": lambda x: torch.stack([x[:, 0], x[:, 1], x[:, 2], x[:, 3]]),
    "stack of unbound": lambda x: torch.stack(x.unbind(1)),
    "permute of more": lambda x: x.reshape(-1, 2, 2, 5).permute(1, 2, 0, 3).reshape(4, -1, 5),
    "einsum": lambda x: torch.einsum("nlc->lnc", x),
    "and back, and again": lambda x: x.transpose(0, 1).transpose(0, 1).transpose(0, 1),
    "taken from a pair": lambda x: torch.stack([x, 2 * x]).permute(0, 2, 1, 3)[0],
}


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        (name, composite)
        for name in FIRST
        for composite in ("lrp_epsilon", "epsilon_plus_flat", RELATIVE)
        if (name, composite) != ("einsum", "epsilon_plus_flat")  # which cannot carry relevance
    ],
)
@pytest.mark.parametrize("samples", [3, 4, 1])
def test_places_first_have_the_maps_and_books_of_samples_first(name, composite, samples):
    x = torch.randn(samples, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = explain(Places(lambda x: x, 1), x, 1, composite)
    assert_the_same(explain(Places(FIRST[name], 0), x, 1, composite), expected)


@pytest.mark.parametrize("samples", [4, 5])  # as many as tokens, too
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("composite", ["cp_lrp", "attn_lrp"])
def test_a_transformer_encoder_has_the_same_books_by_default_as_batch_first(norm_first, composite, samples):
    torch.manual_seed(0)
    default, first = (
        nn.TransformerEncoderLayer(8, 2, 16, norm_first=norm_first, batch_first=batch_first)
        for batch_first in (False, True)
    )
    first.load_state_dict(default.state_dict())
    head = nn.Linear(8, 3)

    class Default(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = default, head

        def forward(self, x):
            return self.head(self.encoder(x.transpose(0, 1)).mean(0))

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = first, head

        def forward(self, x):
            return self.head(self.encoder(x).mean(1))

    x = torch.randn(samples, 5, 8, dtype=torch.float64)
    got, expected = (explain(model().double().eval(), x, 1, composite) for model in (Default, First))
    assert_the_same(got, expected)


class Rows(Places):
    """All places of all samples as rows of one matrix, those of one sample apart from each other."""

    def forward(self, x):
        rows = self.layer(self.there(x).reshape(-1, 5))
        return self.head(rows.reshape(4, -1, 6).mean(0))


def test_samples_that_cannot_be_told_apart_are_refused_with_the_way_out():
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    model = Rows(FIRST["transpose"], 0)
    with pytest.raises(UnsupportedOperation, match=r"dimension of the samples.*batch_first=True"):
        explain(model, x, 0, "lrp_epsilon")
    alone = explain(model, x[:1], 0, "lrp_epsilon").checks["unaccounted"]
    torch.testing.assert_close(alone, torch.zeros(1, dtype=torch.float64))


def test_places_first_are_refused_where_a_layer_needs_samples_first():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(3, 2, 1)

        def forward(self, x):
            return self.layer(x.transpose(0, 1)).transpose(0, 1).flatten(1)

    x = torch.randn(3, 4, 5, dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match=r"conv1d.*dimension of the samples in its input is 1"):
        explain(Turned().double().eval(), x, 0, "lrp_epsilon")


class Laid(nn.Module):
    """A network that lays x along the last dimensions of something of more of them, then takes its mean."""

    def __init__(self, laid, dim):
        super().__init__()
        torch.manual_seed(0)
        self.laid, self.dim = laid, dim
        self.layer, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.double().eval()

    def forward(self, x):
        return self.head(torch.relu(self.layer(self.laid(x))).mean(self.dim))


K = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
LAID_FIRST = {
    "times a constant": (lambda x: x * K.view(4, 1, 1), lambda x: x[:, None] * K.view(4, 1)),
    "by a constant": (lambda x: x / K.view(4, 1, 1), lambda x: x[:, None] / K.view(4, 1)),
    "plus a constant": (lambda x: K.view(4, 1, 1) + x, lambda x: K.view(4, 1) + x[:, None]),
    "where": (
        lambda x: torch.where((K > 0.7).view(4, 1, 1), x, 0.0),
        lambda x: torch.where((K > 0.7).view(4, 1), x[:, None], 0.0),
    ),
    "expand": (lambda x: x.expand(4, *x.shape), lambda x: x[:, None].expand(-1, 4, -1)),
    "broadcast_to": (
        lambda x: torch.broadcast_to(x, (4, *x.shape)),
        lambda x: torch.broadcast_to(x[:, None], (len(x), 4, 5)),
    ),
}


@pytest.mark.parametrize("composite", ["lrp_epsilon", "epsilon_plus", RELATIVE])
@pytest.mark.parametrize("name", LAID_FIRST)
@pytest.mark.parametrize("samples", [3, 4, 1])
def test_a_constant_of_more_dimensions_moves_the_samples_behind_its_own(name, composite, samples):
    behind, first = LAID_FIRST[name]
    x = torch.randn(samples, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_the_same(
        explain(Laid(behind, 0), x, 1, composite),
        explain(Laid(first, 1), x, 1, composite),
    )


def test_samples_laid_along_places_of_as_many_are_refused():
    class Crossed(Laid):
        def forward(self, x):
            places = self.layer(x)[:, None].expand(-1, len(x), -1)
            return self.head((places + self.layer(x)).mean(1))

    x = torch.randn(4, 5, dtype=torch.float64)
    model = Crossed(None, 0)
    with pytest.raises(UnsupportedOperation, match="dimension of the samples"):
        explain(model, x, 1, RELATIVE)
    assert explain(model, x[:1], 1, RELATIVE).relevance.shape == (1, 5)
