"""The report driven as a person would, in headless Chromium, offline: class → finding → gallery → verdict → export."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import IN_BROWSER, Visit, near, place_of
from PIL import Image

import reports
import stores
import stores.synthetic

pytestmark = IN_BROWSER

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script> $$x$$ {{7*7}} <%= 1 %> ]]>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("browser") / "run.zarr")


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


def test_opening_shows_the_most_suspicious_class_and_its_top_finding(run, visit):
    finding = run.analysis().findings()[0]
    v = visit()
    assert v.state("spray.state.group.index") == finding.group
    assert v.state("spray.state.subject.key") == finding.name
    assert v.state("spray.state.selection.length") == len(finding.rows)
    told = v.page.inner_text("#case-summary")
    assert told and all(sentence in finding.summary for sentence in told.split("\n"))
    assert v.page.locator("#class-list .class").first.get_attribute("aria-current") == "true"
    assert v.page.locator("#clusters tr[aria-selected=true]").get_attribute("data-key") == finding.name


def test_everything_of_a_class_is_above_the_fold(visit):
    v = visit()
    height, width = v.state("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
    assert (width, height) == (1440, 900)
    for panel in v.page.locator("#page-class .panel").all():
        box = panel.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, panel.get_attribute("id")
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1440, panel.get_attribute("id")
        assert box["height"] > 60, panel.get_attribute("id")


def test_the_embedding_shows_flagged_dots_in_vermilion_and_others_in_their_colours(visit):
    v = visit()
    dots = v.pixels("#figure-embedding")
    assert near(dots, (0xD5, 0x5E, 0x00)) > 300
    colours = {tuple(pixel) for pixel in (dots[::2, ::2].reshape(-1, 3) // 32)}
    assert len(colours) > 6
    spectrum = v.pixels("#figure-spectrum")
    assert near(spectrum, (0x00, 0x72, 0xB2)) > 20


def test_gallery_tiles_show_the_tag_in_red_and_change_with_view_and_opacity(visit):
    v = visit()
    overlay = v.pixels("#gallery canvas")
    assert near(overlay, (255, 0, 0), 70) > 20
    v.page.get_by_role("radio", name="Image").click()
    image = v.pixels("#gallery canvas")
    assert near(image, (255, 0, 0), 70) == 0
    assert np.abs(overlay.astype(int) - image).max() > 100
    v.page.get_by_role("radio", name="Heatmap").click()
    heat = v.pixels("#gallery canvas")
    assert near(heat, (255, 255, 255), 12) > 1000
    v.page.select_option("#map", "coldnhot")
    assert near(v.pixels("#gallery canvas"), (0, 0, 0), 12) > 1000
    v.page.get_by_role("radio", name="Overlay").click()
    full = v.pixels("#gallery canvas").astype(int)
    v.page.fill("#opacity", "0")
    assert np.ptp(v.pixels("#gallery canvas")[20:60, 5:60].astype(int), axis=-1).max() < 12, (
        "colour at opacity 0"
    )
    v.page.fill("#opacity", "90")
    np.testing.assert_array_equal(v.pixels("#gallery canvas").astype(int), full)


def test_another_class_can_be_opened_by_click_and_by_keyboard(visit):
    v = visit()
    first = v.state("spray.state.group.index")
    second = v.page.locator("#class-list .class").nth(1)
    second.click()
    v.settled("document.body.classList.contains('loading') === false")
    assert v.state("String(spray.state.group.index)") == second.get_attribute("data-class")
    assert v.state("spray.state.group.index") != first
    rows = v.state("spray.state.chunk.n")
    assert v.state("spray.figures.embedding.model.document.get_model_by_name('points').data.x.length") == rows
    v.page.locator("#class-list .class").nth(2).focus()
    v.page.keyboard.press("Enter")
    v.settled("String(spray.state.group.index) === document.querySelectorAll('.class')[2].dataset.class")


def test_a_row_of_the_table_selects_its_members(visit):
    v = visit()
    v.page.get_by_role("radio", name="kmeans").click()
    row = v.page.locator("#clusters tbody tr").first
    row.click()
    v.settled(f"spray.state.subject.key === {json.dumps(row.get_attribute('data-key'))}")
    key = v.state("spray.state.subject.key")
    assert v.state("Array.from(spray.state.selection)") == v.state(
        f"Array.from(spray.state.chunk.members[{json.dumps(key)}])"
    )
    selected = v.state("spray.figures.embedding.model.document.get_model_by_name('points').selected.indices")
    assert len(selected) == v.state("spray.state.subject.n")
    assert v.page.input_value("#colour") == "kmeans", "dots and table must show the same clustering"
    v.page.keyboard.press("ArrowDown")
    v.page.keyboard.press("Enter")
    v.settled(f"spray.state.subject.key !== {json.dumps(key)}")


def drag(v, selector, points):
    """A stroke of the pointer over an element, in shares of its width and height."""
    box = v.page.locator(selector).bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    v.page.mouse.move(*places[0])
    v.page.mouse.down()
    for place in places[1:]:
        v.page.mouse.move(*place, steps=6)
    v.page.mouse.up()


def test_a_lasso_fills_the_gallery(visit):
    v = visit()
    drag(v, "#figure-embedding", [(0.03, 0.05), (0.88, 0.05), (0.88, 0.95), (0.03, 0.95), (0.03, 0.06)])
    v.settled("spray.state.origin === 'brush'")
    assert v.state("spray.state.selection.length") > v.state("spray.state.subject.n")
    assert "selected by hand" in v.page.inner_text("#gallery-count")
    v.page.click("#gallery-back")
    assert v.state("spray.state.selection.length") == v.state("spray.state.subject.n")


@pytest.mark.parametrize(("left", "top"), [(0.002, 0.003), (0.002, 0.4), (0.4, 0.003)])
def test_a_lasso_may_begin_at_the_very_edge(visit, left, top):
    v = visit()
    drag(v, "#figure-embedding", [(left, top), (0.9, 0.01), (0.9, 0.99), (0.01, 0.99), (left, top)])
    v.settled("spray.state.origin === 'brush' && spray.state.selection.length > 20")


def test_the_gallery_turns_pages_through_the_whole_selection(visit):
    v = visit()
    seen = []
    while True:
        seen += v.state(
            "[...document.querySelectorAll('.tile')].map((tile) => Number(tile.dataset.position))"
        )
        if v.page.locator("#gallery-next").is_disabled():
            break
        v.page.click("#gallery-next")
    assert seen == v.state("Array.from(spray.state.selection)")


def test_the_gallery_sorts_and_filters(visit):
    v = visit()
    v.page.select_option("#gallery-sort", "unsure")
    shown = "[...document.querySelectorAll('.tile')].map((tile) => spray.state.chunk.confidence[tile.dataset.position])"
    confidences = v.state(shown)
    assert confidences == sorted(confidences)
    v.page.select_option("#gallery-keep", "wrong")
    wrong = v.state(
        "Array.from(spray.state.selection)"
        ".filter((i) => spray.state.chunk.label[i] !== spray.state.chunk.prediction[i]).length"
    )
    assert v.page.locator(".tile").count() == wrong


SHOWN = "spray.ordered(spray.state).map((i) => {})"


def test_the_gallery_sorts_and_filters_by_labels_metadata_and_distance(visit):
    v = visit()
    whole = v.state("Array.from(spray.state.selection)")
    for choice, value in (
        ("label", "spray.state.chunk.label[i]"),
        ("prediction", "spray.state.chunk.prediction[i]"),
        ("meta.source", "spray.state.chunk.metadata.source[i]"),
        ("meta.brightness", "Number(spray.state.chunk.metadata.brightness[i])"),
    ):
        v.page.select_option("#gallery-sort", choice)
        column = v.state(SHOWN.format(value))
        assert column == sorted(column), choice
        assert len(column) == len(whole)
    v.page.select_option("#gallery-sort", "central")
    v.page.select_option("#gallery-keep", "near")
    assert v.state(SHOWN.format("i")) == whole[: math.ceil(len(whole) / 2)]
    v.page.select_option("#gallery-keep", "far")
    assert v.state(SHOWN.format("i")) == whole[-math.ceil(len(whole) / 10) :]
    everything = v.state("spray.state.chunk.metadata.brightness.map(Number).sort((a, b) => a - b)")
    kept = []
    for part in range(4):
        v.page.select_option("#gallery-keep", f"quarter{part}.brightness")
        kept.append(v.state(SHOWN.format("Number(spray.state.chunk.metadata.brightness[i])")))
        low, high = np.quantile(everything, [part / 4, (part + 1) / 4])
        assert all(low - 0.01 < value < high + 0.01 for value in kept[-1])
    assert sum(map(len, kept)) == len(whole), "every sample is in one quarter"


def test_the_overview_leads_from_the_flagged_finding_to_its_pictures_and_page(run, fresh):
    finding = run.analysis().findings()[0]
    v = fresh("#overview")
    case = v.page.locator("#overview-flagged article")
    assert case.count() == 1 and case.get_attribute("data-key") == finding.name
    told = case.locator(".summary").inner_text()
    assert sorted(told.split()) == sorted(finding.summary.split()) and "no verdict yet" in case.inner_text()
    v.settled("document.querySelectorAll('#overview-flagged .pair-pictures').length >= 8")
    assert near(v.pixels("#overview-flagged canvas"), (255, 0, 0), 60) > 100
    others = v.page.locator("#overview-findings .card-finding")
    assert others.count() == len(run.analysis().findings()) - 1
    v.page.locator("#overview-flagged h3 a").click()
    v.settled(f"spray.state.page === 'class' && spray.state.subject.key === {json.dumps(finding.name)}")
    judge(v, "valid", note="the maker signs there")
    v.page.click("#pages a[data-page=overview]")
    v.settled("spray.state.page === 'overview'")
    assert "valid" in v.page.inner_text("#overview-flagged")
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    signed = v.page.inner_text("#summary-flagged")
    assert "the maker signs there" in signed and "A. Auditor" in signed
    assert "1 of 1 flagged reviewed (1 valid)" in v.page.inner_text("#summary-state")
    assert run.analysis().id in v.page.inner_text("#summary-identity")


def test_a_click_on_a_dot_shows_its_sample_and_one_beside_keeps_what_is_shown(visit):
    v = visit()
    # The dot farthest to the left lies on no other.
    left = v.state(
        """(() => {
            const { x } = spray.figures.embedding.model.document.get_model_by_name("points").data;
            return x.indexOf(Math.min(...x));
        })()"""
    )
    v.page.mouse.click(*place_of(v, left))
    v.settled(f"spray.state.sample === {left}")
    assert v.page.locator(".tile").count() == 1
    row = v.state(f"spray.state.chunk.rows[{left}]")
    assert v.state("location.hash") == f"#class={v.state('spray.state.group.index')}&sample={row}"
    box = v.page.locator("#figure-embedding").bounding_box()
    v.page.mouse.click(box["x"] + 12, box["y"] + 12)
    assert v.state("spray.state.selection.length") == 1


def test_a_click_on_dots_that_overlap_opens_the_one_whose_card_is_shown(visit):
    v = visit()
    close = v.state(
        """(() => {
            const { frame, model } = spray.figures.embedding;
            const { x, y } = model.document.get_model_by_name("points").data;
            const places = Array.from(x, (_, i) => [frame.x_scale.compute(x[i]), frame.y_scale.compute(y[i])]);
            const apart = (i, j) => Math.hypot(places[i][0] - places[j][0], places[i][1] - places[j][1]);
            const pairs = places.flatMap((_, i) => places.slice(0, i).map((_, j) => [i, j, apart(i, j)]));
            const close = pairs.filter(([, , distance]) => distance > 2 && distance < 6);
            return [close[0][0], close.find(([i]) => apart(i, close[0][0]) > 40)[1]];
        })()"""
    )
    for sample in close:
        v.page.mouse.move(3, 3)
        v.settled("document.getElementById('hover').hidden")
        x, y = place_of(v, sample)
        v.page.mouse.move(x - 30, y - 30)
        v.page.mouse.move(x, y, steps=4)
        identity = v.state(f"spray.state.chunk.ids[{sample}]")
        v.settled(f"document.getElementById('hover').innerText.includes({json.dumps(identity)})")
        v.page.mouse.click(x, y)
        v.settled(f"spray.state.sample === {sample}")
        assert v.state("spray.state.selection.length") == 1
        assert f"sample={v.state(f'spray.state.chunk.rows[{sample}]')}" in v.state("location.hash")
        # Bokeh takes two clicks within 0.3 s for a double click, wherever they are.
        v.page.wait_for_timeout(500)


def test_a_box_selects(fresh):
    v = fresh()
    v.state(
        """(() => {
            const { toolbar } = spray.figures.embedding.model;
            const tools = toolbar.tools.filter((tool) => tool.type === "BoxSelectTool");
            tools[0].active = true;
        })()"""
    )
    drag(v, "#figure-embedding", [(0.03, 0.03), (0.3, 0.5), (0.5, 0.97)])
    v.settled("spray.state.origin === 'brush'")
    x = np.array(
        v.state("Array.from(spray.figures.embedding.model.document.get_model_by_name('points').data.x)")
    )
    inside = np.zeros(len(x), bool)
    inside[v.state("Array.from(spray.state.selection)")] = True
    assert 0 < inside.sum() < len(x)
    assert x[inside].max() < x[~inside].min(), "a box over the left half took others than the dots there"


def test_the_summary_prints_dark_on_white_without_the_frame(fresh):
    v = fresh("#summary", color_scheme="dark")
    v.page.emulate_media(media="print")
    assert v.page.locator("header.bar").is_hidden()
    page = v.pixels("#summary-table")
    assert page.mean() > 200, "dark paper"
    assert page.min() < 80, "no ink"


def test_the_pointer_shows_image_heatmap_and_overlay(fresh):
    v = fresh()
    place = place_of(v, "spray.state.selection[0]")
    v.page.mouse.move(place[0] - 30, place[1] - 30)
    v.page.mouse.move(*place, steps=4)
    v.settled("!document.getElementById('hover').hidden")
    image, heatmap, overlay = (v.pixels("#hover canvas", i) for i in range(3))
    assert image.std() > 5
    assert near(heatmap, (255, 0, 0), 60) > 20
    assert near(overlay, (255, 0, 0), 70) > 20
    v.page.mouse.move(3, 3)
    v.settled("document.getElementById('hover').hidden")


def judge(v, word="Clever Hans", note="the tag, not the shape", annotator="A. Auditor"):
    v.page.fill("#annotator", annotator)
    v.page.fill("#verdict-note", note)
    v.page.locator("#verdict-buttons").get_by_role("radio", name=word).click()


def exported(v):
    with v.page.expect_download() as waiting:
        v.page.click("#verdict-export")
    return json.loads(waiting.value.path().read_text(encoding="utf-8"))


def test_a_verdict_is_kept_exported_and_is_one_of_the_store(run, fresh):
    v = fresh()
    judge(v)
    file = exported(v)
    (record,) = file["verdicts"]
    finding = run.analysis().findings()[0]
    verdict = stores.Verdict(**record)  # refuses a digest that is not the members'
    assert (verdict.subject, verdict.key, verdict.verdict) == ("finding", finding.name, "clever_hans")
    assert verdict.note == "the tag, not the shape"
    assert verdict.annotator == "A. Auditor"
    assert sorted(verdict.members) == sorted(str(name) for name in run.samples.read("id", finding.rows))
    assert verdict.digest == v.state("spray.state.subject.digest")
    assert "Clever Hans" in v.page.inner_text("#clusters tr[aria-selected=true]")
    v.page.reload()
    v.page.wait_for_selector("body.ready")
    assert v.page.input_value("#verdict-note") == "the tag, not the shape"
    assert v.page.locator("#verdict-buttons [aria-checked=true]").inner_text().endswith("Clever Hans")


def test_a_verdict_can_be_taken_back(fresh):
    v = fresh()
    judge(v, "valid")
    judge(v, "unsure")
    v.page.click("#verdict-undo")
    assert "valid" in v.page.locator("#verdict-buttons [aria-checked=true]").inner_text()
    v.page.click("#verdict-undo")
    assert v.page.locator("#verdict-buttons [aria-checked=true]").count() == 0
    assert v.page.locator("#verdict-undo").is_disabled()


def import_file(v, content):
    v.page.set_input_files(
        "#verdict-file",
        {"name": "v.json", "mimeType": "application/json", "buffer": content.encode("utf-8")},
    )


def test_exported_verdicts_can_be_imported_elsewhere(fresh):
    one = fresh()
    judge(one, note="ümläut 🐎 <b>")
    file = exported(one)
    other = fresh()
    import_file(other, json.dumps(file))
    other.settled("document.getElementById('verdict-status').textContent.includes('1 verdict imported')")
    assert exported(other)["verdicts"] == file["verdicts"]
    assert other.page.input_value("#verdict-note") == "ümläut 🐎 <b>"


def spoil(file, what):
    if what == "another store":
        file["store"] = "0" * 64
    elif what == "altered":
        file["verdicts"][0]["members"].pop()
    elif what == "newer":
        file["version"] = 2
    elif what == "lacks a field":
        del file["verdicts"][0]["note"]
    elif what == "holds no verdicts":
        file = {"something": "else"}
    return file


def test_an_import_that_must_not_be_is_refused_and_changes_nothing(fresh):
    v = fresh()
    judge(v, "valid", note="mine")
    given = json.dumps(exported(v))
    for what in ("another store", "altered", "newer", "lacks a field", "holds no verdicts"):
        file = json.loads(given)
        file["verdicts"][0]["note"] = "foreign"
        v.state("(document.getElementById('verdict-status').className = '', null)")
        import_file(v, json.dumps(spoil(file, what)))
        v.settled("document.getElementById('verdict-status').classList.contains('bad')")
        said = v.page.inner_text("#verdict-status")
        expected = {"newer": "version 2", "another store": "another store"}.get(what, what)
        assert expected in said or "damaged" in said, what
        assert [record["note"] for record in exported(v)["verdicts"]] == ["mine"], what


def test_ids_of_all_alphabets_are_signed_as_the_store_signs_them(fresh):
    v = fresh()
    ids = ["z", "é", "\U0001f40e", "\uffee", 'quote"back\\slash', "tab\t\x7f", "a", "A", ""]
    signed = v.state(
        f"spray.verdicts.give('sample', 'x', {json.dumps(ids)}, {{verdict: 'unsure', note: '', annotator: 'A'}})"
    )
    assert signed["members"] == sorted(ids)
    assert signed["digest"] == stores.members_digest(ids)


def test_pages_and_deep_links_go_back_and_forward(run, fresh):
    finding = run.analysis().findings()[1]
    v = fresh(f"#class={finding.group}&subject={finding.name}")
    assert v.state("spray.state.subject.key") == finding.name
    for page in ("Overview", "Summary", "About"):
        v.page.click(f"#pages a:has-text('{page}')")
        v.settled(f"spray.state.page === {json.dumps(page.lower())}")
        assert v.page.locator(f"#page-{page.lower()}").is_visible()
    v.page.go_back()
    v.settled("spray.state.page === 'summary'")
    v.page.go_back()
    v.page.go_back()
    v.settled("spray.state.page === 'class'")
    v.page.go_forward()
    v.settled("spray.state.page === 'overview'")
    assert near(v.pixels("#overview-findings canvas"), (255, 255, 255), 12) > 100


def test_a_sample_has_an_address(run, visit):
    row = int(run.analysis().findings()[0].rows[3])
    group = run.analysis().findings()[0].group
    v = visit(f"#class={group}&sample={row}")
    assert v.state("spray.state.chunk.rows[spray.state.sample]") == row
    assert v.page.locator(".tile").count() == 1


def test_an_address_of_nothing_opens_the_report_anyway(visit):
    v = visit("#class=99&subject=<script>alert(1)</script>&sample=zz")
    assert v.state("spray.state.group.index") == v.state("spray.report.groups[0].index")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_restyle_canvases_too(fresh, scheme):
    v = fresh(color_scheme=scheme)
    expected = {"light": (255, 255, 255), "dark": (0x16, 0x1D, 0x26)}
    other = {"light": "dark", "dark": "light"}[scheme]
    assert near(v.pixels("#figure-embedding"), expected[scheme], 4) > 50_000
    v.page.click("#theme")
    assert near(v.pixels("#figure-embedding"), expected[other], 4) > 50_000
    assert near(v.pixels("#figure-spectrum"), expected[other], 4) > 10_000


FAINT_TEXT = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].map((value, i) => (i < 3 ? value : value / 255));
    };
    const over = (top, bottom) => top.slice(0, 3).map((value, i) => value * top[3] + bottom[i] * (1 - top[3]));
    const ground = (element) => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) {
            const style = getComputedStyle(at);
            layers.push(rgba(style.backgroundColor));
            const stops = style.backgroundImage.match(/(rgba?|color)\\([^)]*\\)/g);
            if (stops) layers.push(rgba(stops[0])); // of a gradient the end that is not the card
        }
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const luminance = (rgb) => {
        const linear = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const found = [];
    let looked = 0;
    for (const element of document.querySelectorAll("body *")) {
        const words = [...element.childNodes].filter((node) => node.nodeType === 3 && node.textContent.trim());
        if (!words.length || !element.checkVisibility()) continue;
        if (element.closest(":disabled, .sr, .skip, script, .bk-Figure")) continue;
        const style = getComputedStyle(element);
        const back = ground(element);
        const ink = over(rgba(element.closest("svg") ? style.fill : style.color), back);
        const [low, high] = [luminance(ink), luminance(back)].sort((a, b) => a - b);
        looked += 1;
        const name = `${element.className || element.tagName}: ${element.textContent.slice(0, 30)}`;
        if ((high + 0.05) / (low + 0.05) < 5) found.push(name);
    }
    return [looked, found];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_of_every_page_stands_out_five_to_one(run, fresh, scheme):
    finding = run.analysis().findings()[0]
    v = fresh(color_scheme=scheme)
    judge(v, "valid")
    subject = {"group": finding.group, "subject": finding.name}
    for page in ({}, {"page": "overview"}, {"page": "summary"}, {"page": "about"}, {"page": "cluster"}):
        v.state(f"spray.router.go({json.dumps({**subject, **page})}).then(() => null)")
        v.settled(f"spray.state.page === {json.dumps(page.get('page', 'class'))}")
        looked, faint = v.state(f"({FAINT_TEXT})()")
        assert looked > 25
        assert faint == [], page


def test_every_control_has_a_name_and_the_keyboard_reaches_it(run, fresh):
    v = fresh()
    names = v.state(
        """[...document.querySelectorAll("button, select, input, textarea, a[href]")]
            .filter((control) => control.checkVisibility() && control.tabIndex >= 0 && !control.disabled)
            .map((control) => control.getAttribute("aria-label") || control.closest("label")?.innerText.trim()
                || control.innerText.trim() || control.title)"""
    )
    assert len(names) > 30 and all(names), names
    reached = set()
    v.page.locator("body").press("Tab")
    for _ in range(140):
        v.page.keyboard.press("Tab")
        reached.add(
            v.state("document.activeElement.id || document.activeElement.closest('section')?.id || ''")
        )
    controls = (
        "map scaling opacity theme picture colour gallery-keep gallery-sort gallery-export verdict-note"
    )
    panels = "panel-classes panel-gallery panel-verdict panel-clusters panel-prototypes"
    for place in (*controls.split(), *panels.split()):
        assert place in reached, place
    v.page.fill("#annotator", "A. Auditor")
    first = v.page.locator("#verdict-buttons [role=radio]").first
    first.focus()
    v.page.keyboard.press("ArrowRight")
    assert v.page.locator("#verdict-buttons [aria-checked=true]").count() == 0, (
        "arrows move, and judge nothing"
    )
    v.page.keyboard.press("Enter")
    assert v.page.locator("#verdict-buttons [aria-checked=true]").inner_text().endswith("valid")


@pytest.mark.parametrize("page", ["overview", "summary", "about", "cluster"])
def test_no_page_is_wider_than_a_phone(run, visit, page):
    finding = run.analysis().findings()[0]
    v = visit(width=390, height=844)
    go = {"page": page, "group": finding.group, "subject": finding.name}
    v.state(f"spray.router.go({json.dumps(go)}).then(() => null)")
    v.settled(f"spray.state.page === '{page}' && !document.querySelector('.proof [role=status]')")
    assert v.state("document.documentElement.scrollWidth") <= 390
    wide = (
        f"[...document.querySelectorAll('#page-{page} section, #page-{page} article, #page-{page} figure')]"
    )
    assert (
        v.state(f"{wide}.filter((at) => at.getBoundingClientRect().right > 391).map((at) => at.className)")
        == []
    )


def test_a_phone_gets_one_column(visit):
    v = visit(width=390, height=844)
    assert v.state("document.documentElement.scrollWidth") <= 390
    for panel in v.page.locator("#page-class .panel").all():
        box = panel.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, panel.get_attribute("id")
        assert box["width"] > 340, panel.get_attribute("id")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    n = 60
    run = stores.synthetic.make(
        folder / "run.zarr",
        samples=n,
        names=[f"{HOSTILE}{i}" for i in range(3)],
        ids=[f"{i}/{HOSTILE}.png" for i in range(n)],
        metadata={f"source{HOSTILE}": [f"{HOSTILE}{i % 2}" for i in range(n)]},
    )
    return reports.build(run.path, folder / "report.html", title=HOSTILE)


def test_hostile_names_are_text_and_nothing_else(browser, hostile):
    v = Visit(browser, hostile.as_uri())
    assert HOSTILE in v.page.inner_text("#class-list")
    assert v.page.locator("strong").first.inner_text() == HOSTILE
    judge(v, note=HOSTILE, annotator=HOSTILE)
    v.page.locator(".tile").first.hover()
    assert HOSTILE in v.page.inner_text("#hover")
    v.page.select_option("#colour", f"meta.source{HOSTILE}")
    assert HOSTILE in v.page.inner_text("#legend")
    for page in ("overview", "summary", "about"):
        v.page.click(f"#pages a[data-page={page}]")
        v.settled(f"spray.state.page === '{page}'")
    v.state("spray.router.go({page: 'cluster', group: 2, subject: 'c2.f2', other: 'c2.f0'}).then(() => null)")
    v.settled("spray.state.page === 'cluster'")
    assert HOSTILE in v.page.inner_text("#cluster-columns")
    assert v.page.locator("img").count() == 0
    v.close()  # fails on any dialog, error or request


def hostile_store(path):
    """A store in which every name that a stranger may choose is hostile."""
    n = 60
    columns = {"__proto__": [HOSTILE] * n, "constructor": ["x", "y"] * (n // 2), "toString": range(n)}
    run = stores.synthetic.make(path, samples=n, metadata=columns)
    first = run.analysis()
    groups = []
    for index in first.groups:
        group = first.read(index)
        clusterings = {f"{HOSTILE}{name}": result for name, result in group.clusterings.items()}
        clusterings["__proto__"] = next(iter(group.clusterings.values()))
        pictures = {f"{HOSTILE}{name}": xy for name, xy in group.pictures.items()}
        groups.append(dataclasses.replace(group, clusterings=clusterings, pictures=pictures))
    handle = run.write_analysis(
        stores.Provenance(({"name": HOSTILE},)), groups, facts=first.facts | {"group_by": HOSTILE}
    )
    findings = [
        dataclasses.replace(
            finding,
            clustering=f"{HOSTILE}hdbscan",
            parts={HOSTILE: 0.5, f"{HOSTILE}2": None},
            evidence={**finding.evidence, HOSTILE: {HOSTILE: HOSTILE}, "list": [{HOSTILE: HOSTILE}]},
            summary=HOSTILE,
            notes=(HOSTILE,),
        )
        for finding in first.findings()
    ]
    handle.write_findings(findings, stores.Provenance(({"name": HOSTILE},)))
    ids = tuple(str(name) for name in run.samples.read("id", findings[0].rows))
    run.add_verdict(
        stores.Verdict("finding", handle.id, HOSTILE, "valid", HOSTILE, HOSTILE, "2026-01-01T00:00:00Z", ids)
    )
    return run


def test_every_name_in_a_store_may_be_hostile(browser, tmp_path):
    run = hostile_store(tmp_path / "run.zarr")
    finding = run.analysis().findings()[0]
    v = Visit(browser, reports.build(run.path, tmp_path / "r.html").as_uri())
    for select in ("#picture", "#colour", "#gallery-keep", "#gallery-sort"):
        for value in v.state(
            f"[...document.querySelector('{select}').options].map((option) => option.value)"
        ):
            v.page.select_option(select, value)
            assert v.page.locator("#gallery").is_visible()
    assert "meta.__proto__" in v.state("[...document.querySelector('#colour').options].map((o) => o.value)")
    v.page.select_option("#colour", "meta.__proto__")
    assert HOSTILE in v.page.inner_text("#legend")
    for radio in v.page.locator("#clustering [role=radio]").all():
        radio.click()
    assert HOSTILE in v.page.inner_text("#panel-finding")
    for page in ("overview", "summary", "about"):
        v.page.click(f"#pages a[data-page={page}]")
        v.settled(f"spray.state.page === '{page}'")
        v.state("document.querySelectorAll('details').forEach((entry) => (entry.open = true))")
        text = v.page.inner_text(f"#page-{page}")
        assert HOSTILE in (text.replace('\\"', '"') if page == "about" else text)
    go = {"page": "cluster", "group": finding.group, "subject": finding.name}
    v.state(f"spray.router.go({json.dumps(go)}).then(() => null)")
    v.settled("spray.state.page === 'cluster'")
    assert HOSTILE in v.page.inner_text("#cluster-columns")
    assert v.page.locator("img").count() == 0
    v.close()


def test_a_verdict_file_may_be_hostile(fresh):
    v = fresh()
    judge(v, "valid", note="mine")
    file = exported(v)
    file["verdicts"][0] |= {
        "note": HOSTILE,
        "annotator": HOSTILE,
        "__proto__": {"polluted": 1},
        "more": "fields",
    }
    import_file(v, json.dumps(file))
    v.settled("document.getElementById('verdict-status').textContent === '1 verdict imported.'")
    assert v.state("({}).polluted === undefined")
    assert set(exported(v)["verdicts"][-1]) == {field.name for field in dataclasses.fields(stores.Verdict)}
    for verdict in ("toString", "__proto__"):
        file["verdicts"][0]["verdict"] = verdict
        import_file(v, json.dumps(file))
        v.settled("document.getElementById('verdict-status').classList.contains('bad')")
    file["verdicts"][0] |= {"verdict": "valid", "members": [1, 2]}
    import_file(v, json.dumps(file))
    v.settled("document.getElementById('verdict-status').classList.contains('bad')")
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    assert HOSTILE in v.page.inner_text("#page-summary")


def test_the_whole_report_works_in_a_notebooks_frame(browser, report):
    """A frame without an origin: no storage, and an address that cannot be changed as a page's can."""
    context = browser.new_context(viewport={"width": 1440, "height": 940})
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content(f"<!DOCTYPE html><body>{reports.Inline(report)._repr_html_()}</body>")
    frame = page.frame_locator("iframe")
    frame.locator("body.ready").wait_for()
    second = frame.locator("#class-list .class").nth(1)
    second.click()
    frame.locator("#class-list .class[aria-current=true]").filter(
        has_text=second.locator(".name").inner_text()
    ).wait_for()
    frame.locator(".tile").first.wait_for()
    frame.locator("#pages a[data-page=summary]").click()
    frame.locator("#summary-flagged section").wait_for()
    context.close()
    assert problems == []


