"""Inputs that are not images: signals, token sequences, volumes."""

import pytest
import torch
from torch import nn

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
