"""Representations of relevance maps."""

import numpy as np
import pytest

from spray.analysis.features import (
    PCA,
    REPRESENTATIONS,
    Channels,
    Joint,
    Magnitude,
    Pooled,
    Radial,
    Reduced,
    alike,
    transformed,
    usable,
)


def maps(n=6, size=12, seed=0):
    return np.random.default_rng(seed).standard_normal((n, size, size)).astype(np.float32)


def test_pooling_averages_blocks():
    relevance = maps(size=12)
    expected = relevance.reshape(6, 4, 3, 4, 3).mean(axis=(2, 4)).reshape(6, 16)
    np.testing.assert_allclose(Pooled(4, norm="none").transform(relevance), expected, rtol=1e-5)


def test_blocks_of_maps_become_the_same_features():
    relevance = maps(n=50)
    np.testing.assert_array_equal(transformed(Radial(), relevance, block=16), Radial().transform(relevance))


def test_pooling_to_a_size_that_does_not_divide_keeps_the_mean():
    relevance = maps(size=7)
    pooled = Pooled(3, norm="none").transform(relevance)
    np.testing.assert_allclose(pooled.mean(axis=1), relevance.mean(axis=(1, 2)), rtol=1e-4, atol=1e-7)


def test_maps_smaller_than_the_grid_are_not_enlarged():
    assert Pooled(32).transform(maps(size=5)).shape == (6, 25)


