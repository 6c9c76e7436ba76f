"""Clusterings of the spectral embedding."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import KMeans as Lloyd

from spray.analysis.clustering import (
    CLUSTERINGS,
    HDBSCAN,
    Agglomerative,
    ClusterQR,
    KMeans,
    by_size,
    join_noise,
    together,
    with_components,
)
from spray.analysis.graph import NearestNeighbours
from spray.analysis.spectral import row_normalised, spectrum
from stores.analysis import Clustering


def blobs(sizes=(120, 80, 60), spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return (5 * np.eye(4)[truth] + spread * rng.standard_normal((len(truth), 4))).astype(np.float32), truth


def embedded(features, k=6):
    graph = NearestNeighbours().affinity(features)
    return spectrum(graph, k).vectors, graph


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_separated_groups_are_found_by_falling_size(name):
    features, truth = blobs()
    found = CLUSTERINGS[name]().cluster(*embedded(features), 3, 0)
    np.testing.assert_array_equal(found.labels, truth)
    assert found.parameters["clusters"] == 3


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_the_lighter_clusterings_of_resamples_find_the_same_groups(name):
    features, truth = blobs()
    lighter = CLUSTERINGS[name]().lighter()
    assert lighter.name == name
    np.testing.assert_array_equal(lighter.cluster(*embedded(features), 3, 0).labels, truth)


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_clusterings_repeat_and_do_not_change_their_input(name):
    vectors, graph = embedded(blobs(spread=2.0)[0])
    before = vectors.copy()
    once = CLUSTERINGS[name]().cluster(vectors, graph, 4, 3)
    again = CLUSTERINGS[name]().cluster(vectors, graph, 4, 3)
    np.testing.assert_array_equal(once.labels, again.labels)
    np.testing.assert_array_equal(vectors, before)


@pytest.mark.parametrize("name", CLUSTERINGS)
@pytest.mark.parametrize("m", [2, 3, 7, 25])
def test_few_samples(name, m):
    features = np.random.default_rng(0).standard_normal((m, 3)).astype(np.float32)
    vectors, graph = embedded(features, min(6, m))
    for strategies in (1, 2, 9):
        labels = CLUSTERINGS[name]().cluster(vectors, graph, strategies, 0).labels
        assert labels.shape == (m,)
        assert set(labels) <= set(range(-1, m))


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_duplicates(name):
    features = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    found = CLUSTERINGS[name]().cluster(*embedded(features), 3, 0)
    assert [set(found.labels[at : at + 40]) for at in (0, 40, 80)] == [{0}, {1}, {2}]
    if found.outlier is not None:
        assert np.isfinite(found.outlier).all()


@pytest.mark.parametrize("step", [KMeans(), ClusterQR(), Agglomerative()])
def test_one_suggested_strategy_is_one_cluster(step):
    found = step.cluster(*embedded(blobs()[0]), 1, 0)
    assert not found.labels.any()


@pytest.mark.parametrize("data", ["groups", "noise"])
def test_k_means_that_ends_sooner_finds_what_all_its_starts_find(data):
    rng = np.random.default_rng(3)
    vectors = embedded(blobs()[0], 3)[0] if data == "groups" else rng.standard_normal((200, 6))
    found = KMeans().cluster(vectors, scipy.sparse.csr_array((len(vectors),) * 2), vectors.shape[1], 7)
    every = Lloyd(vectors.shape[1], n_init=10, random_state=7).fit(row_normalised(vectors))
    np.testing.assert_array_equal(found.labels, by_size(every.labels_))


def test_a_given_number_outweighs_the_suggested_one():
    assert KMeans(clusters=2).cluster(*embedded(blobs()[0]), 5, 0).labels.max() == 1
    with pytest.raises(ValueError, match="clusters=0"):
        KMeans(clusters=0).cluster(*embedded(blobs()[0]), 5, 0)


def test_hdbscan_scores_outliers():
    found = HDBSCAN(noise="keep").cluster(*embedded(blobs(spread=2.0)[0]), 2, 0)
    noise = found.labels < 0
    assert 0 < noise.sum() < 200
    assert found.outlier[noise].mean() > 2 * found.outlier[~noise].mean()
    assert ((found.outlier >= 0) & (found.outlier <= 1)).all()


def test_a_component_is_no_noise_to_hdbscan():
    """However few its samples are in the share of a large group; smaller ones than the smallest cluster stay noise."""
    rng = np.random.default_rng(0)
    sizes = (400, 25, 12)
    graphs = [NearestNeighbours().affinity(rng.standard_normal((size, 5))) for size in sizes]
    graph = scipy.sparse.csr_array(scipy.sparse.block_diag(graphs))
    vectors = spectrum(graph, 10, above_zero=9).vectors
    truth = np.repeat(np.arange(3), sizes)
    labels = HDBSCAN(min_share=0.1).cluster(vectors, graph, 1, 0).labels
    assert len(set(labels[truth == 1])) == 1 and labels[-20] >= 0
    assert not np.isin(labels[truth != 1], labels[-20]).any()
    assert (labels[truth == 2] == -1).all()
    assert set(labels[labels >= 0]) == set(range(labels.max() + 1))


def test_hdbscan_finds_one_strategy_where_nothing_splits():
    # One dense group and a few samples around it: no two clusters of 20.
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 4)))[0]
    graph = NearestNeighbours().affinity(vectors)
    found = HDBSCAN().cluster(vectors, graph, 1, 0)
    assert set(found.labels) == {0}


def test_noise_joins_the_majority_of_its_neighbours_only():
    weights = np.zeros((6, 6))
    for i, j in [(0, 1), (2, 0), (2, 1), (2, 3), (3, 4), (5, 0), (5, 3)]:
        weights[i, j] = weights[j, i] = 1
    labels = np.array([0, 0, -1, 1, 1, -1])
    joined = join_noise(labels, scipy.sparse.csr_array(weights))
    assert joined.tolist() == [0, 0, 0, 1, 1, -1]
    assert labels.tolist() == [0, 0, -1, 1, 1, -1]


def test_all_noise_joins_nothing():
    assert join_noise(np.array([-1, -1]), scipy.sparse.csr_array(np.ones((2, 2)))).tolist() == [-1, -1]


def test_by_size_keeps_noise():
    assert by_size(np.array([7, 3, 3, -1, 7, 3])).tolist() == [1, 0, 0, -1, 1, 0]


def test_equal_samples_go_with_most_of_them_and_noise_only_alone():
    twins = np.array([0, 0, 0, 1, 1, 2, 2, 3, 4])
    found = Clustering(
        np.array([0, 0, 1, -1, 1, -1, -1, 1, 0]), None, {"clusters": 2, "noise": 3, "other": 7}
    )
    one = together(found, twins)
    assert one.labels.tolist() == [0, 0, 0, 1, 1, -1, -1, 1, 0]
    assert one.parameters == {"clusters": 2, "noise": 2, "other": 7}
    assert together(found, np.arange(9)) is found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KMeans(n_init=0), "kmeans takes n_init of at least 1; got n_init=0"),
        (lambda: HDBSCAN(min_cluster_size=1), "min_cluster_size of at least 2; got min_cluster_size=1"),
        (lambda: HDBSCAN(min_samples=0), "min_samples of at least 1"),
        (lambda: HDBSCAN(dimensions=0), "dimensions of at least 1"),
        (lambda: HDBSCAN(min_share=1.5), "min_share from 0 to 1"),
        (lambda: HDBSCAN(noise="foo"), "'majority' or 'keep'; got noise='foo'"),
        (lambda: HDBSCAN(selection="foo"), "'eom' or 'leaf'; got selection='foo'"),
    ],
)
def test_options_that_are_none_are_refused_before_any_sample_is_looked_at(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_components_without_vectors_are_clusters_beside_those_that_were_found():
    component = np.array([0, 2, 0, 1, 0, 1, 0])
    found = Clustering(np.array([0, 1, -1, 0]), np.array([0.1, 0.2, 0.9, 0.3]), {"clusters": 2, "noise": 1})
    one = with_components(found, np.array([0, 2, 4, 6]), component)
    assert one.labels.tolist() == [0, 2, 3, 1, -1, 1, 0]
    assert one.outlier.tolist() == [0.1, 0, 0.2, 0, 0.9, 0, 0.3]
    assert one.parameters == {"clusters": 4, "noise": 1}
    large = with_components(found, np.array([0, 2, 4, 6]), component, 2)
    assert large.labels.tolist() == [0, -1, 2, 1, -1, 1, 0]
    assert large.parameters == {"clusters": 3, "noise": 2}
