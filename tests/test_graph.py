"""The neighbourhood graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spray.analysis.exact import Scale, asked_here, asked_there, exact_neighbours, smallest
from spray.analysis.graph import NearestNeighbours, affinity


def plain_distances(features):
    return np.sqrt(((features[:, None].astype(float) - features[None]) ** 2).sum(axis=2))


def points(n=200, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize(("n", "block_bytes"), [(200, 1), (200, 1 << 12), (200, 32 << 20), (1999, 1 << 20)])
def test_exact_neighbours_are_those_of_all_pairwise_distances(n, block_bytes):
    features = points(n)
    distances = plain_distances(features)
    np.fill_diagonal(distances, np.inf)
    indices, found = exact_neighbours(features, 7, block_bytes=block_bytes)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :7])
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :7], rtol=1e-5)


def test_queries_ask_for_some_rows_only():
    features, rows = points(), np.array([150, 3])
    every, some = exact_neighbours(features, 4), exact_neighbours(features, 4, queries=rows)
    np.testing.assert_array_equal(some[0], every[0][rows])
    np.testing.assert_array_equal(some[1], every[1][rows])


@pytest.mark.parametrize("width", [16, 160, 1600, 16000])
@pytest.mark.parametrize("distinct", [3, 10**6])
def test_the_smallest_values_are_those_of_a_sort(width, distinct):
    values = np.random.default_rng(0).integers(distinct, size=(20, width)).astype(np.float32)
    columns = smallest(values, 9)
    assert (np.diff(columns, axis=1) > 0).all()
    found = np.sort(np.take_along_axis(values, columns, axis=1), axis=1)
    np.testing.assert_array_equal(found, np.sort(values, axis=1)[:, :9])


@pytest.mark.parametrize("weights", ["binary", "self_tuning"])
def test_the_draft_of_random_rows_is_their_graph(weights):
    step = NearestNeighbours(k=6, weights=weights)
    assert abs(step.draft(points(400)) - step.affinity(points(400))).max() == 0


def test_torch_proposes_the_same_as_numpy():
    features = points(300)
    scale = Scale.of(features)
    left, right = scale.left(features[100:160]), scale.right(features)
    own = (np.arange(60), np.arange(100, 160))
    here, there = asked_here(right)(left, own, 12), asked_there(right, "cpu")(left, own, 12)
    np.testing.assert_array_equal(here, there)
    assert (here != own[1][:, None]).all()


def test_near_duplicates_far_from_the_origin_are_told_apart():
    offset = np.zeros((40, 3), np.float32)
    offset[:, 0] = np.arange(40) * 1e-3
    features = 1000 + offset
    indices, _ = exact_neighbours(features, 1)
    assert (np.abs(indices[:, 0] - np.arange(40)) == 1).all()


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_neighbours_are_exact_in_groups_however_tight(spread):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 64)) / 8
    features = np.repeat(centres, 60, axis=0) + spread * rng.normal(size=(300, 64)) / 8
    features = features.astype(np.float32)
    found, apart = NearestNeighbours().neighbours(features)
    exact = plain_distances(features)
    np.fill_diagonal(exact, np.inf)
    expected = np.sort(exact, axis=1)[:, :10]
    assert np.allclose(np.take_along_axis(exact, found, axis=1), expected, rtol=1e-5)
    assert np.allclose(apart, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [2.0**-110, 2.0**-80, 2.0**60, 2.0**110])
def test_neighbours_do_not_depend_on_the_unit_of_relevance(scale):
    features = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    expected, distances = NearestNeighbours().neighbours(features)
    found, apart = NearestNeighbours().neighbours(features * np.float32(scale))
    assert np.array_equal(found, expected)
    assert np.allclose(apart, distances * scale, rtol=1e-6, atol=0)
    assert NearestNeighbours().neighbourhood(features * np.float32(scale)).twins() is None


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 5))
def test_no_vertex_is_its_own_neighbour_even_among_duplicates(n, k, seed):
    features = np.random.default_rng(seed).integers(0, 2, (n, 2)).astype(np.float32)
    graph = NearestNeighbours(k).affinity(features)
    assert not graph.diagonal().any()
    assert (graph != graph.T).nnz == 0
    assert (graph.sum(axis=1) > 0).all()
    indices, _ = NearestNeighbours(k).neighbours(features)
    assert indices.shape == (n, min(k, n - 1))
    assert all(len(set(row)) == len(row) for row in indices.tolist())


def test_binary_affinity_is_the_mean_of_connectivity_and_its_transpose():
    features = points(50)
    indices, _ = NearestNeighbours(5).neighbours(features)
    one_way = np.zeros((50, 50))
    np.put_along_axis(one_way, indices, 1, axis=1)
    graph = NearestNeighbours(5).affinity(features).toarray()
    np.testing.assert_array_equal(graph, (one_way + one_way.T) / 2)
    assert set(np.unique(graph)) == {0, 0.5, 1}


@pytest.mark.parametrize("weights", ["gaussian", "self_tuning"])
def test_weighted_affinities_fall_with_distance_and_survive_duplicates(weights):
    features = np.concatenate([points(30), np.zeros((20, 5), np.float32)])
    graph = NearestNeighbours(5, weights=weights).affinity(features)
    distances = plain_distances(features)
    assert np.isfinite(graph.data).all()
    assert graph[31, :].max() == 1
    rows, columns = graph.nonzero()
    near = distances[rows, columns] < np.median(distances[rows, columns])
    assert graph.data[near].mean() > graph.data[~near].mean()


def test_self_tuning_follows_its_formula():
    indices, distances = exact_neighbours(points(20), 3)
    graph = affinity(indices, distances, "self_tuning").toarray()
    i, j = 4, indices[4, 1]
    forward = np.exp(-(distances[4, 1] ** 2) / (distances[i, -1] * distances[j, -1]))
    assert graph[i, j] == pytest.approx(forward if i in indices[j] else forward / 2)


@pytest.mark.parametrize("weights", ["binary", "self_tuning"])
@pytest.mark.parametrize("part", [300, 240, 160, 20])
def test_the_graph_of_a_part_is_that_of_its_features_alone(weights, part):
    features = points(300)
    chosen = np.sort(np.random.default_rng(part).choice(300, part, replace=False))
    step = NearestNeighbours(weights=weights)
    near = step.neighbourhood(features)
    assert (near.affinity() != step.affinity(features)).nnz == 0
    assert (near.among(chosen) != step.affinity(features[chosen])).nnz == 0


def test_the_part_of_a_large_group_is_looked_at_anew():
    features = points(500)
    near = NearestNeighbours(method="cells").neighbourhood(features)
    assert near.indices.shape == (500, 10)
    assert near.facts()["method"] == "cells" and near.facts()["neighbour_bytes"] == 500 * 10 * 16
    chosen = np.arange(0, 500, 2)
    assert near.among(chosen).shape == (250, 250)


def test_log_neighbours():
    assert NearestNeighbours("log").count(1000) == 7
    assert NearestNeighbours("log").count(3) == 2


def test_the_method_follows_the_size_unless_named():
    assert NearestNeighbours().is_exact(1000)
    assert not NearestNeighbours().is_exact(1_000_000)
    assert NearestNeighbours(method="exact").is_exact(1_000_000)


@pytest.mark.parametrize(
    ("step", "features", "message"),
    [
        (NearestNeighbours(), np.ones((1, 3)), "at least two samples"),
        (NearestNeighbours(), np.ones((3, 2, 2)), "representation"),
        (NearestNeighbours(), np.array([[0.0], [np.nan]]), r"1 of 2 feature vectors.*row 1"),
        (NearestNeighbours(method="fast"), np.ones((4, 3)), "unknown method 'fast'"),
        (NearestNeighbours(weights="cosine"), np.ones((4, 3)), "unknown weights 'cosine'"),
    ],
)
def test_errors(step, features, message):
    with pytest.raises(ValueError, match=message):
        step.affinity(features)


def test_a_graph_without_neighbours_is_refused_before_any_work():
    with pytest.raises(ValueError, match="k=0"):
        NearestNeighbours(0)


def test_products_on_a_device_are_of_full_precision_whatever_was_chosen_for_training() -> None:
    import torch

    features = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32) + 50
    chosen = torch.get_float32_matmul_precision()
    seen: list[str] = []
    product = torch.Tensor.__matmul__

    def watched(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return product(left, right)

    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "__matmul__", watched)
            there = exact_neighbours(features, 5, device="cpu:0")
        assert seen and set(seen) == {"highest"} and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(chosen)
    assert np.array_equal(there[0], exact_neighbours(features, 5)[0])
