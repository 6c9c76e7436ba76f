"""Inputs that are not images: signals, token sequences, volumes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spray.engine import BadInput, UnsupportedOperation, attribute, explain
from spray.engine.composites import Composite
from spray.engine.rules import Zero


class Sentences(nn.Module):
    """Tokens with learned positions, one layer of attention, and a linear head."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(11, 8), nn.Parameter(torch.randn(6, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.layer(self.words(tokens) + self.positions).mean(1))


def test_tokens_get_the_relevance_of_their_vectors():
    torch.manual_seed(0)
    model, tokens = Sentences().double().eval(), torch.randint(0, 11, (4, 6))
    explanation = explain(model, tokens, 1, "cp_lrp", layers=["words"])
    assert explanation.relevance.shape == (4, 6)
    torch.testing.assert_close(explanation.relevance, explanation.layers["words"].sum(-1))
    assert explanation.checks["unaccounted"].abs().max() < 1e-9
    assert (explanation.checks["tokens"] != 0).all()


def test_tokens_of_a_linear_model_get_their_exact_share():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2, bias=False)).double().eval()
    tokens = torch.tensor([[1, 2, 3, 3]])
    expected = (model[0](tokens) * model[2].weight[1].view(4, 3)).sum(-1).detach()
    torch.testing.assert_close(attribute(model, tokens, 1, "lrp_0"), expected)


TOKENS_MOVED = {
    "as they are": lambda words, t: words(t),
    "places first": lambda words, t: words(t.transpose(0, 1)).transpose(0, 1),
    "places first, by T": lambda words, t: words(t.T).transpose(0, 1),
    "cast, copied": lambda words, t: words(t.clone().long().contiguous()),
    "by keyword": lambda words, t: F.embedding(weight=words.weight, input=t),
    "an offset": lambda words, t: words((t + 1).remainder(11)),
    "bounded in place": lambda words, t: words(t.clamp_(max=8)),
    "turned round": lambda words, t: words(t.flip(1)).flip(1),
    "one by one": lambda words, t: torch.stack([words(t[:, i]) for i in range(4)], 1),
    "all in a row": lambda words, t: words(t.flatten()).unflatten(0, t.shape),
    "in two parts": lambda words, t: torch.cat([words(part) for part in t.split(2, 1)], 1),
}


class Moved(nn.Module):
    """Tokens looked up by a function, with a layer over each and a head over all of them."""

    def __init__(self, look_up):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.layer, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(32, 3)
        self.look_up = look_up
        self.double().eval()

    def forward(self, tokens):
        return self.head(torch.relu(self.layer(self.look_up(self.words, tokens))).flatten(1))


@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("name", TOKENS_MOVED)
def test_relevance_finds_back_to_tokens_that_a_model_moves(name, samples):
    tokens = torch.randint(1, 9, (samples, 4), generator=torch.Generator().manual_seed(2))
    before = tokens.clone()
    model = Moved(TOKENS_MOVED[name])
    vectors = model.look_up(model.words, tokens.clone()).detach()

    class Vectors(nn.Module):
        def forward(self, v):
            return model.head(torch.relu(model.layer(v)).flatten(1))

    expected = explain(Vectors().eval(), vectors, 1, "lrp_epsilon")
    got = explain(model, tokens, 1, "lrp_epsilon")
    torch.testing.assert_close(got.relevance, expected.relevance.sum(-1))
    for key, values in expected.checks.items():
        if key != "absolute":
            torch.testing.assert_close(got.checks[key], values)
    assert torch.equal(tokens, before)


def test_tokens_not_looked_up_and_twice_looked_up():
    class Some(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(11, 8), nn.Linear(24, 3, bias=False)

        def forward(self, tokens):
            return self.head(torch.cat([self.words(tokens[:, 1:]).flatten(1), self.words(tokens[:, 2])], 1))

    torch.manual_seed(0)
    model, tokens = Some().double().eval(), torch.randint(0, 11, (4, 3))
    relevance = attribute(model, tokens, 1, "lrp_0")
    vectors, weights = model.words(tokens), model.head.weight[1].view(3, 8)
    expected = torch.stack(
        [
            torch.zeros(4),
            (vectors[:, 1] * weights[0]).sum(1),
            (vectors[:, 2] * (weights[1] + weights[2])).sum(1),
        ],
        1,
    )
    torch.testing.assert_close(relevance, expected.double().detach())


def test_a_token_without_a_vector_is_told_with_its_rows():
    tokens = torch.tensor([[1, 2, 3, 4], [1, 11, 2, 3], [1, 1, 1, -2]])
    with pytest.raises(BadInput, match=r"token 11 has no vector in module 'words'.*0 to 10") as error:
        attribute(Moved(lambda words, t: words(t)), tokens, 0, "lrp_epsilon")
    assert error.value.rows == (1, 2)


def test_tokens_mixed_with_each_other_are_refused():
    pairs = Moved(lambda words, t: words((t + t.flip(1)).remainder(11)))
    with pytest.raises(UnsupportedOperation, match="which an embedding has to look up"):
        attribute(pairs, torch.arange(12).view(3, 4) % 11, 0, "lrp_epsilon")


def test_tokens_need_an_embedding_and_a_composite():
    class Counts(nn.Module):
        def forward(self, tokens):
            return tokens.double()

    with pytest.raises(UnsupportedOperation, match="which an embedding has to look up"):
        attribute(Counts(), torch.ones(2, 3, dtype=torch.int64), 0, "lrp_0")
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(BadInput, match="tokens"):
        attribute(model, torch.ones(1, 4, dtype=torch.int64), 0, "gradient")


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_gamma_box", "lrp_epsilon"])
@pytest.mark.parametrize(
    ("convolution", "pool", "shape"),
    [(nn.Conv1d, nn.MaxPool1d, (2, 32)), (nn.Conv3d, nn.AvgPool3d, (2, 8, 8, 8))],
)
def test_signals_and_volumes_are_explained_like_images(convolution, pool, shape, composite):
    torch.manual_seed(0)
    model = nn.Sequential(
        convolution(2, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        pool(2),
        convolution(4, 4, 3, padding=1, bias=False),
        nn.GELU(),
        nn.Flatten(),
        nn.LazyLinear(3, bias=False),
    ).double()
    x = torch.randn(3, *shape, dtype=torch.float64).clamp(-3, 3)
    model(x)
    explanation = explain(model.eval(), x, 1, composite)
    assert explanation.relevance.shape == x.shape
    torch.testing.assert_close(explanation.checks["sum"], explanation.logits[:, 1], rtol=1e-3, atol=1e-5)


def test_a_recurrent_layer_is_refused_by_name():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    with pytest.raises(UnsupportedOperation, match=r"lstm in module 'lstm' \(LSTM\): there is no rule"):
        attribute(Recurrent().eval(), torch.randn(2, 5, 4), 0, Composite("zero", Zero(), Zero()))
