"""Approximate neighbours and how many of the exact ones they find."""

import numpy as np
import pytest

from spray.analysis import Analysis
from spray.analysis.approximate import probed_recall
from spray.analysis.cells import nearest_of
from spray.analysis.clustering import HDBSCAN, KMeans
from spray.analysis.exact import exact_neighbours
from spray.analysis.features import PCA
from spray.analysis.graph import NearestNeighbours
from spray.analysis.null import GaussianNull
from spray.analysis.spectral import spectrum
from spray.analysis.stability import Stability


def points(n=600, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_recall_of_the_exact_neighbours_is_one():
    features = points()
    assert probed_recall(features, exact_neighbours(features, 5)[0], probe=100) == 1


def test_recall_counts_what_was_missed():
    features = points()
    indices, _ = exact_neighbours(features, 10)
    indices[:, 5:] = exact_neighbours(features, 60)[0][:, 50:55]
    assert probed_recall(features, indices) == 0.5


def test_ties_are_no_misses():
    features = np.repeat(points(3), 40, axis=0)
    indices, _ = exact_neighbours(features, 5)
    other = np.arange(120)[:, None] // 40 * 40 + (np.arange(120)[:, None] + np.arange(1, 6)) % 40
    assert (indices != other).any()
    assert probed_recall(features, other) == 1


@pytest.mark.parametrize("step", [KMeans(), HDBSCAN()])
def test_very_large_groups_are_clustered_by_a_part_of_them(step, monkeypatch):
    features = np.concatenate([points(150, seed=seed) + 12 * seed for seed in range(3)])
    graph = NearestNeighbours().affinity(features)
    vectors = spectrum(graph, 6).vectors
    whole = step.cluster(vectors, graph, 3, 0).labels
    monkeypatch.setattr("spray.analysis.clustering.FITTED", 200)
    part = step.cluster(vectors, graph, 3, 0)
    assert part.parameters["fitted_rows"] == 200
    np.testing.assert_array_equal(part.labels, whole)


@pytest.mark.parametrize("method", ["cells", pytest.param("nn_descent", marks=pytest.mark.slow)])
def test_most_neighbours_are_found_and_never_the_row_itself(method):
    features = np.concatenate([points(3000, 8), np.zeros((400, 8), np.float32)])
    step = NearestNeighbours(method=method)
    indices, distances = step.neighbours(features)
    assert (indices != np.arange(len(features))[:, None]).all()
    assert all(len(set(row)) == 10 for row in indices.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()
    assert (distances[-400:] == 0).all()
    assert probed_recall(features, indices) > 0.9
    again, _ = step.neighbours(features)
    np.testing.assert_array_equal(indices, again)


@pytest.mark.parametrize("n", [2, 3, 17, 40])
def test_cells_of_few_samples(n):
    features = points(n)
    indices, _ = NearestNeighbours(method="cells").neighbours(features)
    np.testing.assert_array_equal(indices, exact_neighbours(features, min(10, n - 1))[0])


def test_points_join_the_nearest_of_those_that_are_known():
    known = np.concatenate([points(5000, 4), points(300, 4, seed=1) + 9])
    asking = np.concatenate([points(2000, 4, seed=2), points(500, 4, seed=3) + 9])
    found = nearest_of(asking, known, seed=0)
    apart = np.linalg.norm(asking[:, None] - known[None], axis=2)
    np.testing.assert_allclose(apart[np.arange(2500), found], apart.min(axis=1), rtol=0.2)
    assert (found == apart.argmin(axis=1)).mean() > 0.95
    assert ((found >= 5000) == (np.arange(2500) >= 2000)).all()


def test_large_groups_are_asked_piece_by_piece(monkeypatch):
    features = np.concatenate([points(700, 4), np.zeros((40, 4), np.float32)])
    rows = np.array([0, 3, 350, 699, 720])
    whole = exact_neighbours(features, 12, queries=rows)
    monkeypatch.setattr("spray.analysis.exact._PIECE", 100)
    pieces = exact_neighbours(features, 12, queries=rows)
    np.testing.assert_array_equal(pieces[1], whole[1])
    np.testing.assert_array_equal(
        pieces[0][1:4], whole[0][1:4]
    )  # row 0 is at one distance from all duplicates


def test_proposals_are_made_among_the_reduced_features_and_chosen_in_full():
    features = points(400, 6)
    features[:, 3:] *= 0.2
    step = NearestNeighbours(method="cells")
    reduced = PCA(3).transform(features)
    blunt, sharp = step.neighbours(reduced)[0], step.neighbours(features, reduce=PCA(3).transform)[0]
    assert probed_recall(features, sharp) > probed_recall(features, blunt) + 0.05


@pytest.mark.parametrize("method", ["cells", pytest.param("nn_descent", marks=pytest.mark.slow)])
def test_an_analysis_on_approximate_neighbours_reports_their_recall_and_finds_the_same_groups(method):
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=2000)
    maps = 0.2 * rng.standard_normal((2000, 8, 8))
    for group in range(3):
        maps[truth == group, 2 * group + 1] += 1
    analysis = Analysis(
        neighbours=NearestNeighbours(method=method),
        null=GaussianNull(draws=0),
        stability=Stability(draws=0),
        picture="none",
    )
    found = analysis.group(maps)
    assert not found.facts["exact_neighbours"]
    assert 0.5 < found.facts["recall"] <= 1
    assert found.strategies == 3
    tables = [np.bincount(truth[found.clusterings["kmeans"].labels == label]) for label in range(3)]
    assert all(table.max() == table.sum() for table in tables)
