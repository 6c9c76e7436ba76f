"""Stability of clusters over resamples."""

import numpy as np
import pytest

from spray.analysis import Analysis
from spray.analysis.null import GaussianNull
from spray.analysis.stability import Stability


def test_the_same_clusters_every_time_are_stable():
    labels = (np.arange(100) >= 40).astype(int)
    found = Stability().measure({"cut": labels}, lambda some: {"cut": (some >= 40).astype(int)})
    assert found == {"cut": {"adjusted_rand": 1.0, "clusters": [1.0, 1.0], "draws": 2}}


def test_a_cluster_that_dissolves_is_told_from_one_that_stays():
    labels = np.repeat([0, 1, 2], 100)

    def again(some):
        rng = np.random.default_rng(some[0])
        half = np.where(some < 100, 0, rng.integers(1, 3, len(some)))
        return {"half": half}

    found = Stability().measure({"half": labels}, again)["half"]
    assert found["clusters"][0] == 1
    assert max(found["clusters"][1:]) < 0.5


def test_a_cluster_without_samples_in_a_resample_counts_as_lost():
    labels = np.zeros(50, int)
    labels[-1] = 1
    step, found_again = Stability(share=0.5), lambda some: {"one": (some == 49).astype(int)}
    found = step.measure({"one": labels}, found_again, seed=1)["one"]
    assert found["clusters"] == pytest.approx([1, 0.4]) and found["draws"] == 5


@pytest.mark.parametrize(("kept", "draws"), [(45, 3), (32, 7)])
def test_what_is_neither_stable_nor_dissolved_is_drawn_as_often_as_allowed(kept, draws):
    labels = np.repeat([0, 1], 50)
    found = Stability(draws=7).measure({"part": labels}, lambda some: {"part": (some >= kept).astype(int)})
    assert found["part"]["draws"] == draws


def test_no_draws_measure_nothing():
    assert Stability(draws=0).measure({"all": np.zeros(4, int)}, lambda some: {}) == {}


def test_an_analysis_tells_the_stability_of_each_clustering():
    rng = np.random.default_rng(0)
    maps = 0.1 * rng.standard_normal((120, 6, 6))
    maps[:60, 0] += 1
    maps[60:, :, 5] += 1
    analysis = Analysis(null=GaussianNull(draws=0), picture="none")
    found = analysis.group(maps).facts["stability"]
    assert found["kmeans"]["adjusted_rand"] == 1
    assert found["kmeans"]["clusters"] == [1, 1]
    assert len(found["hdbscan"]["clusters"]) == analysis.group(maps).clusterings["hdbscan"].labels.max() + 1


def test_impossible_resamples_are_refused():
    with pytest.raises(ValueError, match=r"share=1\.5"):
        Stability(share=1.5)
