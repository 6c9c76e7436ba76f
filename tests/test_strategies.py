"""Clusters that look at one place, or at the same channels, are one strategy; noise belongs to none."""

import numpy as np

from spray.findings.channels import unit_vectors
from spray.findings.regions import TopRegion, unit_maps
from spray.findings.strategies import merge

REGION = TopRegion(share=4 / 144, smooth=1)


def pieces(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two pieces with the same tag but other backgrounds, one honest group, and two noise points."""
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, 0.2, (62, 12, 12))
    maps[:20, :2, :2] += 2
    maps[:10, 8, 8] += 1
    maps[20:60, 5:7, 5:7] += 2
    return np.repeat([1, 2, 0, -1], [10, 10, 40, 2]), unit_maps(maps)


def test_pieces_with_one_region_become_one_strategy_and_the_largest_comes_first() -> None:
    labels, units = pieces()
    honest, tagged = merge(labels, units, REGION, 0.7)
    assert honest.clusters == (0,) and honest.members.sum() == 40
    assert tagged.clusters == (1, 2) and np.flatnonzero(tagged.members).tolist() == list(range(20))
    assert tagged.region is not None and np.argwhere(tagged.region).max() == 1


def test_nothing_is_alike_enough_above_one() -> None:
    labels, units = pieces()
    assert [strategy.clusters for strategy in merge(labels, units, REGION, 1.01)] == [(0,), (1,), (2,)]


def test_a_chain_of_overlaps_is_not_one_strategy() -> None:
    rng = np.random.default_rng(1)
    maps = rng.uniform(0, 0.2, (90, 12, 12))
    for group in range(3):
        maps[30 * group : 30 * group + 30, 3:6, 3 * group : 3 * group + 6] += 1
    merged = merge(np.repeat([0, 1, 2], 30), unit_maps(maps), TopRegion(smooth=1), 0.7)
    assert [strategy.clusters for strategy in merged] == [(0,), (1,), (2,)]


def test_pieces_of_a_long_artifact_that_are_strong_at_other_ends_are_merged() -> None:
    rng = np.random.default_rng(2)
    maps = rng.uniform(0, 0.2, (120, 28, 28))
    maps[:60, 2:26, 0] += 1
    maps[:30, 2:8, 0] += 0.5
    maps[30:60, 20:26, 0] += 0.5
    maps[60:, 10:18, 10:18] += 1
    tagged, honest = merge(np.repeat([0, 1, 2], [30, 30, 60]), unit_maps(maps), TopRegion(), 0.7)
    assert {tagged.clusters, honest.clusters} == {(0, 1), (2,)}
    line = tagged if tagged.clusters == (0, 1) else honest
    assert line.region is not None and line.region[2:26, 0].all()


def test_pieces_with_the_same_channels_become_one_strategy_without_a_region() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.2, (80, 30))
    vectors[:30, :3] += 2
    vectors[:15, 7] += 1
    vectors[30:, 20:25] += 2
    merged = merge(np.repeat([1, 2, 0], [15, 15, 50]), unit_vectors(vectors), REGION, 0.7)
    assert [(one.clusters, int(one.members.sum())) for one in merged] == [((0,), 50), ((1, 2), 30)]
    assert all(one.region is None for one in merged)


def test_relevance_of_other_forms_keeps_its_clusters() -> None:
    units = np.ones((6, 3, 4, 4))
    assert [one.clusters for one in merge(np.repeat([0, 1], 3), units, REGION, 0.7)] == [(0,), (1,)]


def test_all_noise_gives_no_strategy() -> None:
    assert merge(np.full(5, -1), np.ones((5, 4, 4)), REGION, 0.7) == []
