"""Pictures of the spectral embedding."""

import numpy as np
import pytest

from spray.analysis.embedding import TSNE, UMAP, UMAP_WORTHWHILE, choose, picture
from spray.analysis.graph import NearestNeighbours
from spray.analysis.spectral import spectrum


def vectors(m=150, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((m, 4)) + 8 * (np.arange(m) < m // 2)[:, None]
    return spectrum(NearestNeighbours().affinity(features), 6).vectors


def nearest_in_own_half(coordinates):
    half = np.arange(len(coordinates)) < len(coordinates) // 2
    apart = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return (half[apart.argmin(axis=1)] == half).mean()


def test_tsne_keeps_neighbours_and_repeats():
    once, again = picture(TSNE(), vectors()), picture(TSNE(), vectors())
    np.testing.assert_array_equal(once, again)
    assert once.shape == (150, 2)
    assert once.dtype == np.float32
    assert nearest_in_own_half(once) > 0.98


@pytest.mark.slow
def test_umap_keeps_neighbours_and_repeats():
    once, again = picture(UMAP(), vectors()), picture(UMAP(), vectors())
    np.testing.assert_array_equal(once, again)
    assert nearest_in_own_half(once) == 1


@pytest.mark.parametrize("m", [2, 3, 5, 6, 8])
def test_few_samples_have_a_picture(m):
    embedding = np.linalg.qr(np.random.default_rng(0).standard_normal((m, m)))[0]
    coordinates = picture(TSNE(), embedding)
    assert coordinates.shape == (m, 2)
    assert np.isfinite(coordinates).all()


def test_one_column_still_has_a_picture():
    assert picture(TSNE(), np.ones((3, 1))).tolist() == [[0, 0]] * 3


def test_samples_beyond_the_subsample_lie_among_their_neighbours():
    coordinates = picture(TSNE(), vectors(), subsample=100)
    assert np.isfinite(coordinates).all()
    assert nearest_in_own_half(coordinates) > 0.98


def test_duplicates_have_a_picture():
    coordinates = picture(TSNE(), np.repeat(np.eye(3), 20, axis=0))
    assert np.isfinite(coordinates).all()


def test_auto_spares_small_runs_the_start_of_umap():
    assert choose("auto", 1000) == "tsne"
    assert choose("auto", UMAP_WORTHWHILE) == "umap"
    assert choose("none", 10) == "none"
    with pytest.raises(ValueError, match=r"'pca'.*tsne, umap, auto, none"):
        choose("pca", 10)
