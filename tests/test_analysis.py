"""The analysis of a group of samples: what a class may look like, and what comes of it."""

import dataclasses

import numpy as np
import pytest

from spray.analysis import Analysis
from spray.analysis.clustering import CLUSTERINGS, HDBSCAN, ClusterQR, KMeans
from spray.analysis.correspondence import adjusted_rand, contingency
from spray.analysis.features import PCA, Channels, Joint, Pooled, Reduced
from spray.analysis.graph import NearestNeighbours
from spray.analysis.null import GaussianNull
from spray.analysis.stability import Stability
from stores.analysis import ALL_CLASSES
from stores.provenance import describe

QUICK = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")


def planted(n=240, share=0.25, seed=0):
    """Smooth random maps around a common one, and in some of them most relevance in one corner instead."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:14, :14]
    smooth = np.exp(-((y[..., None, None] - y) ** 2 + (x[..., None, None] - x) ** 2) / 12)
    maps = np.einsum("nij,ijyx->nyx", 0.1 * rng.standard_normal((n, 14, 14)), smooth) + smooth[7, 7]
    tagged = rng.permutation(n) < share * n
    maps[tagged] *= 0.3
    maps[tagged, 1:4, 1:4] += 1 + 0.1 * rng.standard_normal((int(tagged.sum()), 3, 3))
    return maps.astype(np.float32), tagged


def same(one, other):
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if field.name == "clusterings":
            assert left.keys() == right.keys()
            for name in left:
                np.testing.assert_array_equal(left[name].labels, right[name].labels)
        elif field.name == "pictures":
            assert left.keys() == right.keys()
            for name in left:
                np.testing.assert_array_equal(left[name], right[name])
        elif isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


def test_a_planted_strategy_is_found_whole_and_pure():
    maps, tagged = planted()
    found = Analysis(picture="tsne").group(maps, np.arange(240) * 2, group=6)
    assert (found.group, found.status, found.strategies) == (6, "ok", 2)
    np.testing.assert_array_equal(found.rows, np.arange(240) * 2)
    assert ((found.clusterings["kmeans"].labels == 1) == tagged).mean() > 0.98
    labels = found.clusterings["hdbscan"].labels
    of_tag = np.isin(labels, [label for label in set(labels) if tagged[labels == label].mean() > 0.5])
    assert tagged[of_tag].mean() > 0.98
    assert of_tag[tagged].mean() > 0.95
    assert found.pictures["tsne"].shape == (240, 2)
    assert found.eigenvalues.shape == (16,)
    assert found.eigengap["null"]["deviations"] > 4
    assert found.facts["neighbours"] == 10


def test_equal_inputs_give_equal_results():
    maps, _ = planted()
    same(Analysis().group(maps), Analysis().group(maps))


def test_maps_without_the_corner_are_one_strategy():
    maps, _ = planted(share=0)
    found = Analysis(picture="none").group(maps)
    assert found.strategies == 1
    assert not found.clusterings["kmeans"].labels.any()


def test_the_scale_of_maps_does_not_matter():
    maps, _ = planted()
    same(QUICK.group(maps), QUICK.group(maps * np.float32(2.0**40)))


def test_an_empty_class():
    found = QUICK.group(np.zeros((0, 14, 14), np.float32), group=3)
    assert (found.status, found.components, found.strategies) == ("empty", 0, 0)
    assert found.clusterings["hdbscan"].labels.shape == (0,)
    assert found.vectors.shape == (0, 0)


def test_a_single_sample():
    found = Analysis(picture="tsne").group(planted(1)[0], np.array([7]))
    assert (found.status, found.components, found.strategies) == ("single", 1, 1)
    assert found.rows.tolist() == [7]
    assert found.clusterings["kmeans"].labels.tolist() == [0]
    assert found.pictures["tsne"].tolist() == [[0, 0]]


def test_identical_maps():
    found = QUICK.group(np.repeat(planted(1)[0], 30, axis=0))
    assert (found.status, found.strategies) == ("identical", 1)
    assert not found.clusterings["hdbscan"].labels.any()


def test_a_scaled_copy_is_identical():
    one = planted(1)[0]
    assert QUICK.group(np.concatenate([one, 3 * one])).status == "identical"


def test_maps_without_any_place_are_identical_whatever_their_sign_and_size():
    """Relevance that a rule spreads evenly: two groups by its sign would be no strategies."""
    size = np.random.default_rng(0).normal(size=30)
    found = QUICK.group(np.broadcast_to(size[:, None, None], (30, 8, 8)))
    assert (found.status, found.strategies) == ("identical", 1)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 12])
def test_fewer_samples_than_neighbours_or_eigenvectors(n):
    found = Analysis(picture="tsne").group(np.random.default_rng(0).standard_normal((n, 14, 14)))
    assert found.status == "ok"
    assert found.eigenvalues.shape == (min(n, 16),)
    assert found.facts["neighbours"] == min(n - 1, 10)
    assert found.clusterings["hdbscan"].labels.shape == (n,)
    assert found.pictures["tsne"].shape == (n, 2)


def test_duplicates_among_others():
    maps, tagged = planted()
    maps[tagged] = maps[np.flatnonzero(tagged)[0]]
    found = QUICK.group(maps)
    assert found.status == "ok"
    assert np.isfinite(found.vectors).all()
    labels = found.clusterings["hdbscan"].labels
    assert len(set(labels[tagged])) == 1
    assert not set(labels[tagged]) & set(labels[~tagged])


def test_zero_and_non_finite_maps_are_set_apart():
    maps, _ = planted(60)
    rows = np.arange(100, 160)
    maps[[3, 50]] = 0
    maps[7, 2, 2] = np.nan
    maps[9] = np.inf
    found = QUICK.group(maps, rows)
    assert found.zero_rows.tolist() == [103, 150]
    assert found.invalid_rows.tolist() == [107, 109]
    kept = np.delete(np.arange(60), [3, 50, 7, 9])
    np.testing.assert_array_equal(found.rows, rows[kept])
    same(QUICK.group(maps[kept], rows[kept]), dataclasses.replace(found, zero_rows=[], invalid_rows=[]))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_but_zeros_or_nan(value):
    found = QUICK.group(np.full((8, 14, 14), value))
    assert found.status == "empty"
    assert len(found.zero_rows) + len(found.invalid_rows) == 8


def test_disconnected_groups_count_as_components():
    rng = np.random.default_rng(0)
    maps = 0.05 * rng.standard_normal((90, 6, 6))
    maps[:30, 0] += 1
    maps[30:60, 3] += 1
    maps[60:, :, 5] += 1
    found = Analysis(neighbours=NearestNeighbours(5), picture="none").group(maps)
    assert (found.components, found.strategies) == (3, 3)
    assert found.eigenvalues[:3].tolist() == [0, 0, 0]
    assert found.facts["component_sizes"] == [30, 30, 30]


def groups_apart(count, size=40, seed=0):
    """Groups without an edge between them."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(count), size)
    centres = rng.standard_normal((count, 10, 10))
    return (centres[truth] + 0.1 * rng.standard_normal((len(truth), 10, 10))).astype(np.float32), truth


