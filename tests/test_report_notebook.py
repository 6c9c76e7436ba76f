"""Figures for notebooks: plain Bokeh figures whose data are the store's."""

from __future__ import annotations

import json
import os
import re
from html import unescape

import numpy as np
import pytest
from bokeh.embed import json_item
from bokeh.models import HoverTool
from store_tools import with_twins

import reports
import stores.synthetic
from reports.notebook import coloured, outlined, overlaid, plain
from reports.theme import CLUSTER_COLOURS, COLOUR_MAPS, FLAGGED

TABLE = COLOUR_MAPS["bwr"].table()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("notebook") / "run.zarr", samples=120)


def serialised(figure):
    return json.loads(json.dumps(json_item(figure)))["doc"]


def test_the_embedding_colours_flagged_findings_and_tells_ids(run):
    finding = run.analysis().findings()[0]
    figure = reports.plot_embedding(run, finding.group)
    data = figure.select_one({"name": "points"}).data
    analysis = run.analysis().read(finding.group)
    picture = next(iter(analysis.pictures.values()))
    np.testing.assert_allclose(np.c_[data["x"], data["y"]], picture, rtol=1e-6)
    flagged = np.array(data["colour"]) == FLAGGED
    np.testing.assert_array_equal(analysis.rows[flagged], finding.rows)
    assert data["id"] == [str(name) for name in run.samples.read("id", analysis.rows)]
    assert ("id", "@id") in figure.select_one(HoverTool).tooltips, (
        "plain @id: braces could switch escaping off"
    )
    assert serialised(figure)["roots"]


def test_members_of_several_findings_have_the_colour_of_the_flagged_one_else_of_the_most_suspicious(tmp_path):
    again = with_twins(stores.synthetic.make(tmp_path / "run.zarr", samples=60))
    run = stores.open(tmp_path / "run.zarr")
    first, _, flagged = again.findings()
    data = reports.plot_embedding(run, first.group, analysis=again.id).select_one({"name": "points"}).data
    rows = again.read(first.group).rows
    colours = np.array(data["colour"])
    np.testing.assert_array_equal(rows[colours == FLAGGED], flagged.rows)
    np.testing.assert_array_equal(rows[colours == CLUSTER_COLOURS[0]], np.setdiff1d(first.rows, flagged.rows))


def test_the_spectrum_marks_the_gap(run):
    group = run.analysis().groups[0]
    analysis = run.analysis().read(group)
    figure = reports.plot_spectrum(run, group)
    np.testing.assert_allclose(figure.select_one({"name": "eigenvalues"}).data["value"], analysis.eigenvalues)
    assert figure.select_one({"name": "cut"}).location == analysis.strategies + 0.5
    assert serialised(figure)["roots"]


def test_a_cluster_shows_its_mean_map_and_members(run):
    finding = run.analysis().findings()[0]
    figure = reports.plot_cluster(run, finding.name, members=3)
    assert len(figure.renderers) == 4
    mean = figure.renderers[0].data_source.data["image"][0].view(np.uint8).reshape(-1, 4)
    assert (np.abs(mean[:, :3].astype(int) - (255, 0, 0)).max(axis=1) < 60).any(), "no red where the tag is"
    assert serialised(figure)["roots"]


def test_unknown_names_say_what_there_is(run):
    group = run.analysis().groups[0]
    with pytest.raises(KeyError, match="it has"):
        reports.plot_embedding(run, group, picture="nothing")
    with pytest.raises(KeyError, match="kmeans"):
        reports.plot_embedding(run, group, colour="nothing")
    with pytest.raises(KeyError, match="the findings are c"):
        reports.plot_cluster(run, "c9.f9")


def test_overlays_are_grey_where_there_is_no_relevance_and_coloured_where_there_is():
    thumbnail = np.full((4, 4, 3), 200, np.uint8)
    codes = np.array([[127, 0], [0, -127]], np.int8)
    picture = overlaid(thumbnail, codes, TABLE)
    assert picture[0, 0].tolist() == [255, 0, 0, 255]
    assert picture[3, 3].tolist() == [0, 0, 255, 255]
    assert np.ptp(picture[0, 3, :3].astype(int)) == 0
    assert coloured(codes, TABLE)[0, 1].tolist() == [255, 255, 255, 255]


def test_a_region_is_outlined_not_filled():
    region = np.zeros((4, 4), bool)
    region[1:3, 1:3] = True
    white = np.full((4, 4, 4), 255, np.uint8)
    large = outlined(white, region)
    black = (large[..., :3] == 0).all(-1)
    side = large.shape[0] // 4
    assert black[side, side] and not black[2 * side, 2 * side] and not black[0, 0]
    assert black[:side].sum() == black[3 * side :].sum() == 0


def test_formula_signs_in_names_stay_text():
    assert "$$" not in plain("a$$b$$") and "\\[" not in plain("x\\[y") and "\\(" not in plain("\\(z")


def test_the_inline_report_is_a_frame_that_cannot_reach_out(tmp_path, run):
    path = reports.build(run.path, tmp_path / "r.html", title='"><script>alert(1)</script>')
    html = reports.Inline(path)._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert html.count("<") == 2, (
        "the content of the frame is an attribute: no tag of it may stand in the notebook"
    )
    assert 'sandbox="allow-scripts allow-downloads"' in html


def test_figures_show_themselves_at_the_end_of_a_cell_and_fetch_nothing(run):
    finding = run.analysis().findings()[0]
    for figure in (
        reports.plot_embedding(run, finding.group),
        reports.plot_spectrum(run, finding.group),
        reports.plot_cluster(run, finding.name),
    ):
        html = figure._repr_html_()
        assert html.startswith("<iframe srcdoc=") and html.count("<") == 2
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", unescape(html.removeprefix("<iframe")))
        assert tags and not [tag for tag in tags if "http" in tag]


def test_findings_are_named_in_the_embedding(run):
    finding = run.analysis().findings()[0]
    figure = reports.plot_embedding(run, finding.group)
    labels = figure.select_one({"name": "labels"}).data
    points = figure.select_one({"name": "points"}).data
    mine = np.isin(run.analysis().read(finding.group).rows, finding.rows)
    assert labels["text"][0] == "F1"
    assert labels["x"][0] == pytest.approx(np.median(points["x"][mine]))


def test_the_path_of_a_report_is_a_path_and_shows_the_report(tmp_path, run):
    path = reports.build(run.path, tmp_path / "r.html")
    assert path == tmp_path / "r.html" and os.fspath(path) == str(tmp_path / "r.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert path._repr_html_().startswith("<iframe srcdoc=")
    assert path.parent._repr_html_() is None, "what is no report shows itself as any path"
    assert path.with_name("gone.html")._repr_html_() is None


def test_a_report_that_is_a_folder_says_where_it_is_in_a_notebook(tmp_path, run):
    written = reports.write(run.path, tmp_path / "<b>.html", carrier="folder")
    told = written.path._repr_html_()
    assert "index.html" in told and "spray serve" in told
    assert "iframe" not in told and "<b>" not in told
