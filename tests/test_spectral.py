"""Spectra with a closed form, degenerate graphs, and the eigengap."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from spray.analysis import lobpcg
from spray.analysis.graph import NearestNeighbours
from spray.analysis.spectral import eigengap, row_normalised, spectrum

EXACT = 1e-10


def complete(n):
    return np.ones((n, n)) - np.eye(n)


def cycle(n):
    return np.roll(np.eye(n), 1, axis=1) + np.roll(np.eye(n), -1, axis=1)


def path(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


def star(n):
    graph = np.zeros((n, n))
    graph[0, 1:] = graph[1:, 0] = 1
    return graph


def bipartite(n):
    return np.kron([[0, 1], [1, 0]], np.ones((n, n)))


def hypercube(d):
    vertices = np.arange(2**d)
    return np.isin(vertices[:, None] ^ vertices[None], 2 ** np.arange(d)).astype(float)


def pieces(*graphs):
    return scipy.linalg.block_diag(*graphs)


def solve(graph, k, **options):
    return spectrum(scipy.sparse.csr_array(graph), k, **options)


def laplacian(graph):
    root = np.sqrt(graph.sum(axis=1))
    return np.eye(len(graph)) - graph / np.outer(root, root)


CLOSED_FORMS = {
    "complete": (complete(50), [0] + [50 / 49] * 49),
    "complete, large": (complete(400), [0] + [400 / 399] * 5),
    "cycle": (cycle(60), 1 - np.cos(2 * np.pi * np.arange(60) / 60)),
    "cycle, large": (cycle(500), 1 - np.cos(2 * np.pi * np.arange(500) / 500)),
    "path": (path(40), 1 - np.cos(np.pi * np.arange(40) / 39)),
    "path, large": (path(400), 1 - np.cos(np.pi * np.arange(400) / 399)),
    "star": (star(30), [0] + [1] * 28 + [2]),
    "star, large": (star(600), [0] + [1] * 598 + [2]),
    "hypercube": (hypercube(5), 2 * np.array([bin(v).count("1") for v in range(32)]) / 5),
    "hypercube, large": (hypercube(9), 2 * np.array([bin(v).count("1") for v in range(512)]) / 9),
    "complete bipartite": (bipartite(20), [0] + [1] * 38 + [2]),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("k", [1, 2, 6])
def test_known_spectra(name, k):
    graph, values = CLOSED_FORMS[name]
    solved = solve(graph, k)
    np.testing.assert_allclose(solved.values, np.sort(values)[:k], atol=EXACT)
    residual = laplacian(graph) @ solved.vectors - solved.vectors * solved.values
    assert np.abs(residual).max() < 1e-7
    np.testing.assert_allclose(solved.vectors.T @ solved.vectors, np.eye(k), atol=1e-8)


def test_three_disjoint_bipartite_graphs_have_three_zeros_and_a_one():
    solved = solve(pieces(bipartite(20), bipartite(20), bipartite(20)), 4)
    assert solved.values[:3].tolist() == [0, 0, 0]
    assert solved.values[3] == pytest.approx(1, abs=EXACT)
    assert solved.components == 3


@pytest.mark.parametrize("k", [2, 5, 12])
def test_pieces_give_as_many_zeros_exactly(k):
    graph = pieces(cycle(300), complete(5), path(7), star(12), complete(2))
    solved = solve(graph, k)
    expected = np.linalg.eigvalsh(laplacian(graph))[:k]
    assert solved.components == 5
    assert (solved.values == 0).sum() == min(k, 5)
    np.testing.assert_allclose(solved.values, np.maximum(expected, 0), atol=EXACT)
    assert np.bincount(solved.component).tolist() == [300, 12, 7, 5, 2]
    # Each zero's vector lives on one piece.
    for column in solved.vectors[:, : min(k, 5)].T:
        assert len(set(solved.component[np.abs(column) > 1e-12])) == 1


@pytest.mark.parametrize("above", [0, 1, 4])
def test_as_many_more_as_it_takes_for_some_above_zero(above):
    graph = pieces(cycle(300), complete(5), path(7), star(12), complete(2))
    found = solve(graph, 3, above_zero=above)
    expected = np.linalg.eigvalsh(laplacian(graph))[: 3 if not above else 5 + above]
    np.testing.assert_allclose(found.values, np.maximum(expected, 0), atol=EXACT)
    assert found.all_zero == (not above)


def test_not_more_vectors_for_more_components_than_memory_takes(monkeypatch):
    graph = pieces(*[complete(4)] * 10)
    monkeypatch.setattr("spray.analysis.spectral._ENTRIES", 7 * 40)
    assert len(solve(graph, 3, above_zero=2).values) == 7
    assert len(solve(graph, 8, above_zero=2).values) == 8


def test_small_components_leave_a_large_one_its_vectors(monkeypatch):
    graph = pieces(*[complete(4)] * 5, cycle(60), complete(5))
    monkeypatch.setattr("spray.analysis.spectral._ENTRIES", 8 * 85)
    found = solve(graph, 5, above_zero=4)
    assert (found.components, found.without) == (7, 3)
    # Of the circle, and of the three next in size.
    expected = np.concatenate([np.zeros(4), np.linalg.eigvalsh(laplacian(cycle(60)))[1:5]])
    np.testing.assert_allclose(found.values, expected, atol=EXACT)
    inside = np.abs(found.vectors).max(axis=1) > 0
    assert inside.tolist() == (found.component < 4).tolist()
    assert not found.all_zero


def test_of_many_components_those_that_could_be_two_groups_have_vectors():
    few = pieces(*[complete(5)] * 30, cycle(60), cycle(41))
    assert (len(solve(few, 5, above_zero=4).values), solve(few, 5, above_zero=4).without) == (36, 0)
    many = pieces(*[complete(5)] * 40, cycle(39), cycle(60), cycle(41))
    found = solve(many, 5, above_zero=4)
    assert (found.components, found.without, found.all_zero) == (43, 41, False)
    pair = np.linalg.eigvalsh(laplacian(pieces(cycle(60), cycle(41))))[:6]
    np.testing.assert_allclose(found.values, np.maximum(pair, 0), atol=EXACT)
    assert np.bincount(found.component)[:2].tolist() == [60, 41]
    np.testing.assert_array_equal(found.inside, np.arange(239, 340))
    assert not found.vectors[:239].any()
    assert found.facts() == {
        "component_sizes": [60, 41, 39] + 29 * [5],
        "components_without_vectors": 41,
        "samples_without_vectors": 239,
    }
    # A vector each is not needed to know that all are apart.
    alone = solve(pieces(*[complete(5)] * 40), 5, above_zero=4)
    assert (alone.components, alone.without, len(alone.values), alone.all_zero) == (40, 0, 5, True)


def test_a_stored_weight_of_zero_joins_nothing():
    dense = pieces(complete(3), complete(3))
    dense[0, 3] = dense[3, 0] = 7
    graph = scipy.sparse.csr_array(dense)
    graph.data[graph.data == 7] = 0
    assert graph.nnz == 14
    assert spectrum(graph, 3).components == 2


def test_all_eigenvalues_of_a_small_graph_can_be_had():
    graph = NearestNeighbours(3).affinity(np.random.default_rng(0).standard_normal((30, 2)))
    solved = spectrum(graph, 99)
    expected = np.linalg.eigvalsh(laplacian(graph.toarray()))
    np.testing.assert_allclose(solved.values, np.maximum(expected, 0), atol=EXACT)


def test_weak_ties_are_no_cut():
    graph = pieces(complete(20), complete(20))
    graph[0, 20] = graph[20, 0] = 1e-9
    solved = solve(graph, 2)
    assert solved.components == 1
    assert 0 < solved.values[1] < 1e-8


def test_an_isolated_vertex_is_a_component():
    solved = solve(pieces(complete(4), [[0]]), 5)
    assert solved.components == 2
    np.testing.assert_allclose(solved.values, [0, 0, 4 / 3, 4 / 3, 4 / 3], atol=EXACT)
    assert np.isfinite(solved.vectors).all()


def test_lanczos_agrees_with_the_dense_solution_and_repeats():
    features = np.random.default_rng(0).standard_normal((700, 4))
    graph = NearestNeighbours().affinity(features)
    solved = spectrum(graph, 12)
    expected = np.linalg.eigvalsh(laplacian(graph.toarray()))[:12]
    np.testing.assert_allclose(solved.values, np.maximum(expected, 0), atol=EXACT)
    again = spectrum(graph, 12)
    np.testing.assert_array_equal(solved.vectors, again.vectors)
    other = spectrum(graph, 12, seed=5)
    np.testing.assert_allclose(solved.vectors, other.vectors, atol=1e-6)


def normalised_adjacency(n=1500):
    features = np.random.default_rng(1).standard_normal((n, 4)).astype(np.float32)
    graph = NearestNeighbours().affinity(features)
    root = np.sqrt(graph.sum(axis=1))
    return graph, graph / root[:, None] / root[None], root / np.linalg.norm(root)


def test_torch_finds_the_same_spectrum_as_lanczos():
    graph, adjacency, root = normalised_adjacency()
    solved = spectrum(graph, 8)
    values, vectors = lobpcg.leading(adjacency.tocsr(), root, 7, seed=0, tolerance=1e-6, device="cpu")
    np.testing.assert_allclose(1 - values, solved.values[1:], atol=1e-10)
    np.testing.assert_allclose(np.abs((vectors * solved.vectors[:, 1:]).sum(axis=0)), 1, atol=1e-6)


def test_torch_gives_no_answer_whose_residuals_are_too_large():
    _, adjacency, root = normalised_adjacency(300)
    options = {"seed": 0, "tolerance": 1e-6, "device": "cpu"}
    assert lobpcg.leading(adjacency.tocsr(), root, 7, iterations=3, **options) is None


def test_the_order_of_samples_does_not_matter():
    features = np.random.default_rng(0).standard_normal((400, 3))
    order = np.random.default_rng(1).permutation(400)
    values = spectrum(NearestNeighbours().affinity(features), 8).values
    shuffled = spectrum(NearestNeighbours().affinity(features[order]), 8).values
    np.testing.assert_allclose(values, shuffled, atol=EXACT)


@pytest.mark.parametrize(
    ("graph", "k", "message"),
    [
        (np.ones((2, 3)), 1, "square"),
        (np.zeros((0, 0)), 1, "square"),
        (complete(3), 0, "k=0"),
        (-complete(3), 1, "not negative"),
        (complete(3) * np.nan, 1, "finite"),
        (np.triu(complete(3)), 1, "not symmetric"),
        (np.ones((3, 3)), 1, "self-loops"),
    ],
)
def test_what_is_no_affinity_matrix_is_refused(graph, k, message):
    with pytest.raises(ValueError, match=message):
        solve(graph, k)


def test_row_normalised_vectors_lie_on_the_sphere():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(row_normalised(vectors), [[0.6, 0.8], [0, 0]])


def test_eigengap_of_well_separated_groups():
    best, *others = eigengap(np.array([0, 0.001, 0.002, 0.3, 0.36, 0.4]))
    assert best.k == 3
    assert best.gap == pytest.approx(0.298)
    assert best.relative == pytest.approx(0.298 / 0.3)
    assert [gap.k for gap in others] == [4, 5, 2]


def test_components_outweigh_a_somewhat_larger_gap_higher_up():
    assert eigengap(np.array([0, 0, 0.04, 0.05, 0.06, 0.2, 0.21]))[0].k == 2


def test_a_gap_among_tiny_eigenvalues_is_no_gap():
    assert eigengap(np.array([0, 0, 0.0001, 0.0002, 0.3, 0.31]))[0].k == 4


def test_eigengap_skips_one_and_needs_three_eigenvalues():
    assert eigengap(np.array([0, 0.9, 0.95, 1.0]))[0].k >= 2
    assert eigengap(np.array([0, 0.9]))[0] == (1, 0.0, 0.0)
    assert eigengap(np.array([]))[0].k == 1