EVERY = tuple(step() for step in CLUSTERINGS.values())


@pytest.mark.parametrize("count", [15, 16, 17, 24])
def test_more_strategies_apart_than_eigenvectors_are_all_found(count):
    maps, truth = groups_apart(count)
    found = Analysis(clusterings=EVERY, picture="none").group(maps)
    assert (found.components, found.strategies) == (count, count)
    for clustering in found.clusterings.values():
        assert adjusted_rand(contingency(clustering.labels, truth)) == 1
    for name, measured in found.facts["stability"].items():
        assert measured["adjusted_rand"] > 0.99, name


@pytest.mark.parametrize("longer", [2, 10])
def test_two_longish_groups_apart_are_two_strategies(longer):
    """Their own smallest eigenvalues crowd near zero, so that no gap behind the second tells them apart."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 250)
    along, across = 20 * longer * rng.uniform(size=500), 20 * truth + rng.standard_normal(500)
    features = np.stack([along, across, *rng.standard_normal((3, 500))], axis=1).astype(np.float32)
    steps = Analysis(representation=Channels(norm="none"), clusterings=EVERY, picture="none")
    found = steps.features(features)
    assert found.components == 2
    assert found.strategies >= 2
    if found.strategies == 2:
        assert adjusted_rand(contingency(found.clusterings["kmeans"].labels, truth)) == 1


def test_two_poles_are_two_strategies():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    features = np.where(truth, 1, -1)[:, None] + 0.2 * rng.standard_normal((600, 2))
    found = Analysis(representation=Channels(), clusterings=EVERY, picture="none").group(
        features[:, :, None, None]
    )
    assert (found.components, found.strategies) == (2, 2)
    for name in ("kmeans", "agglomerative", "cluster_qr"):
        assert adjusted_rand(contingency(found.clusterings[name].labels, truth.astype(int))) == 1


def test_a_component_that_no_resample_of_the_null_shows_is_a_strategy_and_no_noise():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((12_030, 8)).astype(np.float32)
    features[12_000:, 0] += 30
    steps = dataclasses.replace(QUICK, representation=Channels(norm="none"), null=GaussianNull())
    found = steps.features(features)
    assert found.facts["component_sizes"] == [12_000, 30]
    assert found.strategies == 2
    assert found.clusterings["kmeans"].labels.tolist() == 12_000 * [0] + 30 * [1]
    own = found.clusterings["hdbscan"].labels[12_000:]
    assert own.min() == own.max() >= 0
    assert (found.clusterings["hdbscan"].labels == own[0]).sum() == 30


def test_small_pieces_do_not_hide_what_the_rest_does():
    maps, tagged = planted(400, share=0.2)
    rng = np.random.default_rng(1)
    pieces = np.repeat(rng.standard_normal((8, 14, 14)), 12, axis=0) + 1e-3 * rng.standard_normal(
        (96, 14, 14)
    )
    found = QUICK.group(np.concatenate([maps, 3 * pieces]))
    assert found.components >= 9
    labels = found.clusterings["hdbscan"].labels[:400]
    with_tag = contingency(labels, tagged.astype(int))[1:, 1:]
    assert with_tag.min(axis=1).sum() < 10  # hardly any beside those of the other kind


def test_more_pieces_than_memory_takes_vectors_for_are_the_strategies(monkeypatch):
    monkeypatch.setattr("spray.analysis.spectral._ENTRIES", 1)
    maps, truth = groups_apart(18)
    found = Analysis(clusterings=EVERY, picture="none").group(maps)
    assert (found.components, found.strategies) == (18, 18)
    for clustering in found.clusterings.values():
        assert adjusted_rand(contingency(clustering.labels, truth)) == 1


@pytest.mark.parametrize("brighter", [1.0, 1.5])
@pytest.mark.parametrize("copies", [12, 400])
def test_equal_maps_have_one_label(copies, brighter):
    maps = np.repeat(np.random.default_rng(0).standard_normal((3, 6, 6)), copies, axis=0)
    maps *= np.linspace(1, brighter, len(maps))[
        :, None, None
    ]  # equal but for rounding, once they are of one length
    truth = np.repeat(np.arange(3), copies)
    found = Analysis(clusterings=EVERY, picture="none").group(maps)
    assert found.strategies == 3
    for name, clustering in found.clusterings.items():
        assert adjusted_rand(contingency(clustering.labels, truth)) == 1, name
        assert clustering.parameters.get("noise", 0) == 0
        assert found.facts["stability"][name]["adjusted_rand"] == 1


def bursts(count, copies, n=1000, seed=0, noise=0.0):
    """Four groups, in which some samples occur many times."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    features = 2 * rng.standard_normal((4, 25))[truth] + rng.standard_normal((n, 25))
    for rows in rng.permutation(n)[: count * copies].reshape(count, copies):
        features[rows], truth[rows] = features[rows[0]], truth[rows[0]]
        features[rows] += noise * rng.standard_normal((copies, 25))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), truth


