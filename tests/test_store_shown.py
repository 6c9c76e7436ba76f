"""What notebooks show of a store's objects."""

from __future__ import annotations

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

import stores.synthetic
from stores.shown import bitmap, maps_html, red_blue

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("shown") / "run.zarr", samples=90)


def pictures(html):
    found = re.findall(r"data:image/bmp;base64,([A-Za-z0-9+/=]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in found]


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (4, 4)])
def test_a_bitmap_holds_the_picture(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(bitmap(picture)))), picture)


def test_relevance_is_white_at_zero_red_above_and_blue_below():
    colours = red_blue(np.array([[2.0, -2.0, 0.0]]))[0]
    assert colours.tolist() == [[255, 0, 0], [0, 0, 255], [255, 255, 255]]
    assert (red_blue(np.zeros((2, 2))) == 255).all()
    assert (red_blue(np.full((2, 2), np.nan)) == 255).all()


def test_a_run_its_tables_and_analyses_tell_what_they_hold(run):
    told = run._repr_html_()
    assert "90 samples" in told and "relevance/epsilon_plus_flat" in told and run.analysis().id in told
    assert "thumbnail" in run.samples._repr_html_()
    findings = run.analysis().findings()
    told = run.analysis()._repr_html_()
    assert all(finding.name in told for finding in findings)
    assert told.count("⚑") == sum(finding.flagged for finding in findings)


def test_a_finding_shows_its_map_and_pictures_before_and_after(run):
    finding = run.analysis().findings()[0]
    mean, *strips = pictures(finding._repr_html_())
    np.testing.assert_array_equal(mean[:, :-1], red_blue(finding.mean_map))
    assert len(strips) == 4
    stored = finding.pictures["removed"][0]
    np.testing.assert_array_equal(strips[1][:, : stored.shape[1], 0], stored[..., 0])
    bare = dataclasses.replace(finding, pictures={}, mean_map=None)
    assert pictures(bare._repr_html_()) == []


def verdict(run, **changes):
    fields = {"subject": "sample", "analysis": run.analysis().id, "key": "a", "verdict": "clever_hans"}
    fields |= {
        "note": "the tag",
        "annotator": "A. Auditor",
        "time": "2026-01-02T10:00:00Z",
        "members": ("a",),
    }
    return stores.Verdict(**{**fields, **changes})


def test_lists_of_findings_and_verdicts_show_themselves_and_stay_lists(tmp_path, run):
    findings = run.analysis().findings()
    told = findings._repr_html_()
    assert isinstance(findings, list) and told.count("<tr>") == len(findings) + 1
    assert all(finding.name in told and f"{finding.score:.2f}" in told for finding in findings)
    judged = stores.synthetic.make(tmp_path / "judged.zarr", samples=30)
    assert "<tr>" in judged.verdicts()._repr_html_() and judged.verdicts() == []
    judged.add_verdict(verdict(judged))
    told = judged.verdicts()._repr_html_()
    assert judged.verdicts() == [verdict(judged)]
    for words in ("Clever Hans", "the tag", "A. Auditor", "2026-01-02", "sample"):
        assert words in told and words in verdict(judged)._repr_html_()


def test_long_lists_are_cut_and_say_so(run):
    told = type(run.analysis().findings())(run.analysis().findings()[:1] * 1060)._repr_html_()
    assert told.count("<tr>") == 51 and "and 1,010 more" in told


def test_the_analysis_of_a_class_tells_its_strategies_and_clusters(run):
    group = run.analysis().read(run.analysis().groups[0])
    told = group._repr_html_()
    assert f"{len(group.rows):,}" in told and group.status in told
    assert all(name in told for name in group.clusterings)
    clusters = len(set(group.clusterings["kmeans"].labels.tolist()) - {-1})
    assert f"{clusters} clusters" in told


def test_a_clustering_tells_the_sizes_and_provenance_its_steps(run):
    clustering = stores.Clustering(np.array([1, 1, 0, -1, 1]), parameters={"k": HOSTILE})
    told = clustering._repr_html_()
    assert "<b>2 clusters</b> of 5 samples, 1 of them noise" in told and HOSTILE not in told
    assert re.findall(r"<td[^>]*>(\d+)</td>", told) == ["1", "3", "0", "1"]  # the largest first
    made = stores.Provenance(
        ({"name": "analyze", "seed": 7, "note": HOSTILE},), parents=("0123456789abcdef",)
    )
    told = made._repr_html_()
    assert made.id[:12] in told and "from 0123456789ab<" in told and "seed" in told and HOSTILE not in told


def test_maps_are_shown_each_on_its_own_scale_with_their_numbers():
    maps = np.array([[[1.0, -1.0]], [[0.0, 100.0]]])
    told = maps_html(maps, {"target": [3, 4], "sum": [0.0, 100.0]})
    (strip,) = pictures(told)
    np.testing.assert_array_equal(strip[:, :2], red_blue(maps[0]))
    np.testing.assert_array_equal(strip[:, 3:5], red_blue(maps[1]))
    assert "2 samples" in told and told.count("<tr>") == 3 and ">100<" in told
    assert not pictures(maps_html(np.zeros((2, 9)), {})) and "0 samples" in maps_html(np.zeros((0, 4, 4)), {})


def test_names_of_strangers_are_text(tmp_path, run):
    finding = dataclasses.replace(
        run.analysis().findings()[0], name=HOSTILE, summary=HOSTILE, notes=(HOSTILE,)
    )
    assert HOSTILE not in finding._repr_html_()
    said = verdict(run, key=HOSTILE, note=HOSTILE, annotator=HOSTILE, time=HOSTILE, members=(HOSTILE,))
    assert "<script" not in said._repr_html_()
    hostile = stores.synthetic.make(
        tmp_path / f"{HOSTILE.replace('/', '')}.zarr", samples=30, metadata={HOSTILE: [HOSTILE] * 30}
    )
    assert (
        "<script"
        not in hostile._repr_html_() + hostile.samples._repr_html_() + hostile.analysis()._repr_html_()
    )