def test_channels_are_summed_by_place_and_places_by_channel():
    relevance = np.random.default_rng(1).standard_normal((3, 4, 5, 6))
    by_place = Pooled(norm="none").transform(relevance)
    by_channel = Channels(norm="none").transform(relevance)
    np.testing.assert_allclose(by_place, relevance.sum(axis=1).reshape(3, 30), rtol=1e-5)
    np.testing.assert_allclose(by_channel, relevance.sum(axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norms_hold_at_any_scale_and_keep_the_sign(norm, order, scale):
    features = Pooled(norm=norm).transform(maps().astype(np.float64) * scale)
    np.testing.assert_allclose(np.linalg.norm(features, order, axis=1), 1, rtol=1e-5)
    assert ((features > 0) == (maps().reshape(6, -1) > 0)).all()


def test_signs():
    relevance = maps()
    np.testing.assert_allclose(
        Pooled(sign="absolute", norm="none").transform(relevance), np.abs(relevance).reshape(6, -1)
    )
    assert Pooled(sign="positive").transform(relevance).min() == 0


def test_zero_maps_stay_zero_and_non_finite_ones_become_nan():
    relevance = maps(4)
    relevance[1] = 0
    relevance[2, 0, 0] = np.nan
    relevance[3, 5, 5] = np.inf
    finite, zero = usable(Pooled(4).transform(relevance))
    assert finite.tolist() == [True, True, False, False]
    assert zero.tolist() == [False, True, False, False]


@pytest.mark.parametrize("step", [Magnitude(), Radial()])
def test_spectra_do_not_move_with_the_map(step):
    relevance = maps()
    shifted = np.roll(relevance, (3, 5), axis=(1, 2))
    np.testing.assert_allclose(step.transform(shifted), step.transform(relevance), atol=1e-6)
    assert not np.allclose(Pooled().transform(shifted), Pooled().transform(relevance), atol=0.1)


def test_radial_spectrum_of_a_wave_peaks_at_its_frequency():
    wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16)
    across, along = np.tile(wave, (16, 1)), np.tile(wave[:, None], (1, 16))
    spectra = Radial().transform(np.stack([across, along]))
    assert spectra.argmax(axis=1).tolist() == [3, 3]
    np.testing.assert_allclose(spectra[0], spectra[1], atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1", "none"])
def test_joint_weighs_its_parts_alike(norm):
    features = Joint((Pooled(4, norm=norm), Magnitude(4))).transform(100 * maps())
    np.testing.assert_allclose(np.linalg.norm(features[:, :16], axis=1), np.sqrt(0.5), rtol=1e-5)


def test_joint_without_a_norm_leaves_its_parts_as_they_are():
    parts = Pooled(4, norm="none"), Magnitude(4, norm="l1")
    features = Joint(parts, norm="none").transform(100 * maps())
    expected = np.concatenate([part.transform(100 * maps()) for part in parts], axis=1)
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("shape", [(1, 64), (64, 1)])
def test_radial_spectrum_of_a_line_goes_to_its_own_highest_frequency(shape):
    line = np.arange(64)
    waves = np.stack([np.cos(2 * np.pi * cycles * line / 64).reshape(shape) for cycles in (5, 20, 32)])
    spectra = Radial().transform(waves)
    assert spectra.shape == (3, 33)
    assert spectra.argmax(axis=1).tolist() == [5, 20, 32]


def test_rows_do_not_depend_on_the_others_of_their_shard():
    relevance = maps(8)
    for step in [cls() for cls in REPRESENTATIONS.values()]:
        whole = step.transform(relevance)
        parts = np.concatenate([step.transform(relevance[:3]), step.transform(relevance[3:])])
        np.testing.assert_array_equal(whole, parts)


def test_samples_with_the_very_same_features_are_told():
    features = maps(60).reshape(60, -1)
    features[[7, 50]] = features[3]
    features[9], features[20] = 0.0, -0.0
    features[11] = np.nextafter(features[12], 9)  # almost
    features[13] = np.roll(features[14], 1)  # the same numbers elsewhere
    found = alike(features, block=16)
    same = {frozenset(np.flatnonzero(found == number).tolist()) for number in found}
    assert {group for group in same if len(group) > 1} == {frozenset({3, 7, 50}), frozenset({9, 20})}


@pytest.mark.parametrize("step", [Pooled(), Magnitude(7), Radial(), Joint((Radial(), Pooled()))])
def test_a_map_that_is_not_finite_is_set_apart_without_a_word(step):
    given = maps()
    given[2, 3, 3], given[4, 1, 1] = np.inf, np.nan
    assert np.flatnonzero(~usable(step.transform(given))[0]).tolist() == [2, 4]


def test_no_maps_give_no_features():
    assert Pooled(4).transform(np.zeros((0, 12, 12), np.float32)).shape == (0, 16)


def test_pca_equals_the_singular_value_decomposition():
    features = np.random.default_rng(0).standard_normal((200, 30)).astype(np.float32) * np.arange(1, 31)
    coordinates = PCA(5).transform(features)
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(left * values)[:, :5], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [30, 4])
def test_pca_of_few_samples_by_the_products_between_them_is_that_by_moments(n):
    features = np.random.default_rng(0).standard_normal((n, 60)) * np.arange(1, 61)
    mean = features.mean(axis=0)
    axes = np.linalg.eigh((features - mean).T @ (features - mean))[1][:, ::-1][:, : min(5, n - 1)]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    expected = np.zeros((n, 5))
    expected[:, : axes.shape[1]] = (features - mean) @ axes
    found = PCA(5)._from_products(features, mean)
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_array_equal(PCA(5).transform(features), found.astype(np.float32))


def test_pca_of_long_vectors_takes_no_square_of_their_length():
    features = np.random.default_rng(0).standard_normal((20, 200_000), dtype=np.float32)  # squared: 320 GB
    found = Reduced(5).transform(features)
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(left * values)[:, :5], rtol=1e-3, atol=1e-3)


def test_pca_leaves_few_columns_alone():
    features = np.ones((4, 3), np.float32)
    assert PCA(5).transform(features) is features


@pytest.mark.parametrize(
    ("step", "shape", "message"),
    [
        (Pooled(), (2, 3), "needs maps of shape"),
        (Pooled(0), (2, 8, 8), "size of at least 1"),
        (Pooled(sign="both"), (2, 8, 8), "unknown sign 'both'"),
        (Pooled(norm="max"), (2, 8, 8), "unknown norm 'max'"),
        (Channels(), (2,), "needs relevance"),
        (Joint(()), (2, 8, 8), "at least one part"),
        (Radial(), (2, 1, 1), "are one place; take maps of more places"),
        (Radial(1), (2, 8, 8), "one place at size 1"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(step, shape, message):
    with pytest.raises(ValueError, match=message):
        step.transform(np.ones(shape))
