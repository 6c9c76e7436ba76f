"""Dots coloured by metadata: numbers on a scale that tells their order, names by the palette; in Chromium, offline."""

from __future__ import annotations

import numpy as np
import pytest
from browser import IN_BROWSER, Visit, place_of, serving
from store_tools import with_twins

import reports
import stores.synthetic
from reports.theme import CLUSTER_COLOURS, SCALES, THEMES, rgb

pytestmark = IN_BROWSER

SAMPLES = 150
AGE = np.random.default_rng(0).permutation(SAMPLES) / 2 + 1950.0
AGE[np.random.default_rng(2).permutation(SAMPLES)[:17]] = np.nan
DOSE = np.random.default_rng(1).random(SAMPLES)
DOSE[3] = 1e6
STAGE = np.arange(SAMPLES) % 5
CITIES = [f"city {i % 30}" for i in range(SAMPLES)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    metadata = {"age": AGE, "dose": DOSE, "stage": STAGE, "city": CITIES, "<b>$$": AGE}
    return stores.synthetic.make(
        tmp_path_factory.mktemp("colours") / "run.zarr", samples=SAMPLES, metadata=metadata
    )


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


def colour_by(v, name):
    """Choose a colouring, all samples selected; gives the ages in this class by position."""
    v.page.select_option("#colour", f"meta.{name}")
    v.state(
        "spray.set({ selection: Uint32Array.from({ length: spray.state.chunk.n }, (_, i) => i), origin: 'brush' })"
    )
    v.state(
        "(spray.figures.embedding.model.document.get_model_by_name('names').visible = false)"
    )  # a label covers dots
    v.page.mouse.move(2, 2)
    return AGE[list(v.state("Array.from(spray.state.chunk.rows)"))]


def expected(share, theme="light"):
    """The colour of a place on the scale, by a second, plainer writing."""
    stops = np.array([rgb(stop) for stop in SCALES[theme]], float)
    at = np.linspace(0, 1, len(stops))
    return np.array([np.interp(share, at, stops[:, c]) for c in range(3)])


def told(v):
    """The numbers of the dots' colours, uint32 0xrrggbbaa, as RGB."""
    found = v.state(
        "Array.from(spray.figures.embedding.model.document.get_model_by_name('points').data.colour)"
    )
    return np.array([[value >> 24, value >> 16 & 255, value >> 8 & 255] for value in found])


def apart(v):
    """Dots whose centres no other dot comes near, so that the screen shows their colour alone."""
    at = np.array([place_of(v, i) for i in range(v.state("spray.state.chunk.n"))])
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(len(at))
    return at, np.flatnonzero(distance.min(axis=1) > 9)


def check_screen(v, ages, theme):
    """Dots, one by one, and the bar have on the screen the colours that their numbers have on the scale."""
    at, alone = apart(v)
    assert len(alone) >= 5
    low, high = np.nanmin(ages), np.nanmax(ages)
    shot = v.pixels("body")
    card = np.array(rgb(THEMES[theme]["card"]))
    for i in alone[:12]:
        x, y = np.rint(at[i]).astype(int)
        full = (
            rgb(THEMES[theme]["dot"])
            if np.isnan(ages[i])
            else expected((ages[i] - low) / (high - low), theme)
        )
        seen = 0.95 * np.array(full) + 0.05 * card
        assert np.abs(shot[y, x] - seen).max() < 14, (i, ages[i], shot[y, x], seen)
    bar = v.pixels("#legend .ramp")
    middle = bar[bar.shape[0] // 2].astype(float)
    for share in (0.1, 0.5, 0.9):
        assert np.abs(middle[round(share * (len(middle) - 1))] - expected(share, theme)).max() < 14


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_many_numbers_have_a_scale_on_the_screen_with_its_bar_and_missing_ones_are_told(fresh, theme):
    v = fresh(color_scheme=theme)
    ages = colour_by(v, "age")
    check_screen(v, ages, theme)
    legend = v.page.inner_text("#legend")
    missing = int(np.isnan(ages).sum())
    assert missing and f"no number ({missing})" in legend
    ends = [f"{end:g}" for end in (np.nanmin(ages), np.nanmax(ages))]
    assert all(end in legend for end in ends), "years are written without a comma"
    assert (
        v.page.get_attribute("#legend .ramp", "aria-label") == f"colours of age from {ends[0]} to {ends[1]}"
    )
    colours = told(v)
    light = colours[~np.isnan(ages)] @ np.array([0.2126, 0.7152, 0.0722])
    order = np.argsort(ages[~np.isnan(ages)])
    assert (np.diff(light[order]) > -1.5).all(), "lightness alone tells the order"


def test_a_served_report_colours_numbers_alike(browser, run):
    with serving(run.path) as url:
        v = Visit(browser, url)
        check_screen(v, colour_by(v, "age"), "light")
        v.close()


def test_a_number_far_off_does_not_take_all_colours_from_the_others(visit):
    v = visit()
    row = 3
    for at in range(v.state("spray.report.groups.length")):
        v.state(f"spray.router.go({{ group: spray.report.groups[{at}].index }}).then(() => null)")
        if row in v.state("Array.from(spray.state.chunk.rows)"):
            break
    colour_by(v, "dose")
    legend = v.page.inner_text("#legend")
    assert "≤ 0.0" in legend and "≥ 0.9" in legend and "1,000,000" not in legend
    assert "2nd and the 98th percentile" in v.page.get_attribute("#legend .scale-bar", "title")
    assert len(np.unique(told(v), axis=0)) > 15


def test_a_handful_of_numbers_and_words_are_named(visit):
    v = visit()
    colour_by(v, "stage")
    assert v.page.locator("#legend .ramp").count() == 0
    named = v.page.locator("#legend span").all_inner_texts()
    assert [text.split(" ")[0] for text in named] == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    assert {tuple(colour) for colour in told(v)} == {rgb(hue) for hue in CLUSTER_COLOURS[:5]}
    colour_by(v, "city")
    cities = len(set(v.state("spray.state.chunk.metadata.city")))
    assert v.page.inner_text("#legend").split("\n")[-1].startswith(f"{cities - 7} more (")
    colour_by(v, "<b>$$")
    assert v.page.locator("#legend .scale-bar b").inner_text() == "<b>$$"


def test_the_card_of_a_dot_tells_the_value_that_colours_it(visit):
    v = visit()
    ages = colour_by(v, "age")
    at, alone = apart(v)
    i = next(i for i in alone if not np.isnan(ages[i]))
    v.page.mouse.move(*(at[i] + 1))
    v.page.mouse.move(*at[i])
    v.settled("!document.getElementById('hover').hidden")
    assert f"age: {ages[i]}" in v.page.inner_text("#hover")
    v.page.select_option("#colour", "findings")
    v.page.mouse.move(2, 2)
    v.page.mouse.move(*at[i])
    v.settled("!document.getElementById('hover').hidden")
    assert "age:" not in v.page.inner_text("#hover")


def test_right_wrong_and_unknown_have_colours_of_their_own(visit):
    v = visit()
    v.state(
        "spray.set({ chunk: { ...spray.state.chunk, label: Int16Array.from(spray.state.chunk.label, "
        "(label, i) => (i < 3 ? -1 : i < 6 ? label + 1 : label)) } })"
    )
    v.page.select_option("#colour", "correct")
    assert v.page.inner_text("#legend").split("\n") == ["right", "wrong", "label unknown"]
    hues = [tuple(colour) for colour in told(v)]
    assert set(hues[:3]) == {rgb(THEMES["light"]["dot"])} and set(hues[3:6]) <= {
        rgb(hue) for hue in CLUSTER_COLOURS[:2]
    }


def test_figures_are_written_for_people(visit):
    v = visit()
    for value, written in (
        ("1998", "1998"), ("12345.678", "12,345.678"), ("0.123456", "0.12346"), ("-3", "−3"), ("0", "0"),
        ("0.0000012", "1.20e−6"), ("1e15", "1.00e+15"),
    ):  # fmt: skip
        assert v.state(f"spray.figure({value})") == written


def test_members_of_several_findings_have_the_colour_of_the_flagged_one_and_the_legend_tells(
    browser, tmp_path
):
    again = with_twins(stores.synthetic.make(tmp_path / "run.zarr", samples=60))
    first, _, flagged = again.findings()
    page = reports.build(tmp_path / "run.zarr", tmp_path / "r.html", analysis=again.id).as_uri()
    v = Visit(browser, f"{page}#class={first.group}")
    rows = np.array(v.state("Array.from(spray.state.chunk.rows)"))
    dots, own = told(v), np.isin(rows, flagged.rows)
    assert (dots[own] == rgb(v.state("spray.theme.colour('alarm-fill')"))).all()
    rest = np.isin(rows, first.rows) & ~own
    assert rest.any() and (dots[rest] == rgb(CLUSTER_COLOURS[0])).all()
    half, whole = len(flagged.rows), len(first.rows)
    names = {it.name: v.state(f"spray.subjectName(spray.groupOf('{it.name}')[1])") for it in again.findings()}
    one, other, short = names["twin.f0"], names["twin.f1"], names["twin.half"]
    legend = v.page.locator("#legend > span").all_inner_texts()
    assert f"{one} ({whole}, {half} of them in {short}, too)" in legend
    assert any(line.startswith(f"{other} ({whole}, {whole} of them in {short}") for line in legend)
    assert f"{short} ({half})" in legend
    v.close()
