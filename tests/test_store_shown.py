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
from stores.shown import bitmap, red_blue

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


def test_names_of_strangers_are_text(tmp_path, run):
    finding = dataclasses.replace(
        run.analysis().findings()[0], name=HOSTILE, summary=HOSTILE, notes=(HOSTILE,)
    )
    assert HOSTILE not in finding._repr_html_()
    hostile = stores.synthetic.make(
        tmp_path / f"{HOSTILE.replace('/', '')}.zarr", samples=30, metadata={HOSTILE: [HOSTILE] * 30}
    )
    assert (
        "<script"
        not in hostile._repr_html_() + hostile.samples._repr_html_() + hostile.analysis()._repr_html_()
    )
