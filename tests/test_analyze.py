"""The analysis of a stored run: every class, resumed, in processes, jointly."""

import numpy as np
import pytest

import stores
from spray.analysis import Analysis, analyze
from spray.analysis.features import Channels, Joint, Pooled, Radial, require_channels
from spray.analysis.groups import choose_groups, gathered_features
from spray.analysis.null import GaussianNull
from spray.analysis.stability import Stability
from spray.config import AnalysisConfig, ConfigError
from spray.workflow import analysis_step
from stores.analysis import ALL_CLASSES

QUICK = Analysis(null=GaussianNull(draws=0), stability=Stability(draws=0), picture="none")


@pytest.fixture
def run(tmp_path):
    return stores.synthetic.make(tmp_path / "run.zarr", samples=240, classes=3)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run that tests only read."""
    return stores.synthetic.make(tmp_path_factory.mktemp("stored") / "run.zarr", samples=240, classes=3)


def test_every_class_is_stored_with_its_provenance(run):
    seen = []
    handle = analyze(run, QUICK, progress=lambda *call: seen.append(call))
    assert handle.groups == [0, 1, 2]
    assert seen == [(done, 3, "analysis") for done in range(4)]
    assert handle.facts["group_by"] == "label"
    assert handle.facts["relevance"] == "relevance/epsilon_plus_flat"
    assert handle.facts["grid"] == list(run.table(handle.facts["relevance"]).columns["input.place"].shape)
    assert run.table("relevance/epsilon_plus_flat").provenance.id in handle.provenance.parents
    labels = run.samples.read("label")
    rows = np.concatenate([handle.read(group).rows for group in handle.groups])
    np.testing.assert_array_equal(np.sort(rows), np.arange(run.n))
    assert all((labels[handle.read(group).rows] == group).all() for group in handle.groups)


def test_the_store_gives_what_the_arrays_give(run):
    handle = analyze(run, QUICK, groups=[1])
    rows = np.flatnonzero(run.samples.read("label") == 1)
    direct = QUICK.group(run.table("relevance/epsilon_plus_flat").read("input.place", rows), rows, 1)
    stored = handle.read(1)
    np.testing.assert_array_equal(stored.vectors, direct.vectors)
    np.testing.assert_array_equal(stored.clusterings["hdbscan"].labels, direct.clusterings["hdbscan"].labels)


def test_committed_groups_are_left_alone(run):
    first = analyze(run, QUICK, groups=[1])
    seen = []
    second = analyze(run, QUICK, progress=lambda *call: seen.append(call))
    assert second.id == first.id
    assert seen[0] == (1, 3, "analysis")
    assert second.groups == [0, 1, 2]


def test_an_interrupted_analysis_goes_on_with_the_same_bytes(run, tmp_path):
    def stop(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(run, QUICK, progress=stop)
    resumed = analyze(run, QUICK)
    other = stores.synthetic.make(tmp_path / "other.zarr", samples=240, classes=3)
    whole = analyze(other, QUICK)
    assert resumed.id == whole.id
    for group in whole.groups:
        np.testing.assert_array_equal(resumed.read(group).vectors, whole.read(group).vectors)


def test_other_parameters_make_another_analysis(run):
    assert analyze(run, QUICK, groups=[0]).id != analyze(run, Analysis(picture="none"), groups=[0]).id
    assert analyze(run, QUICK, groups=[0]).id != analyze(run, QUICK, groups=[0], group_by="prediction").id


def test_processes_give_the_same_result_as_one(run, tmp_path):
    several = analyze(run, QUICK, workers=2)
    other = stores.synthetic.make(tmp_path / "other.zarr", samples=240, classes=3)
    one = analyze(other, QUICK, workers=1)
    for group in one.groups:
        np.testing.assert_array_equal(several.read(group).vectors, one.read(group).vectors)


def test_a_joint_analysis_covers_all_classes(run):
    handle = analyze(run, QUICK, group_by="all")
    assert handle.groups == [ALL_CLASSES]
    assert len(handle.read(ALL_CLASSES).rows) == run.n


def test_failed_rows_are_set_apart(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=120, classes=2, failures=3)
    handle = analyze(run, QUICK)
    invalid = np.concatenate([handle.read(group).invalid_rows for group in handle.groups])
    failed = np.flatnonzero(~run.table("relevance/epsilon_plus_flat").ok)
    assert set(invalid) <= set(failed.tolist())
    assert not set(failed) & set(np.concatenate([handle.read(group).rows for group in handle.groups]))


def test_a_class_without_samples_is_empty(stored):
    rows = {0: np.arange(5), 7: np.zeros(0, dtype=np.int64)}
    with gathered_features(
        stored, "relevance/epsilon_plus_flat", "input.place", QUICK.representation, rows
    ) as got:
        assert len(got[0]) == 5
        assert QUICK.features(got[7], rows[7], 7).status == "empty"


def test_gathered_features_follow_their_groups_in_any_order(stored):
    rows = {2: np.array([5, 80, 200]), 0: np.array([0, 6, 239])}
    maps = stored.table("relevance/epsilon_plus_flat").read("input.place", np.arange(240))
    with gathered_features(
        stored, "relevance/epsilon_plus_flat", "input.place", QUICK.representation, rows
    ) as got:
        for group, members in rows.items():
            np.testing.assert_array_equal(got[group], QUICK.representation.transform(maps[members]))


def test_classes_by_name_and_index(stored):
    by_name = choose_groups(stored, "label", [stored.classes[1]])
    by_index = choose_groups(stored, "label", [1])
    assert list(by_name) == list(by_index) == [1]
    np.testing.assert_array_equal(by_name[1], by_index[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevance": "lrp"}, "no relevance 'lrp'.*epsilon_plus_flat"),
        ({"column": "layer9.channel"}, "no column 'layer9.channel'.*input.place"),
        ({"groups": [3]}, "no class 3"),
        ({"groups": ["shirt"]}, "0 classes named 'shirt'"),
        ({"group_by": "source"}, "unknown group_by 'source'"),
        ({"group_by": "all", "groups": [0]}, "leave out groups"),
        ({"workers": 0}, "workers=0"),
        ({"analysis": Analysis(representation=Channels(), picture="none"), "column": "start"}, "relevance"),
        ({"analysis": Analysis(representation=Channels(), picture="none")}, "rows for channels"),
    ],
)
def test_errors(stored, options, message):
    with pytest.raises(ValueError, match=message):
        analyze(stored, **options)


def test_channels_of_a_grey_full_map_are_refused():
    for shape in [(1, 8, 8), (1, 64)]:
        with pytest.raises(ValueError, match=r"input\.full has one channel.*'pooled'"):
            require_channels(Joint((Pooled(), Channels())), "input.full", shape)
    for shape in [(3, 8, 8), (1,), (16,)]:
        require_channels(Channels(), "input.full", shape)
    require_channels(Pooled(), "input.full", (1, 8, 8))


def test_a_configuration_names_representation_sign_and_clusterings():
    chosen = AnalysisConfig(
        column="input.place",
        representation="radial",
        sign="absolute",
        clusterings=("agglomerative", "cluster_qr"),
    )
    step = analysis_step(chosen)
    assert step.representation == Radial(sign="absolute")
    assert [each.name for each in step.clusterings] == ["agglomerative", "cluster_qr"]
    assert analysis_step(AnalysisConfig()) == Analysis()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"representation": "fourier"}, "expected one of pooled, channels, magnitude, radial, auto"),
        ({"representation": "auto+radial"}, "expected one of pooled, channels, magnitude, radial"),
        ({"sign": "negative"}, "analysis: sign: got 'negative', expected one of signed, absolute, positive"),
        ({"clusterings": ("dbscan",)}, "analysis: clusterings: got 'dbscan', expected one of kmeans"),
        ({"representation": "channels"}, "'channels' is for columns LAYER.channel; column is 'input.place'"),
    ],
)
def test_a_configuration_that_names_nothing_known_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        analysis_step(AnalysisConfig(**options))


def test_components_of_the_graph_are_told():
    from spray.cli.groups import neighbours_in_words

    group = {
        "class": "cat",
        "neighbours": 10,
        "components_without_vectors": 1500,
        "samples_without_vectors": 18000,
    }
    assert neighbours_in_words(group) == (
        "10, exact; in cat 1,500 small components of the graph (18,000 samples) count as a strategy each, and only the "
        "others were looked into"
    )
    group = {"class": "cat", "neighbours": 10, "components": 2, "component_sizes": [980, 20]}
    assert neighbours_in_words(group) == "10, exact; in cat the graph is in 2 pieces (980, 20 samples)"
    group = {"class": "cat", "neighbours": 10, "components": 40, "component_sizes": [30] * 32}
    assert neighbours_in_words(group).endswith("in 40 pieces (30, 30, 30, 30, 30, … samples)")
    group = {"class": "cat", "neighbours": 10, "zero": 2, "invalid": 1}
    assert neighbours_in_words(group) == "10, exact; in cat 2 of no relevance and 1 not finite set aside"
