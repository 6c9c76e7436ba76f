"""What keyboard, finger and eye reach in the report: cards, focus, signs of more, comparisons; in Chromium, offline."""

from __future__ import annotations

import json

import numpy as np
import pytest
from browser import IN_BROWSER, Visit

import reports
import stores.synthetic

pytestmark = IN_BROWSER

TOO_SMALL = """(least) => [...document.querySelectorAll("button, select, input, summary, [role=radio]")]
    .filter((at) => at.checkVisibility() && at.type !== "file")
    .filter((at) => {
        const box = at.getBoundingClientRect();
        return box.height < least - 0.01 || box.width < least - 0.01;
    })
    .map((at) => `${at.id || at.className || at.tagName}: ${at.textContent.slice(0, 20)}`)"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("reach") / "run.zarr", samples=150)


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


@pytest.fixture
def v(shared, run):
    """The shared report, at the class that it opens with."""
    show(shared, run.analysis().findings()[0])
    return shared


def show(v, finding, **more):
    go = {"group": finding.group, "subject": finding.name, **more}
    v.state(f"spray.router.go({json.dumps(go)}).then(() => null)")
    wanted = f"spray.state.page === {json.dumps(more.get('page', 'class'))}"
    v.settled(f"{wanted} && spray.state.subject?.key === {json.dumps(finding.name)}")


def of_another_class(run):
    first, *rest = run.analysis().findings()
    return first, next(finding for finding in rest if finding.group != first.group)


def test_prototypes_are_one_stop_of_tab_and_show_their_card_to_the_keyboard(v):
    v.page.locator(".prototype").first.locator("> button").focus()
    v.page.keyboard.press("Tab")
    first = v.state("document.activeElement.dataset.position")
    assert v.page.locator("#hover").is_visible()
    identity = v.state(f"spray.state.chunk.ids[{first}]")
    assert identity in v.page.inner_text("#hover")
    assert identity in v.state("document.activeElement.getAttribute('aria-label')")
    assert "Prototypes of F1" in v.state("document.activeElement.parentElement.getAttribute('aria-label')")
    v.page.keyboard.press("ArrowRight")
    second = v.state("document.activeElement.dataset.position")
    assert second != first and v.state(f"spray.state.chunk.ids[{second}]") in v.page.inner_text("#hover")
    v.page.keyboard.press("Enter")
    v.settled(f"spray.state.sample === {second}")
    assert f"sample={v.state(f'spray.state.chunk.rows[{second}]')}" in v.state("location.hash")
    assert v.page.locator(".tile[aria-pressed=true]").get_attribute("data-position") == second
    v.page.locator("#theme").focus()
    assert v.page.locator("#hover").is_hidden()


def test_members_on_the_page_of_a_finding_are_reached_by_keyboard(v, run):
    show(v, run.analysis().findings()[0], page="cluster")
    glimpse = v.page.locator("#cluster-columns .strip .glimpse").first
    v.page.keyboard.press("Tab")
    glimpse.focus()
    assert v.page.locator("#hover").is_visible()
    assert glimpse.get_attribute("aria-label").startswith(
        v.state(f"spray.state.chunk.ids[{glimpse.get_attribute('data-position')}]")
    )
    v.page.keyboard.press("End")
    last = v.page.locator("#cluster-columns .strip").first.locator(".glimpse").last
    assert last.evaluate("(at) => at === document.activeElement")
    glimpse.evaluate("(at) => at.blur()")
    v.state("(document.activeElement.blur(), null)")


def test_findings_of_two_classes_stand_side_by_side_and_have_an_address(v, run):
    first, other = of_another_class(run)
    show(v, first, page="cluster")
    v.page.select_option("#cluster-class", str(other.group))
    v.page.select_option("#cluster-with", other.name)
    v.settled("spray.state.other !== null")
    columns = v.page.locator("#cluster-columns > section")
    assert [at.get_attribute("data-key") for at in columns.all()] == [first.name, other.name]
    names = [run.classes[finding.group] for finding in (first, other)]
    assert all(name in v.page.inner_text("#cluster-title") for name in names)
    assert f"with={other.name}" in v.state("location.hash")
    members = columns.nth(1).locator(".glimpse")
    labels = [at.get_attribute("aria-label") for at in members.all()]
    ids = {str(name) for name in run.samples.read("id", other.rows)}
    assert labels and all(label.split(",")[0] in ids for label in labels)
    one, two = (v.pixels("#cluster-columns .glimpse canvas", i) for i in (0, members.count() + 1))
    assert one.std() > 5 and two.std() > 5
    members.first.hover()
    assert labels[0].split(",")[0] in v.page.inner_text("#hover")
    v.page.mouse.move(2, 2)
    columns.nth(1).locator(".alone").click()
    v.settled(f"spray.state.subject.key === {json.dumps(other.name)} && spray.state.other !== null")
    assert v.page.inner_text("#verdict-on") == f"on F1, {run.classes[other.group]}"
    v.page.go_back()
    v.settled(f"spray.state.subject.key === {json.dumps(first.name)}")


def test_a_verdict_is_given_where_the_evidence_is(fresh, run):
    window = fresh()
    finding = run.analysis().findings()[0]
    show(window, finding, page="cluster")
    window.page.fill("#annotator", "A. Auditor")
    window.page.fill("#verdict-note", "the tag")
    window.page.locator("#page-cluster #verdict-buttons [data-value=clever_hans]").click()
    (record,) = window.state("spray.verdicts.all()")
    assert (record["key"], record["verdict"], record["note"]) == (finding.name, "clever_hans", "the tag")
    assert "Clever Hans" in window.page.inner_text("#cluster-columns .given")
    show(window, finding)
    assert window.page.locator("#page-class .slot.right > #panel-verdict").is_visible()
    assert window.page.locator("#verdict-buttons [aria-checked=true]").inner_text().endswith("Clever Hans")


def test_focus_stays_where_it_is_when_a_verdict_arrives(fresh):
    window = fresh()
    at = "document.activeElement"
    name = f"{at}.className + ({at}.dataset.key ?? '') + {at}.dataset.position"
    members = "Array.from(spray.state.selection, (i) => spray.state.chunk.ids[i])"
    for selector, word in (("#clusters tbody tr", "valid"), (".tile", "unsure"), (".class", "valid")):
        window.page.locator(selector).nth(1).focus()
        before = window.state(name)
        given = json.dumps({"verdict": word, "note": "", "annotator": "A"})
        window.state(f"spray.verdicts.give('finding', spray.state.subject.key, {members}, {given})")
        assert word in window.page.inner_text("#clusters")
        assert window.state(name) == before and window.state(f"{at} !== document.body"), selector


def test_a_list_that_is_cut_says_how_much_lies_below(v):
    v.state("(document.querySelector('#panel-clusters .scroll').style.maxHeight = '84px', null)")
    sign = v.page.locator("#panel-clusters .more-below")
    rows = v.page.locator("#clusters tbody tr").count()
    v.settled("!document.querySelector('#panel-clusters .more-below').hidden")
    below = int(sign.inner_text().split()[1])
    assert 0 < below < rows
    while sign.is_visible():
        sign.click()
        v.settled(f"document.querySelector('#panel-clusters .more-below').textContent !== '↓ {below} more'")
        below = int(v.page.text_content("#panel-clusters .more-below").split()[1])
    last = v.page.locator("#clusters tbody tr").last.bounding_box()
    box = v.page.locator("#panel-clusters .scroll").bounding_box()
    assert last["y"] + last["height"] <= box["y"] + box["height"] + 2
    v.state("(document.querySelector('#panel-clusters .scroll').style.maxHeight = '', null)")


def test_a_label_stands_above_few_dots_and_in_the_midst_of_many(v):
    lifts = """(members) => {
        const panel = spray.figures.embedding.model.document.get_model_by_name("labels");
        const { chunk, subject } = spray.state;
        const kept = chunk.members[subject.key];
        chunk.members[subject.key] = Uint32Array.from(members ?? kept);
        spray.set({ colour: spray.state.colour === "prediction" ? "findings" : "prediction" });
        const { text, lift } = panel.data;
        chunk.members[subject.key] = kept;
        return lift[text.indexOf(subject.name)];
    }"""
    assert v.page.evaluate(lifts, [0]) < -15
    assert v.page.evaluate(lifts, None) == 0


def test_the_window_is_called_after_what_it_shows(v, run):
    first, other = of_another_class(run)
    assert v.page.title() == f"{run.classes[first.group]}, F1 · Audit of shapes"
    show(v, first, page="cluster", other=other.name)
    assert v.page.title() == f"{run.classes[first.group]}, F1 and F1 · Audit of shapes"
    for name in ("Overview", "Summary", "About"):
        v.page.click(f"#pages a[data-page={name.lower()}]")
        v.settled(f"spray.state.page === '{name.lower()}'")
        assert v.page.title() == f"{name} · Audit of shapes"


def test_pointers_find_targets_of_24_pixels(v, run):
    assert v.page.evaluate(TOO_SMALL, 24) == []
    show(v, run.analysis().findings()[0], page="cluster")
    assert v.page.evaluate(TOO_SMALL, 24) == []


def test_fingers_find_targets_of_44_pixels(browser, report, run):
    v = Visit(browser, report.as_uri(), width=390, height=844, has_touch=True, is_mobile=True)
    finding = run.analysis().findings()[0]
    for page in ("class", "cluster", "overview", "summary"):
        show(v, finding, page=page) if page in ("class", "cluster") else v.state(
            f"spray.router.go({{ page: '{page}' }}).then(() => null)"
        )
        v.settled(f"spray.state.page === '{page}'")
        assert v.page.evaluate(TOO_SMALL, 44) == [], page
        assert v.state("document.documentElement.scrollWidth") <= 390
    show(v, finding, page="cluster")
    boxes = "[...document.querySelectorAll('.effects text')].map((at) => at.getBoundingClientRect())"
    right, low = v.state(
        f"[Math.max(...{boxes}.map((at) => at.right)), Math.min(...{boxes}.map((at) => at.height))]"
    )
    assert right <= 390 and low > 11, "figures of an effect are cut, or too small to read"
    v.close()


def test_log_odds_are_called_log_odds(v):
    entry = {
        "title": "channels removed",
        "sign": -1,
        "mean": 1.2,
        "net": 1.0,
        "interval": None,
        "controls": [],
    }
    made = f"spray.effect({{ ...{json.dumps(entry)}, measure: spray.measures.logit }})"
    told = v.state(f"{made}.textContent + {made}.title")
    assert "log-odds −1.20" in told and "P −" not in told and "probability" not in told


def test_disagreement_and_withdrawal_have_colours_of_their_own(v):
    colour = """(kind) => {
        const at = document.createElement("td");
        at.className = `given ${kind}`;
        document.querySelector("#clusters tbody tr").append(at);
        const found = getComputedStyle(at).color;
        at.remove();
        return found;
    }"""
    ink = v.page.evaluate(colour, "none")
    assert v.page.evaluate(colour, "conflict") != ink
    assert v.page.evaluate(colour, "withdrawn") != ink


def test_a_page_of_the_gallery_has_the_sample_of_the_address(fresh, run):
    window = fresh()
    window.page.set_viewport_size({"width": 1440, "height": 900})
    members = window.state("Array.from(spray.state.selection)")
    each = window.page.locator(".tile").count()
    if len(members) <= each:
        window.state("(document.getElementById('gallery').style.maxWidth = '180px', null)")
        window.settled(f"document.querySelectorAll('.tile').length < {len(members)}")
    finding = run.analysis().findings()[0]
    row = window.state("spray.state.chunk.rows[spray.state.selection.at(-1)]")
    show(window, finding, sample=row)
    window.settled("document.querySelector('.tile[aria-pressed=true]') !== null")
    assert window.page.locator(".tile[aria-pressed=true]").get_attribute("data-position") == str(members[-1])
    assert np.ptp(window.pixels(".tile[aria-pressed=true] canvas")) > 20