def test_only_plain_bokeh_is_in_the_page_and_nothing_is_fetched(report):
    html = report.read_text(encoding="utf-8")
    for part in ("DataTable", "MathJax-script", "cdn.bokeh.org", "cdn.jsdelivr"):
        assert part not in html.partition("</style>")[0]
    assert "SlickGrid" not in html, "the tables' component is not bundled"
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:|//)", html)


def test_the_policy_forbids_what_the_report_does_not_need(visit):
    v = visit()
    policy = v.page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy
    ran = v.state(
        """(() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            return window.ran === true;
        })()"""
    )
    assert ran is False
    assert len(v.state("spray.problems.splice(0)")) == 1  # the block itself was seen
    v.problems.clear()


def test_a_folder_opens_from_the_disk_and_loads_classes_when_they_are_asked_for(browser, run, tmp_path):
    written = reports.write(run.path, tmp_path / "report.html", carrier="folder")
    v = Visit(browser, written.path.as_uri())
    loaded = [url for url in v.requests if "/blocks/" in url]
    assert len([url for url in loaded if "chunk-" in url]) == 1
    assert near(v.pixels("#gallery canvas"), (255, 0, 0), 70) > 20
    v.page.locator("#class-list .class").nth(1).click()
    v.settled("String(spray.state.group.index) === document.querySelectorAll('.class')[1].dataset.class")
    assert len([url for url in v.requests if "chunk-" in url]) == 2
    judge(v, "valid")
    assert len(exported(v)["verdicts"]) == 1
    v.close()