@pytest.mark.parametrize(("count", "copies", "noise"), [(12, 12, 0), (12, 12, 1e-7), (5, 60, 0), (150, 2, 0)])
def test_copies_count_once(count, copies, noise):
    features, truth = bursts(count, copies, noise=noise)
    rows = np.arange(1000) * 3
    steps = dataclasses.replace(QUICK, null=GaussianNull(), picture="tsne")
    found = steps.features(features, rows)
    assert (found.strategies, found.components) == (4, 4)
    assert adjusted_rand(contingency(found.clusterings["kmeans"].labels, truth)) > 0.99
    assert adjusted_rand(contingency(found.clusterings["hdbscan"].labels, truth)) > 0.9
    np.testing.assert_array_equal(found.rows, rows)
    once = np.unique(bursts(count, copies)[0], axis=0, return_index=True, return_inverse=True)
    assert len(once[0]) == 1000 - count * (copies - 1)
    assert found.facts["copies"] == found.facts["counted_once"] == count * (copies - 1)
    # All copies are where the first one is.
    for of_all in (found.vectors, found.pictures["tsne"], found.clusterings["hdbscan"].outlier):
        np.testing.assert_array_equal(of_all, of_all[once[1]][once[2].ravel()])
    alone = steps.features(features[np.sort(once[1])])
    np.testing.assert_array_equal(found.eigenvalues, alone.eigenvalues)
    assert "copies" not in alone.facts


