"""Pooling conserves relevance for every size and layout, and puts it where it belongs."""

import pytest
import torch

from spray.attribution.pooling import MapLayout, pooling_matrix


def plainly_pooled(values, cells):
    """One axis, pixel by pixel: pixel i covers [i, i + 1), cell j covers [j, j + 1) · size / cells."""
    size = len(values)
    pooled = [0.0] * cells
    for pixel, value in enumerate(values.tolist()):
        for cell in range(cells):
            low, high = cell * size / cells, (cell + 1) * size / cells
            pooled[cell] += value * max(0.0, min(pixel + 1, high) - max(pixel, low))
    return torch.tensor(pooled)


@pytest.mark.parametrize(("size", "cells"), [(28, 14), (29, 14), (31, 28), (7, 5), (5, 1), (224, 28)])
def test_the_matrix_against_a_plain_writing(size, cells):
    torch.manual_seed(size)
    values = torch.randn(size)
    torch.testing.assert_close(
        pooling_matrix(size, cells) @ values, plainly_pooled(values, cells), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(pooling_matrix(size, cells).sum(0), torch.ones(size))


@pytest.mark.parametrize(
    ("shape", "axis", "pooled"),
    [
        ((2, 3, 28, 28), 1, (2, 7, 7)),
        ((2, 3, 29, 17), 1, (2, 7, 7)),
        ((2, 3, 5, 40), 1, (2, 5, 7)),
        ((2, 6, 9, 3), -1, (2, 6, 7)),
        ((2, 3, 101), 1, (2, 7)),
        ((2, 50, 3), -1, (2, 7)),
        ((2, 3, 9, 8, 4), 1, (2, 7, 7, 4)),
        ((2, 13), 1, (2, 13)),
    ],
    ids=["square", "odd", "long", "channels last", "signal", "tokens", "volume", "vector"],
)
def test_relevance_is_conserved(shape, axis, pooled):
    torch.manual_seed(0)
    relevance = torch.randn(shape)
    layout = MapLayout(axis)
    places, channels = layout.by_place(relevance, 7), layout.by_channel(relevance)
    total = relevance.flatten(1).sum(1)
    assert places.shape == pooled
    assert channels.shape == (2, shape[axis])
    torch.testing.assert_close(places.flatten(1).sum(1), total, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(channels.sum(1), total, rtol=1e-4, atol=1e-4)


def test_small_maps_are_not_enlarged_and_places_stay_where_they_are():
    relevance = torch.zeros(1, 2, 8, 6)
    relevance[0, 1, 7, 0] = 3.0
    assert torch.equal(MapLayout().by_place(relevance, 28), relevance.sum(1))
    pooled = MapLayout().by_place(relevance, 4)
    assert pooled.shape == (1, 4, 4)
    assert pooled[0, 3, 0] == 3.0
    assert pooled.count_nonzero() == 1