def test_an_analysis_can_be_chosen_where_the_store_has_several(browser, tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=120)
    first = run.analysis()
    again = run.write_analysis(
        stores.Provenance(({"name": "second"},)),
        [first.read(group) for group in first.groups[:2]],
        facts={**first.facts, "group_by": "prediction"},
    )
    page = reports.build(run.path, tmp_path / "r.html", analysis=again.id).as_uri()
    v = Visit(browser, page)
    assert v.state("spray.report.analysis") == again.id
    assert v.page.locator("#class-list .class").count() == 2
    v.page.select_option("#analysis", first.id)
    v.settled(f"spray.state.analysis === {json.dumps(first.id)}")
    assert v.page.locator("#class-list .class").count() == 3
    v.settled("spray.state.group.flagged >= 0 && spray.state.chunk !== null")
    v.page.go_back()
    v.settled(f"spray.state.analysis === {json.dumps(again.id)}")
    v.page.locator("#clustering").get_by_role("radio", name="findings").click()
    assert "not searched in this analysis" in v.page.inner_text("#clusters")
    flagged = sum(finding.flagged for finding in first.findings())
    for name in ("overview", "summary"):
        v.page.click(f"#pages a[data-page={name}]")
        v.settled(f"!document.getElementById('page-{name}').hidden")
        told = v.page.inner_text(f"#{name}-flagged")
        assert told.startswith("Findings were not searched in this analysis") and "None" not in told
        assert f"{flagged} flagged in " in told
    assert "findings not searched" in v.page.inner_text("#facts")
    v.page.click("#summary-flagged a")
    v.settled(f"spray.state.analysis === {json.dumps(first.id)}")
    v.close()
    v = Visit(browser, reports.build(run.path, tmp_path / "r.html").as_uri())
    assert v.state("spray.report.analysis") == first.id, "the newest that was searched"
    v.close()