def test_copies_among_approximate_neighbours_count_once():
    features, truth = bursts(12, 12)
    found = dataclasses.replace(QUICK, neighbours=NearestNeighbours(method="cells")).features(features)
    assert (found.components, found.facts["copies"]) == (4, 132)
    assert adjusted_rand(contingency(found.clusterings["hdbscan"].labels, truth)) > 0.99


def test_one_map_that_is_many_and_lies_apart_is_a_group():
    maps, tagged = planted()
    maps[tagged] = maps[np.flatnonzero(tagged)[0]]
    found = QUICK.group(maps)
    assert (found.facts["copies"], found.facts["counted_once"]) == (tagged.sum() - 1, 0)
    few = np.flatnonzero(tagged)[8:]  # eight are no group
    found = QUICK.group(np.delete(maps, few, axis=0))
    assert (found.facts["copies"], found.facts["counted_once"]) == (7, 7)


def test_hardly_any_distinct_maps_are_groups_of_copies():
    maps = np.random.default_rng(0).standard_normal((40, 6, 6))
    few = QUICK.group(np.repeat(maps[:39], 12, axis=0))
    assert (few.components, few.facts["copies"], few.facts["counted_once"]) == (39, 39 * 11, 0)
    enough = QUICK.group(np.repeat(maps, 12, axis=0))
    assert (enough.components, enough.facts["copies"], enough.facts["counted_once"]) == (1, 440, 440)


def beside_tiny(features, truth, count):
    """Those of the first two groups, beside tight groups of twelve far away."""
    rng = np.random.default_rng(1)
    far = rng.standard_normal((count, 25)) - 2 * features[truth < 2].mean(axis=0) * 25
    pieces = np.repeat(far, 12, axis=0) + 1e-3 * rng.standard_normal((12 * count, 25))
    pieces /= np.linalg.norm(pieces, axis=1, keepdims=True)
    return (
        np.concatenate([features[truth < 2], pieces.astype(np.float32)]),
        np.concatenate([truth[truth < 2], 4 + np.repeat(np.arange(count), 12)]),
    )


