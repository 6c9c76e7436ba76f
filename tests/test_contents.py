"""Members are told by what images show in the region: of plants nearly all, and nothing where it comes by degrees."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from spray.findings.contents import ContentRefinement, coarser, contents_of, enough_memory_for, finest
from spray.findings.regions import TopRegion, unit_maps
from spray.findings.strategies import Strategy, distinct
from spray.memory import SpaceError

SAMPLES, TAGGED, SIDE = 800, 80, 14
WORD = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], bool)
PLACE = np.s_[9:12, 8:12]
REGION = TopRegion(share=0.1)
STEP = ContentRefinement()


def planted(strength: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit maps, images and the truth: a faint word in 80 of 800 pictures, relevant in many of them and in others."""
    rng = np.random.default_rng(seed)
    truth = np.arange(SAMPLES) < TAGGED
    images = rng.uniform(0, 0.3, (SAMPLES, 1, 1, 1)) * rng.uniform(0.6, 1, (SAMPLES, 1, SIDE, SIDE))
    place = images[truth, 0, *PLACE]
    images[truth, 0, *PLACE] = np.where(WORD, (1 - strength) * place + strength, place)
    maps = rng.gamma(2, 0.2, (SAMPLES, SIDE, SIDE))
    maps[:, *PLACE] += rng.gamma(1, 0.3, (SAMPLES, 1, 1))
    maps[truth, *PLACE] += rng.uniform(0.2, 1.2, (TAGGED, 1, 1))
    return unit_maps(maps), images.astype(np.float32), truth


def mixed(truth: np.ndarray, tagged: int = 30, others: int = 40) -> np.ndarray:
    members = np.zeros(len(truth), bool)
    members[:tagged] = True
    members[TAGGED : TAGGED + others] = True
    return members


def cluster(units: np.ndarray, members: np.ndarray) -> Strategy:
    return Strategy((3,), members, REGION.shared(units[members], units[~members]))


def test_a_mixed_cluster_of_a_faint_word_becomes_all_that_show_it() -> None:
    units, images, truth = planted()
    found = STEP.refined(cluster(units, mixed(truth)), units, images, REGION, seed=0)
    assert found is not None and found.by_content and found.clusters == (3,)
    assert truth[found.members].mean() >= 0.98 and found.members[truth].mean() >= 0.95
    assert found.mode >= STEP.mode and found.region is not None and found.region[PLACE].all()


def test_what_comes_by_degrees_stays_as_it_was() -> None:
    units, images, _ = planted(strength=0)
    bright = images[:, 0, *PLACE].mean((1, 2)) >= np.quantile(images[:, 0, *PLACE].mean((1, 2)), 0.9)
    maps = units.copy()
    maps[bright, *PLACE] += 0.3
    strategy = cluster(unit_maps(maps), bright)
    assert STEP.refined(strategy, unit_maps(maps), images, REGION, seed=0) is None
    given = STEP.strategies([strategy], unit_maps(maps), images, REGION, 0.7, seed=0)
    assert given == [strategy]


def test_content_that_is_not_relevant_there_is_none_of_the_strategys() -> None:
    units, images, truth = planted()
    rng = np.random.default_rng(1)
    maps = rng.gamma(2, 0.2, units.shape)
    maps[mixed(truth), *PLACE] += 1
    maps[truth, 2:5, 2:5] += 3
    units = unit_maps(maps)
    members = mixed(truth)
    strategy = Strategy((0,), members, np.zeros((SIDE, SIDE), bool))
    strategy.region[PLACE] = True
    assert STEP.refined(strategy, units, images, REGION, seed=0) is None
    assert replace(STEP, overlap=0.0).refined(strategy, units, images, REGION, seed=0) is not None


def test_of_a_cluster_of_nearly_all_a_piece_is_found() -> None:
    units, images, truth = planted()
    maps = units.copy()
    maps[truth, *PLACE] += 0.15
    units = unit_maps(maps)
    blob = np.arange(SAMPLES) < SAMPLES - 20
    found = STEP.strategies([cluster(units, blob)], units, images, REGION, 0.7, seed=0)
    assert len(found) >= 2 and found[0].members is blob
    few = replace(STEP, each=100).strategies([found[0]], units, images, REGION, 0.7, seed=0)
    assert few == [found[0]]
    best = max(distinct(found, 0.5), key=lambda one: one.mode)
    assert best.clusters == (3,) and truth[best.members].mean() >= 0.98 and best.members[truth].mean() >= 0.95