def with_other_relevance(run):
    """The store with a second relevance table: that of the first, with its sign turned."""
    first = run.table(stores.synthetic.RELEVANCE)
    grid = first.columns["input.place"].shape
    made = stores.Provenance(({"name": "turned"},))
    columns = stores.relevance_columns(grid)
    table = run.create_table(
        "relevance/turned", columns, rows_per_shard=first.rows_per_shard, provenance=made
    )
    for shard, rows in enumerate(table.shards):
        part = {column.name: first.read(column.name, rows) for column in columns}
        table.write(shard, {**part, "input.place": -part["input.place"]})
    return run


@pytest.mark.parametrize("page", [1024, 16])
def test_heatmaps_of_another_relevance_can_be_chosen(browser, tmp_path, monkeypatch, page):
    monkeypatch.setattr("reports.blocks.PAGE", page)
    run = with_other_relevance(stores.synthetic.make(tmp_path / "run.zarr", samples=120))
    v = Visit(browser, reports.build(run.path, tmp_path / "r.html").as_uri())
    v.page.get_by_role("radio", name="Heatmap").click()
    assert near(v.pixels("#gallery canvas"), (255, 0, 0), 70) > 20
    v.page.select_option("#gallery-relevance", "turned")
    v.settled("spray.relevance(spray.state.chunk, spray.state.selection[0]) !== null")
    assert near(v.pixels("#gallery canvas"), (0, 0, 255), 70) > 20
    assert near(v.pixels("#gallery canvas"), (255, 0, 0), 70) == 0
    v.page.locator("#class-list .class").nth(1).click()
    v.settled("spray.state.group === spray.report.groups[1]")
    assert v.page.input_value("#gallery-relevance") == "turned"
    v.page.select_option("#gallery-relevance", "")
    assert v.state("spray.state.relevance") is None
    v.close()


