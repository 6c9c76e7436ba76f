"""A finger on the report: taps and long presses on a phone, in headless Chromium with touch, offline."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from browser import IN_BROWSER, place_of

import reports
import stores.synthetic

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("touch") / "run.zarr", samples=150)


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


@pytest.fixture(scope="module")
def phone(browser, report):
    from browser import Visit

    v = Visit(browser, report.as_uri(), width=390, height=844, has_touch=True, is_mobile=True)
    yield v
    v.close()


@pytest.fixture
def v(phone):
    phone.again(width=390, height=844)
    phone.state("(scrollTo(0, 0), spray.card.hide(), null)")
    return phone


def press(v, x, y, milliseconds=None):
    """A finger that stays until a card is open, or is lifted at once where a time of 0 is given."""
    wire = v.context.new_cdp_session(v.page)
    wire.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    if milliseconds is None:
        v.settled("!document.getElementById('hover').hidden")
    wire.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def lonely_dot(v):
    """The dot that is farthest from all others, in sight."""
    v.page.locator("#panel-embedding").scroll_into_view_if_needed()
    at = np.array([place_of(v, i) for i in range(v.state("spray.state.chunk.n"))])
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(len(at))
    i = int(distance.min(axis=1).argmax())
    return i, at[i]


def in_sight(v, selector):
    box = v.page.locator(selector).bounding_box()
    return (
        box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] >= 0 and box["y"] + box["height"] <= 844
    )


@pytest.mark.parametrize("beside", [0, 9])
def test_a_tap_on_or_near_a_dot_opens_its_sample_and_shows_its_card(v, beside):
    i, (x, y) = lonely_dot(v)
    v.page.touchscreen.tap(x + beside, y)
    v.settled(f"spray.state.sample === {i}")
    assert f"sample={v.state(f'spray.state.chunk.rows[{i}]')}" in v.state("location.hash")
    assert v.page.locator("#hover").is_visible() and in_sight(v, "#hover")
    assert v.state(f"spray.state.chunk.ids[{i}]") in v.page.inner_text("#hover")
    assert v.pixels("#hover canvas", 2).std() > 5
    press(v, 200, 60, 0)
    assert v.page.locator("#hover").is_hidden(), "the next touch closes it"
    assert v.page.locator(".tile[aria-pressed=true]").get_attribute("data-position") == str(i)


def test_a_finger_that_stays_on_a_dot_shows_its_card_and_selects_nothing(v):
    i, (x, y) = lonely_dot(v)
    chosen = v.state("spray.state.selection.length")
    press(v, x, y)
    assert v.page.locator("#hover").is_visible() and in_sight(v, "#hover")
    assert v.state(f"spray.state.chunk.ids[{i}]") in v.page.inner_text("#hover")
    assert v.state("[spray.state.selection.length, spray.state.sample]") == [chosen, None]


@pytest.mark.parametrize("picture", [".tile", ".prototype .glimpse"])
def test_a_finger_that_stays_on_a_picture_shows_its_card_and_a_tap_opens_it(v, picture):
    one = v.page.locator(picture).nth(1)
    one.scroll_into_view_if_needed()
    position = one.get_attribute("data-position")
    box = one.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 20
    press(v, x, y)
    assert v.page.locator("#hover").is_visible() and in_sight(v, "#hover")
    assert v.state(f"spray.state.chunk.ids[{position}]") in v.page.inner_text("#hover")
    assert v.state("spray.state.sample") is None, "to look is not to choose"
    press(v, x, y, 0)
    v.settled(f"spray.state.sample === {position}")
    assert v.page.locator("#hover").is_hidden()


def test_a_finger_that_moves_opens_no_card(v):
    one = v.page.locator(".tile").first
    one.scroll_into_view_if_needed()
    box = one.bounding_box()
    x, y = box["x"] + 30, box["y"] + 30
    wire = v.context.new_cdp_session(v.page)
    before = v.state("scrollY")
    wire.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 6):
        point = {"x": x, "y": y - 30 * step}
        wire.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    v.settled(f"scrollY > {before} + 40")
    assert v.page.locator("#hover").is_hidden()
    wire.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert v.state("spray.state.sample") is None


def test_the_lasso_works_with_a_finger_once_it_is_chosen(v):
    tool = "spray.figures.embedding.model.toolbar.tools.find((it) => it.type === 'LassoSelectTool')"
    v.state(f"({tool}.active = true, null)")
    box = v.page.locator("#figure-embedding").bounding_box()
    if not 0 <= box["y"] <= 844 - box["height"]:
        v.page.locator("#panel-embedding").scroll_into_view_if_needed()
        box = v.page.locator("#figure-embedding").bounding_box()
    wire = v.context.new_cdp_session(v.page)
    left, right = box["x"] + 1, box["x"] + box["width"] - 4
    top, bottom = box["y"] + 60, box["y"] + box["height"] - 4
    path = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 8)]
    points = [
        (a + (c - a) * t / 5, b + (d - b) * t / 5)
        for (a, b), (c, d) in itertools.pairwise(path)
        for t in range(5)
    ]
    for kind, (x, y) in [("touchStart", points[0]), *(("touchMove", point) for point in points[1:])]:
        wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    wire.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    v.settled("spray.state.origin === 'brush' && spray.state.selection.length > 20")
    v.state(f"({tool}.active = false, null)")