def on_photos(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The word, half-transparent, on any grey: plain where it is dark, hardly there where it is bright."""
    rng = np.random.default_rng(seed)
    truth = np.arange(SAMPLES) < 2 * TAGGED
    ground = rng.uniform(0, 0.8, (SAMPLES, 1, 1, 1)) + rng.normal(0, 0.01, (SAMPLES, 1, 2 * SIDE, 2 * SIDE))
    place = ground[truth, 0, 18:21, 16:20]
    ground[truth, 0, 18:21, 16:20] = np.where(WORD, 0.5 * place + 0.5, place)
    maps = rng.gamma(2, 0.2, (SAMPLES, SIDE, SIDE))
    maps[truth, 9:11, 8:10] += rng.uniform(0.5, 2, (2 * TAGGED, 1, 1))
    return unit_maps(maps), ground.astype(np.float32), truth


def test_a_word_on_photos_comes_by_degrees_and_is_told_by_the_valley_pixel_by_pixel() -> None:
    units, images, truth = on_photos()
    members = (np.arange(SAMPLES) < 1.5 * TAGGED) | (np.arange(SAMPLES) >= SAMPLES - 10)
    strategy = cluster(units, members)
    found = replace(STEP, mode=0.25).refined(strategy, units, images, REGION, seed=0)
    assert found is not None and found.by_content and truth[found.members].mean() >= 0.98
    assert found.members[truth].mean() >= 0.95 > strategy.members[truth].mean()


def test_contents_are_pixels_where_cells_would_overlap() -> None:
    assert finest((32, 32), (28, 28)) == (32, 32) and finest((28, 28), (28, 28)) == (28, 28)
    assert finest((55, 224), (28, 28)) == (55, 28) and finest((56, 14), (28, 28)) == (28, 28)
    contents = np.random.default_rng(0).random((3, 2, 8, 8), np.float32)
    assert coarser(contents, (8, 8)) is contents
    np.testing.assert_allclose(
        coarser(contents, (4, 4)), contents.reshape(3, 2, 4, 2, 4, 2).mean((3, 5)), rtol=1e-6
    )


@pytest.mark.parametrize("members", [0, 3, SAMPLES - 3, SAMPLES])
def test_too_few_or_nearly_all_members_are_left(members: int) -> None:
    units, images, _ = planted()
    region = np.zeros((SIDE, SIDE), bool)
    region[PLACE] = True
    strategy = Strategy((0,), np.arange(SAMPLES) < members, region)
    assert STEP.refined(strategy, units, images, REGION, seed=0) is None


def test_contents_are_means_by_cell_and_channel_in_any_batches() -> None:
    pictures = torch.rand(7, 3, 8, 12)

    def read(rows: np.ndarray) -> Tensor:
        return pictures[torch.from_numpy(rows)]

    found = contents_of(read, np.array([5, 1, 2]), (4, 4), batch=2)
    expected = pictures[[5, 1, 2]].reshape(3, 3, 4, 2, 4, 3).mean((3, 5)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_strategies_of_nearly_the_same_members_are_one_with_the_members_of_the_clearest_mode() -> None:
    at = np.arange(100)
    first = Strategy((0,), at < 40, None)
    second = Strategy((2,), at < 30, None, mode=0.9)
    third = Strategy((1,), at >= 90, None)
    found = distinct([first, second, third], 0.5)
    assert [one.clusters for one in found] == [(0, 2), (1,)]
    np.testing.assert_array_equal(found[0].members, second.members)
    assert distinct([first, second, third], 0.8) == [first, second, third]


def test_fewer_images_are_read_at_a_time_where_memory_runs_out() -> None:
    images = torch.rand(37, 2, 8, 8)

    def read(rows: np.ndarray, most: int) -> Tensor:
        if len(rows) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 TB")
        return images[torch.from_numpy(rows)]

    rows = np.arange(37)
    whole = contents_of(partial(read, most=37), rows, (4, 4), 64)
    assert np.array_equal(contents_of(partial(read, most=5), rows, (4, 4), 64), whole)
    with pytest.raises(SpaceError, match="one image"):
        contents_of(partial(read, most=0), rows, (4, 4), 64)


def test_memory_that_ends_anywhere_is_told_in_words_and_other_errors_stay_as_they_are() -> None:
    with (
        pytest.raises(SpaceError, match=r"for what 7 images show\. Free"),
        enough_memory_for("what 7 images show"),
    ):
        raise MemoryError
    with pytest.raises(RuntimeError, match="shapes"), enough_memory_for("all"):
        raise RuntimeError("shapes differ")