def test_verdicts_of_an_earlier_analysis_are_attached_offered_or_listed(browser, tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=120)
    findings = run.analysis().findings()
    for finding, drop, note in zip(
        findings[:3], (0, 1, len(findings[2].rows) // 2), ("all", "most", "few"), strict=True
    ):
        ids = sorted(str(name) for name in run.samples.read("id", finding.rows))[drop:]
        run.add_verdict(
            stores.Verdict(
                "finding", "0123456789ab", "c9.f9", "valid", note, "A", "2026-01-01T00:00:00Z", tuple(ids)
            )
        )
    v = Visit(browser, reports.build(run.path, tmp_path / "r.html").as_uri())
    assert v.page.input_value("#verdict-note") == "all"
    assert "valid" in v.page.locator("#verdict-buttons [aria-checked=true]").inner_text()
    v.state(f"spray.router.go({{group: {findings[1].group}, subject: {json.dumps(findings[1].name)}}})")
    v.settled(f"spray.state.subject?.key === {json.dumps(findings[1].name)}")
    assert v.page.locator("#verdict-buttons [aria-checked=true]").count() == 0
    assert "Please confirm" in v.page.inner_text("#verdict-status")
    assert v.page.input_value("#verdict-note") == "most"
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    others = v.page.inner_text("#summary-others")
    assert "few" in others and findings[2].name in others
    v.close()


def test_a_sample_can_be_judged(fresh):
    v = fresh()
    v.page.locator(".tile").nth(1).click()
    identity = v.state("spray.state.chunk.ids[spray.state.sample]")
    assert identity in v.page.inner_text("#verdict-on")
    judge(v, "unsure", note="odd one")
    (record,) = exported(v)["verdicts"]
    assert (record["subject"], record["key"], record["members"]) == ("sample", identity, [identity])
    assert "?" in v.page.locator(".tile").nth(1).inner_text()
    v.page.locator(".tile").nth(1).click()
    assert v.page.locator("#verdict-buttons [aria-checked=true]").count() == 0


def test_two_findings_stand_side_by_side_with_maps_members_and_metadata(run, fresh):
    findings = [f for f in run.analysis().findings() if f.group == run.analysis().findings()[0].group]
    v = fresh()
    v.page.click("#case-more")
    v.settled("spray.state.page === 'cluster'")
    v.page.select_option("#cluster-with", findings[1].name)
    v.settled("spray.state.other !== null")
    assert [c.get_attribute("data-key") for c in v.page.locator("#cluster-columns > section").all()] == [
        findings[0].name,
        findings[1].name,
    ]
    assert near(v.pixels("#cluster-columns .mean canvas", 0), (255, 0, 0), 60) > 100
    one, other = (v.pixels("#cluster-columns .mean canvas", i).astype(int) for i in (0, 1))
    assert np.abs(one - other).max() > 100
    assert near(v.pixels("#cluster-columns .strip canvas"), (255, 0, 0), 70) > 20
    assert v.page.locator(".associations").count() == 2
    v.page.go_back()
    v.settled("spray.state.other === null")
    v.page.click("#cluster-back")
    v.settled("spray.state.page === 'class'")


def test_a_finding_shows_effects_with_intervals_and_pictures_before_and_after(run, visit):
    finding = run.analysis().findings()[0]
    v = visit(f"#class={finding.group}&subject={finding.name}&page=cluster")
    v.settled("document.querySelectorAll('#cluster-columns .pair-pictures canvas').length > 0")
    figures = v.page.locator("#cluster-columns .proof figure")
    assert figures.count() == 2
    for figure, kinds in zip(figures.all(), (("members", "removed"), ("hosts", "pasted")), strict=True):
        assert figure.locator(".pair-pictures").count() == len(finding.pictures[kinds[0]])
        for row, kind in enumerate(kinds):
            shown = v.page.locator("#cluster-columns .proof canvas").nth(
                row + (0 if kind in ("members", "removed") else 2 * len(finding.pictures["members"]))
            )
            seen = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB")).mean(axis=-1)
            stored = finding.pictures[kind][0].mean(axis=-1)
            inner = (
                seen[8:56, 8:30],
                stored[
                    stored.shape[0] // 8 : -stored.shape[0] // 8,
                    stored.shape[1] // 8 : 30 * stored.shape[1] // 64,
                ],
            )
            assert abs(inner[0].mean() - inner[1].mean()) < 12, kind
    plot = v.page.locator(".effects svg").first
    removal = finding.evidence["removal"]
    assert f"−{removal['mean']:.2f}" in plot.get_attribute("aria-label")
    whiskers = v.state(
        "[...document.querySelectorAll('.effects .whisker')]"
        ".map((line) => [line.x1.baseVal.value, line.x2.baseVal.value])"
    )
    dots = v.state("[...document.querySelectorAll('.effects circle.net')].map((dot) => dot.cx.baseVal.value)")
    assert len(whiskers) == 2
    for (low, high), net in zip(whiskers, dots, strict=True):
        assert low < net < high


def test_evidence_without_a_form_of_its_own_is_shown_as_it_is_recorded(browser, tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    first = run.analysis()
    (finding, *rest) = first.findings()
    association = [
        {"column": "source", "value": HOSTILE, "lift": 3.25, "p": 1e-9},
        {"column": "site", "value": "B", "lift": None, "p": 0.5},
    ]
    evidence = {
        **finding.evidence,
        "associations": association,
        "heuristics": {"border share": 0.125, "seen": True},
    }
    told = dataclasses.replace(finding, evidence=evidence, pictures={})
    again = run.write_analysis(
        stores.Provenance(({"name": "again"},)), [first.read(g) for g in first.groups], facts=first.facts
    )
    again.write_findings([told, *rest], stores.Provenance(({"name": "again"},)))
    page = reports.build(run.path, tmp_path / "r.html").as_uri()
    v = Visit(browser, f"{page}#class={finding.group}&subject={finding.name}&page=cluster")
    text = v.page.inner_text("#cluster-columns")
    for words in (
        "Tested against",
        HOSTILE,
        "3.25",
        "1.0e-9",
        "not measured",
        "border share",
        "0.125",
        "yes",
    ):
        assert words in text, words
    assert "No pictures before and after were stored" in text
    v.close()


def saved(v, kind):
    with v.page.expect_download() as waiting:
        v.page.select_option("#gallery-export", kind)
    return waiting.value.path().read_bytes()


def test_the_selection_and_the_picture_are_saved_as_files(run, visit):
    finding = run.analysis().findings()[0]
    ids = [str(name) for name in run.samples.read("id", finding.rows)]
    v = visit()
    assert sorted(saved(v, "ids").decode().splitlines()) == sorted(ids)
    assert saved(v, "csv").startswith(b"\xef\xbb\xbf"), "spreadsheets take it for UTF-8 by its mark"
    header, *lines = list(csv.reader(io.StringIO(saved(v, "csv").decode("utf-8-sig"))))
    assert header[:5] == ["row", "id", "label", "prediction", "confidence"]
    assert sorted(int(line[0]) for line in lines) == finding.rows.tolist()
    assert sorted(line[1] for line in lines) == sorted(ids)
    picture = np.asarray(Image.open(io.BytesIO(saved(v, "png"))).convert("RGB"))
    assert near(picture, (0xD5, 0x5E, 0x00)) > 300
    drawing = saved(v, "svg").decode()
    assert drawing.lstrip().startswith("<svg") and "<script" not in drawing
    below = picture[int(v.page.locator("#figure-embedding").bounding_box()["height"]) :]
    assert len(below) > 20 and near(below, (0xD5, 0x5E, 0x00)) > 20, "what the colours mean stands below"
    texts = [
        text.text or "" for text in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert f"{run.classes[finding.group]}, {v.state('spray.state.picture')}:" in texts
    assert any(text.startswith(f"F1 ({len(finding.rows)}") for text in texts)


def test_a_table_for_spreadsheets_runs_no_formula(visit):
    v = visit()
    table = v.state(
        """(() => {
            const chunk = { ...spray.state.chunk, ids: ['=1+1', '-2', 'a"b,c', '@x'], metadata: {} };
            return spray.table(chunk, [0, 1, 2, 3]);
        })()"""
    )
    assert [line[1] for line in csv.reader(io.StringIO(table))][1:] == ["'=1+1", "-2", 'a"b,c', "'@x"]


def test_filters_by_prediction_and_metadata_and_distance_of_a_lasso(visit):
    v = visit()
    drag(v, "#figure-embedding", [(0.03, 0.05), (0.88, 0.05), (0.88, 0.95), (0.03, 0.95), (0.03, 0.06)])
    v.settled("spray.state.origin === 'brush'")
    distances = v.state(
        """(() => {
            const known = spray.distances(spray.state.chunk, spray.state.selection);
            return spray.ordered(spray.state).map((i) => known.get(i));
        })()"""
    )
    assert distances == sorted(distances) and distances[0] < distances[-1]
    choices = v.page.locator("#gallery-keep option").all()
    value = next(
        c.get_attribute("value") for c in choices if (c.get_attribute("value") or "").startswith("meta.")
    )
    v.page.select_option("#gallery-keep", value)
    name, wanted = value.removeprefix("meta.").split("=", 1)
    column = v.state(
        f"spray.ordered(spray.state).map((i) => spray.state.chunk.metadata[{json.dumps(name)}][i])"
    )
    assert column and set(column) == {wanted}
    v.page.locator("#class-list .class").nth(1).click()
    v.settled("spray.state.group === spray.report.groups[1]")
    assert v.state("document.getElementById('gallery-keep').value === spray.state.keep")


def test_every_page_says_something_and_nothing_that_a_program_would_say(run, visit):
    v = visit()
    pages = {
        "overview": "samples audited",
        "summary": "Flagged findings",
        "about": "does not prove",
        "class": "Spectrum",
    }
    for page, expected in pages.items():
        v.page.click(f"#pages a[data-page={page}]")
        v.settled(f"spray.state.page === '{page}'")
        text = v.page.inner_text("body")
        assert expected in text
        assert not re.search(r"\[object|undefined|\bNaN\b|\bnull\b", text), page
    v.page.click("#pages a[data-page=about]")
    checks = v.page.inner_text("#about-checks")
    assert "conservation" in checks and run.analysis().id in checks
    assert '"synthetic"' in v.page.inner_text("#about-configuration")


def lasso_all(v):
    drag(v, "#figure-embedding", [(0.03, 0.05), (0.88, 0.05), (0.88, 0.95), (0.03, 0.95), (0.03, 0.06)])
    v.settled("spray.state.origin === 'brush'")


def test_many_dots_are_thinned_and_lasso_and_box_take_those_that_are_not_drawn_too(fresh):
    v = fresh()
    lasso_all(v)
    whole = v.state("Array.from(spray.state.selection)")
    v.state(
        "(spray.mostDots = 50, spray.router.go({ group: spray.report.groups[1].index }).then(() => null))"
    )
    v.settled("spray.state.chunk.index === spray.report.groups[1].index")
    points = "spray.figures.embedding.model.document.get_model_by_name('points')"
    n = v.state("spray.state.chunk.n")
    drawn = v.state(f"{points}.data.x.length")
    assert 40 <= drawn <= 60
    assert f"{drawn} of {n} dots drawn" in v.page.inner_text("#legend")
    members = set(v.state("Array.from(spray.state.selection)"))
    shown = v.state("Array.from(spray.thinned(spray.state))")
    assert v.state(f"{points}.selected.indices") == [
        i for i, position in enumerate(shown) if position in members
    ]
    v.state("spray.router.go({ group: spray.report.groups[0].index }).then(() => null)")
    flagged = v.state("Array.from(spray.state.chunk.members[spray.state.subject.key])")
    assert len(set(flagged) & set(v.state("Array.from(spray.thinned(spray.state))"))) >= 12
    lasso_all(v)
    assert v.state("Array.from(spray.state.selection)") == whole


def test_points_in_a_polygon_are_those_a_plain_second_writing_finds(visit):
    v = visit()
    star = np.array(
        [[0, 3], [1, 1], [3, 1], [1.4, -0.3], [2, -2.5], [0, -1], [-2, -2.5], [-1.4, -0.3], [-3, 1], [-1, 1]]
    )
    xy = np.random.default_rng(0).uniform(-3, 3, (400, 2))
    geometry = {"type": "poly", "x": star[:, 0].tolist(), "y": star[:, 1].tolist()}
    found = v.state(f"spray.inside({json.dumps(geometry)}, {json.dumps(xy.ravel().tolist())})")
    # The turns of a closed path around a point add up to a full one inside, and to nothing outside.
    ends = np.concatenate([star, star[:1]])[None] - xy[:, None]
    turns = np.diff(np.unwrap(np.arctan2(ends[..., 1], ends[..., 0])))
    assert found == np.flatnonzero(np.abs(turns.sum(axis=1)) > 3).tolist()
    assert 50 < len(found) < 300


def test_a_folder_with_a_block_missing_says_so_and_goes_on(browser, run, tmp_path):
    written = reports.write(run.path, tmp_path / "report.html", carrier="folder")
    v = Visit(browser, written.path.as_uri())
    index = v.state("spray.report.groups[1].index")
    (written.path.parent / "blocks" / f"chunk-{run.analysis().id}-{index}.js").unlink()
    v.page.locator("#class-list .class").nth(1).click()
    v.settled("!document.getElementById('trouble').hidden")
    assert "keep the page and its folder together" in v.page.inner_text("#trouble")
    v.page.locator("#class-list .class").nth(2).click()
    v.settled("spray.state.group === spray.report.groups[2]")
    assert v.page.locator("#trouble").is_hidden()
    assert [text for text in v.problems if "ERR_FILE_NOT_FOUND" not in text] == []
    v.problems.clear()
    v.close()


def test_classes_with_nothing_to_cluster_say_why(browser, tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=80, classes=4)
    first = run.analysis()
    nothing = np.zeros(0, np.int64)
    bare = [("empty", 0, "no samples"), ("single", 1, "one sample"), ("identical", 5, "all maps equal")]
    groups = [
        stores.GroupAnalysis(
            group, status, first.read(group).rows[:count], nothing, nothing,
            np.zeros(0), np.zeros((count, 0)), 0, 0, {}, {}, {},
        )
        for group, (status, count, _) in enumerate(bare)
    ]  # fmt: skip
    made = stores.Provenance(({"name": "bare"},))
    run.write_analysis(made, [*groups, first.read(3)], facts=first.facts).write_findings([], made)
    page = reports.build(run.path, tmp_path / "r.html").as_uri()
    v = Visit(browser, f"{page}#class=0")
    for group, (_, _, told) in enumerate(bare):
        v.state(f"spray.router.go({{ group: {group} }}).then(() => null)")
        v.settled(f"spray.state.group.index === {group}")
        assert told in v.page.inner_text(f".class[data-class='{group}']")
        assert told in v.page.inner_text("#panel-finding")
        assert "none in this class" in v.page.inner_text("#clusters")
        assert v.page.locator(".tile").count() == 0
        assert v.page.locator("#verdict-buttons button").first.is_disabled()
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    v.page.go_back()
    v.page.locator(".class[data-class='3']").click()
    v.settled("spray.state.selection.length > 0")
    v.close()
