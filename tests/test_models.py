"""Models by name and state dict; nothing but tensors is ever read from a file."""

import io
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from audit_tools import tiny_model
from torch import nn

from spray.loading import SpecError
from spray.models import answers_apart, load_model, model_digest


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(
        "from torch import nn\n"
        "def load(): return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))\n"
        "def output(): return [1, 2]\n"
    )
    return path


def saved(content, path):
    torch.save(content, path)
    return path


def test_a_model_of_a_file_with_weights_in_evaluation_mode(file, tmp_path):
    twin = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model = load_model(f"{file}:load", saved(twin.state_dict(), tmp_path / "w.pt"))
    assert not model.training
    assert not model[1].training
    assert model_digest(model) == model_digest(twin)


# One of each way to end: the last matrix must be the classifier's, also where auxiliary heads have their own.
FAMILIES = [
    ("squeezenet1_1", {}),
    ("mobilenet_v3_small", {}),
    ("shufflenet_v2_x0_5", {}),
    ("mnasnet0_5", {}),
    ("resnet18", {}),
    ("googlenet", {"aux_logits": True, "init_weights": False}),
    ("googlenet", {"aux_logits": False, "init_weights": False}),
    ("inception_v3", {"aux_logits": True, "init_weights": False}),
]


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_a_state_dict_tells_the_number_of_classes_of_a_torchvision_model(name, options, tmp_path):
    there = torchvision.models.get_model(name, weights=None, num_classes=7, **options).eval()
    model = load_model(f"torchvision:{name}", saved(there.state_dict(), tmp_path / "w.pt"))
    assert model_digest(model) == model_digest(there)
    images = torch.rand(1, 3, 80, 80)
    with torch.no_grad():
        assert model(images).shape == (1, 7)
        assert torch.equal(model(images), there(images))


@pytest.mark.parametrize(
    "name", ["vgg11", "vit_b_32", "swin_t", "convnext_tiny", "densenet121", "efficientnet_b0"]
)
def test_larger_families_end_in_their_classifier_too(name):
    from spray.models import _options

    with torch.device("meta"):
        state = torchvision.models.get_model(name, weights=None, num_classes=7).state_dict()
    assert _options(name, state) == {"num_classes": 7}


def test_without_a_state_dict_a_torchvision_model_has_torchvisions_weights(monkeypatch):
    asked = []

    def get_model(name, weights):
        asked.append((name, weights))
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    with pytest.raises(SpecError, match=r"no route to host.*--weights FILE.pt"):
        load_model("torchvision:resnet18")
    assert asked == [("resnet18", "DEFAULT")]


class Trap:
    """Unpickling it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_file_with_code_is_refused_and_not_run(file, tmp_path):
    for name, write in (
        ("torch.pt", torch.save),
        ("plain.pt", lambda content, path: path.write_bytes(pickle.dumps(content, 2))),
    ):
        write({"0.weight": Trap(tmp_path / "sprung")}, tmp_path / name)
        with pytest.raises(SpecError, match="holds more than tensors, which is never run"):
            load_model(f"{file}:load", tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_mistakes_are_named_with_the_way_out(file, tmp_path):
    spec, state = f"{file}:load", load_model(f"{file}:load").state_dict()
    whole = io.BytesIO()
    torch.save(state, whole)
    (tmp_path / "torn.pt").write_bytes(whole.getvalue()[:100])
    (tmp_path / "empty.pt").touch()
    for chosen, weights, words in (
        (spec, tmp_path / "absent.pt", "There are no weights at .*absent.pt"),
        (spec, tmp_path / "torn.pt", "cannot be read as a state dict"),
        (spec, tmp_path / "empty.pt", "cannot be read as a state dict"),
        (spec, saved([1, 2], tmp_path / "list.pt"), "holds list; expected a state dict"),
        (
            spec,
            saved({"epoch": 3, "model": state}, tmp_path / "c.pt"),
            "a dict of epoch, model; .*checkpoint",
        ),
        (spec, saved({"0.weight": torch.zeros(2, 2)}, tmp_path / "other.pt"), "do not fit the model"),
        (f"{file}:output", None, "returned list; expected a torch.nn.Module"),
        ("torchvision:resnet81", None, "no classifier 'resnet81'. Near names: resnet"),
        ("torchvision:fcn_resnet50", None, "no classifier"),
        ("resnet18", None, "expected FILE.py:FUNCTION"),
    ):
        with pytest.raises(SpecError, match=words):
            load_model(chosen, weights)


def test_the_digest_sees_every_weight_buffer_and_the_kind_of_model():
    model = nn.Sequential(*tiny_model(), nn.BatchNorm1d(3)).eval()
    digests = {model_digest(model)}
    with torch.no_grad():
        weight = model[3].weight
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
        digests.add(model_digest(model))
        model[-1].running_mean[1] += 1
        digests.add(model_digest(model))
    digests.add(model_digest(nn.ModuleList(model)))
    digests.add(model_digest(model.double()))
    assert len(digests) == 5
    assert model_digest(tiny_model()) == model_digest(tiny_model())


def test_answers_are_compared_row_by_row_with_stored_ones():
    inputs = torch.tensor([[3.0, 4.0], [0.1, 0.0]])
    stored = inputs.numpy() + np.array([[0.0, 0.5], [0.02, 0.0]], "f4")
    assert answers_apart(nn.Identity(), inputs, stored) == pytest.approx(0.5 / np.hypot(3, 4.5))
    assert answers_apart(nn.Identity(), inputs, inputs.numpy()) == 0
    assert answers_apart(nn.Identity(), inputs, stored[:, :1]) == np.inf
    assert np.isnan(answers_apart(nn.Identity(), inputs * torch.nan, stored))


def test_answers_are_asked_for_one_at_a_time():
    class One(nn.Identity):
        def forward(self, inputs):
            assert len(inputs) == 1
            return inputs

    inputs = torch.rand(5, 3)
    assert answers_apart(One(), inputs, inputs.numpy()) == 0
