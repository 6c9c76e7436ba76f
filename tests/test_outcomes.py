"""Where the object lies, from boxes or masks; and the scores that compare relevance with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_scores import suspect

import stores
from spray.findings.outcomes import Outcomes, _pooled
from spray.findings.scores import SCORES


def test_boxes_as_shares_of_cells(tmp_path: Path) -> None:
    boxes = {
        "box_left": [0.0, 0.25],
        "box_top": [0.0, np.nan],
        "box_right": [0.5, 0.75],
        "box_bottom": [0.375, 1.0],
    }
    repeated = {name: (values * 15)[:30] for name, values in boxes.items()}
    run = stores.synthetic.make(
        tmp_path / "run.zarr", samples=30, metadata={**repeated, "scanner": ["A", "B"] * 15}
    )
    outcomes = Outcomes(run)
    inside = outcomes.objects(np.array([0, 1]), (4, 4))
    assert inside is not None
    assert np.allclose(inside[0], np.outer([1, 0.5, 0, 0], [1, 1, 0, 0]))
    assert np.isnan(inside[1]).all()
    assert set(outcomes.metadata(np.arange(3))) == {"source", "brightness", "scanner"}
    assert (
        Outcomes(stores.synthetic.make(tmp_path / "b.zarr", samples=30)).objects(np.arange(3), (4, 4)) is None
    )


@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (3, 5), (12, 9)])
def test_masks_are_pooled_by_share(grid: tuple[int, int]) -> None:
    masks = np.zeros((1, 12, 8))
    masks[:, :6, :] = 1
    pooled = _pooled(masks, grid)
    assert pooled.shape == (1, *grid)
    assert pooled[0, 0].min() == 1 and pooled[0, -1].max() == 0
    assert pooled.mean() == pytest.approx(0.5, abs=0.2)


def test_relevance_at_the_border_and_outside_the_object() -> None:
    maps = np.zeros((20, 10, 10))
    maps[:, 5, 5] = 3
    maps[:8, 0, 2] = 1
    maps[:8, 4, 4] = -9
    members = np.arange(20) < 8
    objects = np.zeros((20, 10, 10))
    objects[:, 2:8, 2:8] = 1
    objects[0] = np.nan
    case = replace(suspect(maps, members, maps[0] > 0), objects=objects)
    assert SCORES["border"](case) == pytest.approx(0.25)
    assert SCORES["outside_object"](case) == pytest.approx(0.25)
    assert SCORES["outside_object"](suspect(maps, members, maps[0] > 0)) is None


def test_accuracy_stability_and_twins() -> None:
    rng = np.random.default_rng(0)
    members = np.arange(20) < 10
    pictures = rng.integers(0, 256, (20, 6, 6, 1), np.uint8)
    pictures[1] = np.clip(
        pictures[0].astype(int) + rng.integers(-2, 3, pictures[0].shape), 0, 255
    )  # saved again
    digests = np.arange(20)
    digests[2] = digests[3] = 77
    digests[4] = digests[15] = 88  # a twin outside is none among the members
    case = replace(
        suspect(rng.normal(size=(20, 5, 5)), members, np.ones((5, 5), bool)),
        correct=np.arange(20) % 2 == 0,
        stability=0.8,
        digests=digests,
        thumbnails=lambda places: pictures[places],
    )
    assert SCORES["accuracy"](case) == 0.5 and SCORES["accuracy_of_rest"](case) == 0.5
    assert SCORES["stability"](case) == 0.8
    assert SCORES["duplicates"](case) == pytest.approx(0.4)
    assert SCORES["duplicates"](replace(case, thumbnails=lambda places: None)) == pytest.approx(0.2)


@pytest.mark.parametrize("count", [500, 502, 1300])
def test_twins_that_lie_side_by_side_are_found_among_any_number(count: int) -> None:
    """Frames of a video, or each picture saved twice: whoever is asked has his twin beside him."""
    rng = np.random.default_rng(0)
    pictures = np.repeat(rng.integers(0, 256, (count // 2, 4, 4, 1), np.uint8), 2, axis=0)
    members = np.arange(count + 100) < count
    unlike = rng.integers(0, 256, (100, 4, 4, 1), np.uint8)
    everything = np.concatenate([pictures, unlike])
    case = replace(
        suspect(np.ones((count + 100, 3, 3)), members, np.ones((3, 3), bool)),
        digests=np.arange(count + 100),
        thumbnails=lambda places: everything[places],
    )
    assert SCORES["duplicates"](case) == 1.0
    assert SCORES["duplicates"](replace(case, members=~members)) == 0.0
