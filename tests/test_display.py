"""Inputs as pictures: the inverse of the normalisation, one scale for the whole data set."""

import numpy as np
import pytest
import torch

from spray.attribution.display import Display
from spray.engine.errors import BadInput


def test_the_inverse_of_a_normalisation():
    picture = torch.rand(4, 3, 6, 6)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    inputs = (picture - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    shown = Display.of(inputs, mean, std).pictures(inputs, 64)
    expected = (picture * 255).round().permute(0, 2, 3, 1).numpy()
    assert shown.dtype == np.uint8
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_dark_stays_dark_beside_bright():
    inputs = torch.stack(
        [torch.full((1, 4, 4), -2.0), torch.full((1, 4, 4), -1.9), torch.full((1, 4, 4), 2.0)]
    )
    dark, less_dark, bright = Display.of(inputs, None, None).pictures(inputs, 4)[:, 0, 0, 0]
    assert (dark, bright) == (0, 255)
    assert less_dark < 10


def test_values_between_0_and_1_are_left_alone():
    inputs = torch.full((2, 1, 3, 3), 0.25)
    assert (Display.of(inputs, None, None).pictures(inputs, 3) == 64).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 40, 20), (8, 4, 1)), ((3, 5, 100), (1, 8, 3)), ((4, 6, 6), (6, 6, 3)), ((2, 8, 8), (8, 8, 1))],
)
def test_sizes_and_channels(shape, size):
    inputs = torch.rand(2, *shape)
    assert Display.of(inputs, None, None).pictures(inputs, 8).shape == (2, *size)


def test_shrinking_averages_so_that_a_fine_pattern_becomes_grey_and_not_moiré():
    checker = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    shown = Display((1.0,), (0.0,)).pictures(checker.float()[None, None], 16)
    assert set(np.unique(shown)) <= {127, 128}


def test_what_is_not_finite_or_out_of_range_is_shown_at_the_ends():
    inputs = torch.tensor([float("nan"), float("inf"), -float("inf"), 2.0, -1.0, 1.0]).view(1, 1, 1, 6)
    assert Display((1.0,), (0.0,)).pictures(inputs, 6).ravel().tolist() == [0, 255, 0, 255, 0, 255]
    assert Display.of(inputs[:, :, :, :3], None, None) == Display((1.0,), (0.0,))


def test_a_constant_data_set_has_a_picture():
    inputs = torch.full((2, 1, 3, 3), 7.0)
    assert Display.of(inputs, None, None).pictures(inputs, 3).shape == (2, 3, 3, 1)


def test_a_normalisation_of_another_number_of_channels_is_refused():
    for mean, std in (((0.1, 0.2), (1.0, 1.0)), ((0.1,), (1.0, 1.0, 1.0))):
        with pytest.raises(BadInput, match="3 channels"):
            Display.of(torch.rand(1, 3, 4, 4), mean, std)