@pytest.mark.parametrize(("count", "entries"), [(20, 1), (400, 2**24)])
def test_many_small_pieces_do_not_cost_a_large_one_its_structure(count, entries, monkeypatch):
    """A few that leave no room for vectors, as in groups far larger than this one; and nine tenths of all samples."""
    features, truth = beside_tiny(*bursts(0, 1), count)
    monkeypatch.setattr("spray.analysis.spectral._ENTRIES", entries)
    steps = Analysis(clusterings=EVERY, picture="tsne", stability=Stability(draws=2))
    found = steps.features(features)
    assert (found.components, found.strategies) == (count + 2, count + 2)
    assert found.facts["components_without_vectors"] == count
    assert found.facts["samples_without_vectors"] == 12 * count
    tiny = truth >= 4
    for name, clustering in found.clusterings.items():
        clusters = 2 if name == "hdbscan" else count + 2
        expected = np.where(tiny, 4, truth) if name == "hdbscan" else truth
        assert adjusted_rand(contingency(clustering.labels, expected)) > 0.99, name
        assert clustering.parameters["clusters"] == clusters == clustering.labels.max() + 1
        assert found.facts["stability"][name]["adjusted_rand"] > 0.95, name
    # Too small for a cluster of it: HDBSCAN leaves them noise, as it does where they have vectors.
    assert (found.clusterings["hdbscan"].labels[tiny] == -1).all()
    assert found.clusterings["hdbscan"].parameters["noise"] >= 12 * count
    places = found.pictures["tsne"]
    assert len(np.unique(places[tiny], axis=0)) == 1
    assert (places[tiny][0] < places[~tiny].min(axis=0)).all()
    # The rest is found as if it were alone.
    alone = steps.features(features[~tiny])
    np.testing.assert_array_equal(
        found.clusterings["kmeans"].labels[~tiny], alone.clusterings["kmeans"].labels
    )
    np.testing.assert_array_equal(
        found.eigengap["null"]["significant"], alone.eigengap["null"]["significant"]
    )


def test_flat_maps_that_are_left_as_long_as_they_are_differ():
    levels = np.repeat([1.0, 100.0], 200)
    found = Analysis(representation=Pooled(norm="none"), picture="none").group(
        levels[:, None, None] * np.ones((6, 6))
    )
    assert (found.status, found.strategies) == ("ok", 2)
    assert adjusted_rand(contingency(found.clusterings["kmeans"].labels, np.repeat([0, 1], 200))) == 1


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match="from 0 to 4294967295"):
        Analysis(seed=seed)


def test_large_components_are_told_apart_beside_however_many_small_ones():
    """Two longish groups without an edge between them, and tight little ones that have no vectors of their own."""
    rng = np.random.default_rng(0)
    halves = np.arange(1000) % 2
    maps = [np.stack([5 * rng.random(1000), halves, *0.05 * rng.standard_normal((4, 1000))], axis=1)]
    for number in range(36):
        centre = np.array([5 * (number + 0.5) / 36, 4 + 3 * number, 0, 0, 0, 0])
        maps.append(centre + 0.05 * rng.standard_normal((14, 6)))
    step = Analysis(
        stability=Stability(draws=0),
        picture="none",
        representation=Channels(norm="none"),
        clusterings=(KMeans(),),
    )
    found = step.group(np.concatenate(maps))
    assert found.components == 38 and found.strategies >= 38
    labels = found.clusterings["kmeans"].labels[:1000]
    assert not set(labels[halves == 0]) & set(labels[halves == 1])


def test_k_means_of_nothing_but_components_takes_no_search():
    maps, truth = groups_apart(40)
    found = Analysis(clusterings=(KMeans(),), picture="none").group(maps)
    assert (found.components, found.strategies) == (40, 40)
    assert adjusted_rand(contingency(found.clusterings["kmeans"].labels, truth)) == 1


