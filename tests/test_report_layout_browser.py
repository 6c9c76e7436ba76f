"""The report's layout, words and addresses on windows of many sizes, in headless Chromium, offline."""

from __future__ import annotations

import json

import pytest
from browser import CHROMIUM, Visit, chromium

import reports
import stores
import stores.synthetic

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("layout") / "run.zarr")


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


@pytest.fixture
def visit(browser, report):
    visits = []

    def open_report(address="", url=None, **options):
        visits.append(Visit(browser, (url or report.as_uri()) + address, **options))
        return visits[-1]

    yield open_report
    for one in visits:
        one.close()


def height(v, selector):
    return v.page.locator(selector).bounding_box()["height"]


@pytest.mark.parametrize("size", [(1366, 768), (1280, 720), (1024, 768), (1440, 600), (1001, 640)])
def test_a_low_window_keeps_embedding_and_findings_and_scrolls(visit, size):
    width, tall = size
    v = visit(width=width, height=tall)
    assert height(v, "#figure-embedding") > 180
    v.page.locator("#clusters tbody tr").first.scroll_into_view_if_needed()
    row = v.page.locator("#clusters tbody tr").first.bounding_box()
    table = v.page.locator("#panel-clusters .scroll").bounding_box()
    assert row["y"] + row["height"] <= table["y"] + table["height"] + 1, "no row of the table is in sight"
    v.page.mouse.move(5, 300)
    v.page.locator("#panel-gallery").scroll_into_view_if_needed()
    assert v.page.locator("#gallery .tile").first.is_visible()
    for panel in v.page.locator("#page-class .panel").all():
        box = panel.bounding_box()
        inner = v.state(f"document.getElementById('{panel.get_attribute('id')}').scrollWidth")
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and inner <= box["width"] + 1
    assert v.state("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1440, 1180, 1024, 390])
def test_every_control_of_the_header_is_there_at_every_width(visit, width):
    v = visit(width=width, height=800)
    for control in ("#map", "#bar", "#scaling", "#opacity", "#theme"):
        box = v.page.locator(control).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width, control


@pytest.mark.parametrize("width", [1440, 1180, 1024])
def test_the_way_to_all_about_a_finding_covers_no_words(visit, width):
    v = visit(width=width, height=800)
    words, link = (v.page.locator(at).bounding_box() for at in ("#case-eyebrow", "#case-more"))
    beside = link["x"] >= words["x"] + words["width"] - 1
    below = link["y"] >= words["y"] + words["height"] - 1
    assert beside or below


def test_effects_have_one_sign_in_words_rows_and_axis(visit, run):
    finding = run.analysis().findings()[0]
    v = visit(f"#class={finding.group}&subject={finding.name}&page=cluster")
    entry = {"title": "region removed", "sign": -1, "mean": 0.1, "net": -0.05, "interval": [-0.12, 0.03]}
    entry |= {"controls": [["control", 0.15]], "images": 40, "way": None}
    measured = f"{{...{json.dumps(entry)}, measure: spray.measures.probability}}"
    plot = f"spray.effectPlot([{measured}], spray.measures.probability)"
    told = v.state(f"{plot}.querySelector('svg').getAttribute('aria-label')")
    assert "class probability −0.10" in told
    assert "net of the strongest control −0.05, 95 % between −0.12 and +0.03" in told
    rows = v.state(f"[...{plot}.querySelectorAll('.number')].map((at) => at.textContent)")
    assert rows == ["+0.10", "+0.15", "−0.05"]
    axis = v.state(f"[...{plot}.querySelectorAll('text')].map((at) => at.textContent)")
    ticks = [text for text in axis if text.replace("−", "").replace(".", "").isdigit()]
    assert ticks[:6] == ["−0.10", "−0.05", "0.00", "0.05", "0.10", "0.15"]
