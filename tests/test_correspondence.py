"""Clusters of one analysis among those of another."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import stores
from spray.analysis import Analysis, analyze
from spray.analysis.correspondence import adjusted_rand, compare, contingency, corresponding
from spray.analysis.null import GaussianNull
from spray.analysis.stability import Stability
from stores.analysis import Clustering, GroupAnalysis


def group(labels, rows=None):
    labels = np.asarray(labels)
    return GroupAnalysis(
        group=0,
        status="ok",
        rows=np.arange(len(labels)) if rows is None else np.asarray(rows),
        zero_rows=np.zeros(0, int),
        invalid_rows=np.zeros(0, int),
        eigenvalues=np.zeros(0),
        vectors=np.zeros((len(labels), 0)),
        components=1,
        strategies=1,
        eigengap={},
        clusterings={"hdbscan": Clustering(labels)},
        pictures={},
    )


def test_renamed_clusters_match_in_full():
    found = corresponding(group([0, 0, 0, 1, 1, -1]), group([1, 1, 1, 0, 0, -1]))
    assert [match[:3] for match in found.matches] == [(0, 1, 3), (1, 0, 2)]
    assert all(match.jaccard == 1 for match in found.matches)
    assert found.adjusted_rand == pytest.approx(1)


def test_a_split_cluster_matches_its_larger_part():
    found = corresponding(group([0] * 10 + [1] * 4), group([0] * 7 + [1] * 3 + [2] * 4))
    assert found.matches[0] == (1, 2, 4, 1.0)
    assert found.matches[1] == (0, 0, 7, 0.7)
    assert found.unmatched_left == ()
    assert found.unmatched_right == (1,)


def test_only_common_samples_count():
    found = corresponding(group([0, 0, 1, 1], rows=[0, 1, 2, 3]), group([1, 0, 0], rows=[1, 2, 3]))
    assert found.samples == 3
    assert [match.common for match in found.matches] == [2, 1]


def test_of_two_stores_ids_tell_what_is_the_same():
    left, right = group([0, 0, 1, 1]), group([1, 1, 0, 0])
    found = corresponding(left, right, ids=(["a", "b", "c", "d"], ["d", "x", "a", "b"]))
    assert found.samples == 3
    assert [match[:3] for match in found.matches] == [(0, 0, 2), (1, 1, 1)]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["a", "b"], "2 ids were given, and row 3 was analysed"),
        (["a", "b", "a", "c"], "2 .* have the id 'a'"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        corresponding(group([0] * 4), group([0] * 4), ids=(["a", "b", "c", "d"], ids))


def test_analyses_of_two_versions_of_the_data_compare_by_ids(tmp_path):
    one = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")
    runs = [stores.synthetic.make(tmp_path / f"{n}.zarr", samples=n, classes=2) for n in (240, 160)]
    left, right = (analyze(run, one) for run in runs)
    with pytest.raises(ValueError, match="two stores"):
        compare(left, right)
    found = compare(left, right, "kmeans", tuple(runs))
    common = set(runs[0].samples.read("id")) & set(runs[1].samples.read("id"))
    assert sum(each.samples for each in found.values()) == len(common) > 0


def test_classes_of_two_stores_are_the_same_by_name(tmp_path):
    one = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")
    names = [["cat", "dog"], ["dog", "cat"], ["emu", "owl"], ["cat", "cat"]]
    runs = [
        stores.synthetic.make(tmp_path / f"{n}.zarr", samples=120, classes=2, names=each)
        for n, each in enumerate(names)
    ]
    analyses = [analyze(run, one) for run in runs]
    found = compare(analyses[0], analyses[1], "kmeans", (runs[0], runs[1]))
    for group, each in found.items():
        left, right = analyses[0].read(group), analyses[1].read(1 - group)
        assert each == corresponding(
            left, right, "kmeans", (runs[0].samples.read("id"), runs[1].samples.read("id"))
        )
    with pytest.raises(ValueError, match="no group in common"):
        compare(analyses[0], analyses[2], "kmeans", (runs[0], runs[2]))
    with pytest.raises(ValueError, match="2 classes named 'cat'"):
        compare(analyses[0], analyses[3], "kmeans", (runs[0], runs[3]))


def test_nothing_in_common():
    found = corresponding(group([0, 0], rows=[0, 1]), group([0, 0], rows=[2, 3]))
    assert (found.matches, found.samples) == ((), 0)
    assert np.isnan(found.adjusted_rand)


def test_the_adjusted_rand_index_is_scikit_learns():
    rng = np.random.default_rng(0)
    left, right = rng.integers(-1, 4, 200), rng.integers(-1, 3, 200)
    right[:100] = np.minimum(left[:100], 2)
    expected = adjusted_rand_score(left, right)
    assert adjusted_rand(contingency(left, right)) == pytest.approx(expected)


def test_an_unknown_clustering_is_named():
    with pytest.raises(KeyError, match="no clustering 'kmeans'; it has hdbscan"):
        corresponding(group([0]), group([0]), "kmeans")


def test_stored_analyses_compare_group_by_group(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=240, classes=2)
    one = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")
    left, right = analyze(run, one), analyze(run, dataclasses.replace(one, seed=1))
    found = compare(left, right, "kmeans")
    assert sorted(found) == [0, 1]
    assert all(0.5 < each.adjusted_rand <= 1 for each in found.values())


def test_classes_compare_with_a_joint_analysis_and_nothing_with_other_classes(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=240, classes=2)
    one = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")
    joint = analyze(run, one, group_by="all")
    alone = [analyze(run, dataclasses.replace(one, seed=seed), groups=[seed]) for seed in (0, 1)]
    for seed, of_class in enumerate(alone):
        for found in (compare(of_class, joint, "kmeans"), compare(joint, of_class, "kmeans")):
            assert list(found) == [seed]
            assert found[seed].samples == len(of_class.read(seed).rows)
    with pytest.raises(ValueError, match="no group in common"):
        compare(*alone)
