"""Shared regions: found where members differ from the rest, compared, grouped, and scaled to pixels."""

import numpy as np
import pytest

from spray.findings.regions import TopRegion, describe_place, overlap, pixel_mask, unit_maps


def box(y: slice, x: slice, shape: tuple[int, int] = (28, 28)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y, x] = True
    return mask


def test_unit_maps_have_norm_one_and_zero_stays_zero() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    maps[1] = 0
    units = unit_maps(maps)
    norms = np.sqrt((units**2).sum((1, 2)))
    assert norms == pytest.approx([1, 0, 1])
    assert units[0] == pytest.approx(maps[0] / np.linalg.norm(maps[0]), abs=1e-7)


def test_shared_region_is_what_members_have_and_the_rest_lacks() -> None:
    rng = np.random.default_rng(1)
    common = rng.uniform(size=(28, 28))  # what the whole class has, strong but shared by the rest
    members = np.repeat(common[None], 30, 0)
    members[:, 1:4, 1:4] += 5
    rest = np.repeat(common[None], 50, 0)
    region = TopRegion(share=9 / 784, smooth=1).shared(members, rest)
    assert np.array_equal(region, box(slice(1, 4), slice(1, 4)))


def test_a_region_is_as_large_as_its_relevance_within_bounds() -> None:
    corner, line = np.zeros((28, 28)), np.zeros((28, 28))
    corner[1:4, 1:4] = 1
    line[2:26, 0] = 1
    small, long = TopRegion(smooth=1).of(corner), TopRegion(smooth=1).of(line)
    assert np.array_equal(small, corner > 0) and np.array_equal(long, line > 0)
    assert TopRegion(share=10 / 784, smooth=1).of(line).sum() == 10
    point = np.full((20, 20), 1e-3)
    point[3, 3] = 1
    assert TopRegion(least=0.02, smooth=1).of(point).sum() == 8
    assert TopRegion().of(np.ones((28, 28))).sum() == 78


def test_a_region_of_as_many_cells_as_asked() -> None:
    contrast = np.random.default_rng(2).normal(size=(20, 20))
    region = TopRegion(smooth=1).of(contrast, 40)
    assert region.sum() == 40 and contrast[region].min() > contrast[~region].max()


def test_only_positive_cells_are_relevant() -> None:
    assert not TopRegion().of(-np.ones((20, 20))).any()
    few = np.full((20, 20), -1.0)
    few[3, 3] = 1
    assert TopRegion(least=0.1, smooth=1).of(few).sum() == 1


def test_overlap() -> None:
    first, second = box(slice(0, 4), slice(0, 4)), box(slice(2, 6), slice(0, 4))
    assert overlap(first, second) == pytest.approx(8 / 24)
    assert overlap(first, first) == 1
    empty = np.zeros((28, 28), bool)
    assert overlap(empty, empty) == 0


def test_pixel_mask_repeats_cells() -> None:
    region = np.array([[True, False], [False, True]])
    assert np.array_equal(pixel_mask(region, 4, 6), np.kron(region, np.ones((2, 3), bool)))
    assert np.array_equal(pixel_mask(region, 2, 2), region)


@pytest.mark.parametrize(
    ("y", "x", "words"),
    [
        (slice(0, 3), slice(0, 3), "at the top left"),
        (slice(25, 28), slice(25, 28), "at the bottom right"),
        (slice(0, 3), slice(12, 16), "at the top"),
        (slice(12, 16), slice(12, 16), "at the centre"),
        (slice(0, 0), slice(0, 0), "nowhere"),
    ],
)
def test_places_in_words(y: slice, x: slice, words: str) -> None:
    assert describe_place(box(y, x)) == words


def test_a_frame_lies_along_the_border_also_where_a_side_of_it_is_missing_and_corners_do_not() -> None:
    frame = np.ones((28, 28), bool)
    frame[1:-1, 1:-1] = False
    assert describe_place(frame) == "along the border"
    frame[:, 0] = False
    assert describe_place(frame) == "along the border"
    frame[0] = False
    assert describe_place(frame) == "at the bottom right"
    corners = (
        box(slice(0, 3), slice(0, 3)) | box(slice(0, 3), slice(25, 28)) | box(slice(25, 28), slice(0, 3))
    )
    assert describe_place(corners) != "along the border"
    assert describe_place(np.ones((28, 28), bool)) == "at the centre"