@pytest.mark.parametrize("step", [KMeans(40), ClusterQR(40), CLUSTERINGS["agglomerative"](40)])
def test_as_many_clusters_as_are_asked_for(step):
    maps, _ = planted()
    found = dataclasses.replace(QUICK, clusterings=(step, HDBSCAN())).group(maps)
    assert len(np.unique(found.clusterings[step.name].labels)) == 40
    assert found.clusterings[step.name].parameters["clusters"] == 40
    usual = QUICK.group(maps)  # the number of strategies is looked for as ever
    assert {gap["k"] for gap in found.eigengap["runners_up"]} == {
        gap["k"] for gap in usual.eigengap["runners_up"]
    }
    assert found.strategies == usual.strategies


def test_principal_components_can_be_what_is_analysed():
    maps, tagged = planted()
    reduced = dataclasses.replace(QUICK, reduction=Reduced(5))
    found = reduced.group(maps)
    by_hand = dataclasses.replace(QUICK, representation=Pooled(norm="none")).group(
        Reduced(5).transform(Pooled().transform(maps))[:, None]
    )
    same(found, by_hand)
    assert adjusted_rand(contingency(found.clusterings["kmeans"].labels, tagged.astype(int))) > 0.9
    tested = dataclasses.replace(reduced, null=GaussianNull()).group(maps)
    assert tested.eigengap["null"]["significant"]


@pytest.mark.parametrize("step", [PCA(5), Reduced(5)])
def test_principal_components_are_no_representation_and_the_refusal_says_what_is_meant(step):
    for wrong in (lambda: Analysis(representation=step), lambda: Joint((Pooled(), step))):
        with pytest.raises(ValueError, match=r"one at a time.*Analysis\(reduction=Reduced\(5\)\)"):
            wrong()


@pytest.mark.parametrize("given", ["pooled", Pooled, None])
def test_what_is_no_step_is_no_representation(given):
    with pytest.raises(ValueError, match="a representation is a step, such as Pooled"):
        Analysis(representation=given)


def test_channels_reveal_what_places_do_not():
    rng = np.random.default_rng(0)
    relevance = np.abs(rng.standard_normal((200, 8, 3, 3)))
    tagged = np.arange(200) < 60
    relevance[tagged, 5] += 6
    relevance[~tagged, 2] += 6
    by_channel = dataclasses.replace(QUICK, representation=Channels()).group(relevance)
    by_place = dataclasses.replace(QUICK, representation=Pooled()).group(relevance)
    assert by_channel.components == 2
    assert by_place.components == 1


def test_every_parameter_is_provenance():
    one = describe(Analysis())
    others = [
        Analysis(seed=1),
        Analysis(neighbours=NearestNeighbours(11)),
        Analysis(representation=Pooled(7)),
        Analysis(clusterings=(KMeans(), HDBSCAN(min_samples=3))),
        Analysis(clusterings=(ClusterQR(),)),
        Analysis(null=GaussianNull(draws=99)),
        Analysis(stability=Stability(draws=9)),
        Analysis(picture="none"),
    ]
    assert all(describe(other) != one for other in others)
    assert describe(Analysis(neighbours=NearestNeighbours(block_bytes=1))) == one


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Analysis(picture="pca"), "unknown picture"),
        (lambda: Analysis(eigenvectors=1), "at least 2 eigenvectors"),
        (lambda: Analysis(clusterings=(KMeans(2), KMeans(3))), "has one twice"),
        (lambda: QUICK.group(planted(4)[0], np.array([3, 2, 1, 0])), "row numbers must ascend"),
        (lambda: QUICK.group(planted(4)[0], np.arange(3)), "got 3 for 4 samples"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_joint_group_has_its_own_index():
    assert QUICK.group(planted(20)[0], group=ALL_CLASSES).group == ALL_CLASSES
