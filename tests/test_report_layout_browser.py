"""The report's layout, words and addresses on windows of many sizes, in headless Chromium, offline."""

from __future__ import annotations

import json

import pytest
from browser import IN_BROWSER

import reports
import stores
import stores.synthetic

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("layout") / "run.zarr")


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


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
    assert v.state(f"{plot}.textContent.includes('compared in log-odds')") is False
    rows = v.state(f"[...{plot}.querySelectorAll('.number')].map((at) => at.textContent)")
    assert rows == ["+0.10", "+0.15", "−0.05"]
    axis = v.state(f"[...{plot}.querySelectorAll('text')].map((at) => at.textContent)")
    ticks = [text for text in axis if text.replace("−", "").replace(".", "").isdigit()]
    assert ticks[:6] == ["−0.10", "−0.05", "0.00", "0.05", "0.10", "0.15"]


def test_a_control_on_other_samples_is_not_told_as_part_of_the_net(visit, run):
    finding = run.analysis().findings()[0]
    v = visit(f"#class={finding.group}&subject={finding.name}&page=cluster")
    removal = {"mean": 0.12, "net": 0.10, "net_interval": [0.02, 0.2], "images": 40}
    removal |= {"controls": {"random": 0.02, "matched": 0.25}}
    evidence = {"removal": removal, "transplant": removal, "pasted_on": 7}
    subject = json.dumps({"kind": "finding", "evidence": evidence})
    told = v.state(f"spray.effects({subject}, {{ index: 0, name: 'x' }}).map(spray.effectWords)")
    for words in told:
        assert "net of the strongest control on the same samples +0.10" in words
        assert "(other samples, compared in log-odds only)" in words
    assert told[0].endswith("40 images") and told[1].endswith("of 40 on 7 images")
    spelt = json.dumps({"kind": "finding", "evidence": {"removal": {**removal, "elsewhere": ["random"]}}})
    controls = v.state(f"spray.effects({spelt}, {{ index: 0, name: 'x' }})[0].controls")
    assert controls == [["random", 0.02, True], ["matched", 0.25, False]], "the record says which"
    rows = v.state(f"spray.effectPlots({subject}, {{ index: 0, name: 'x' }})[0].textContent")
    assert "control: random" in rows and "* other: matched" in rows
    assert "* on other samples: not in the net" in rows


def test_effects_are_of_the_class_that_was_tested_not_of_the_group(visit, run):
    """Relevance may explain another class than the samples', and a group of all classes is none."""
    finding = run.analysis().findings()[0]
    v = visit(f"#class={finding.group}&subject={finding.name}&page=cluster")
    effect = {"mean": 0.12, "net": 0.10, "net_interval": [0.02, 0.2], "images": 40}
    evidence = {"removal": effect, "transplant": effect, "flip_rate": 0.17, "target": 1}
    subject = json.dumps({"kind": "finding", "evidence": evidence, "parts": {}})
    name = run.classes[1]
    for group in ({"index": -1, "name": "all classes"}, {"index": 0, "name": run.classes[0]}):
        told = v.state(f"spray.effects({subject}, {json.dumps(group)}).map(spray.effectWords)")
        assert f"17 % become “{name}”" in told[1] and group["name"] not in "".join(told)
        assert all(f"probability of “{name}” " in words for words in told)
        shown = v.state(f"spray.evidence({subject}, {json.dumps(group)}).map((at) => at?.textContent).join()")
        plot = v.state(f"spray.effectPlots({subject}, {json.dumps(group)})[0].textContent")
        assert all(f"become “{name}”" in text and f"for “{name}”" in text for text in (shown, plot))
    joint = '{ index: -1, name: "all classes", n: 1797, status: "ok" }'
    title = v.state(f"spray.caseTitle({joint}, {{ kind: 'finding', n: 70, region: [] }})")
    assert title == "70 of 1,797 samples of all classes share one region"
    words = "70 of 1,797 samples of all classes. Their relevance lies at the top."
    assert v.state(f"spray.caseWords('{words}', {{ titled: true }})") == ["Their relevance lies at the top."]
    own = json.dumps({"index": 1, "name": name})
    told = v.state(f"spray.effects({subject}, {own}).map(spray.effectWords)")
    assert told[0].startswith("region removed: class probability") and f"17 % become “{name}”" in told[1]
    further = v.state(f"spray.furtherEvidence({subject}).textContent")
    assert f"target{name}" in further


def test_without_a_control_on_the_same_samples_nothing_is_called_net(visit, run):
    finding = run.analysis().findings()[0]
    v = visit(f"#class={finding.group}&subject={finding.name}&page=cluster")
    removal = {"mean": 0.08, "net": 0.08, "net_interval": [0.06, 0.1], "images": 40}
    removal |= {"controls": {"matched": 0.15, "same place": 0.01}, "elsewhere": ["matched", "same place"]}
    subject = json.dumps({"kind": "finding", "evidence": {"removal": removal}})
    told = v.state(f"spray.effectWords(spray.effects({subject}, {{ index: 0, name: 'x' }})[0])")
    assert (
        "no control on the same samples was run, 95 % between +0.06 and +0.10" in told and "net" not in told
    )
    rows = v.state(f"spray.effectPlots({subject}, {{ index: 0, name: 'x' }})[0].textContent")
    assert "its 95 %" in rows and "net" not in rows and "* on other samples: compared in log-odds" in rows


@pytest.mark.parametrize("page", ["overview", "summary", "about"])
def test_controls_that_change_nothing_are_not_offered(visit, page):
    v = visit()
    v.page.click(f"#pages a[data-page={page}]")
    v.settled(f"!document.getElementById('page-{page}').hidden")
    assert v.page.locator("#map").is_visible() is (page != "about")
    for control in ("#view", "#opacity", "#scaling"):
        assert not v.page.locator(control).is_visible(), control
    v = visit()
    for control in ("#view", "#opacity", "#scaling", "#map"):
        assert v.page.locator(control).is_visible(), control


def test_tiles_are_one_stop_of_the_tab_key_and_arrows_move_in_them(visit):
    v = visit()
    v.page.locator("#gallery-next").focus()
    v.page.keyboard.press("Tab")
    at = "document.activeElement"
    assert v.state(f"{at} === document.querySelector('.tile')")
    name = v.state(f"{at}.getAttribute('aria-label')")
    assert all(part in name for part in v.state("spray.caption(spray.state.chunk, spray.state.selection[0])"))
    place = f"[...document.querySelectorAll('.tile')].indexOf({at})"
    across = v.state(
        "[...document.querySelectorAll('.tile')].filter((it, i, all) => it.offsetTop === all[0].offsetTop).length"
    )
    for key, expected in (("ArrowRight", 1), ("ArrowDown", 1 + across), ("ArrowUp", 1), ("ArrowLeft", 0)):
        v.page.keyboard.press(key)
        assert v.state(place) == expected, key
    v.page.keyboard.press("ArrowRight")
    v.page.keyboard.press("Enter")
    assert v.state(f"{at}.getAttribute('aria-pressed')") == "true"
    assert v.page.locator(".tile[tabindex='0']").count() == 1
    v.page.keyboard.press("Tab")
    assert v.state(f"{at}.closest('#gallery')") is None


def test_lines_between_tools_are_no_brighter_than_other_lines(fresh):
    v = fresh(color_scheme="dark")
    found = v.state(
        """(() => { const all = []; const look = (root) => { for (const one of root.querySelectorAll("*")) {
            if (one.classList.contains("bk-divider")) all.push(getComputedStyle(one).backgroundColor);
            if (one.shadowRoot) look(one.shadowRoot); } };
            look(document.querySelector("#figure-embedding")); return all; })()"""
    )
    line = v.state(
        """(() => { const one = document.createElement("i"); one.style.color = "var(--line)";
            document.body.append(one); const { color } = getComputedStyle(one); one.remove(); return color; })()"""
    )
    assert found and set(found) == {line}


def test_on_a_phone_the_verdict_is_one_tap_away_from_the_evidence(visit, run):
    finding = run.analysis().findings()[0]
    address = f"#class={finding.group}&subject={finding.name}&page=cluster"
    v = visit(address, width=390, height=844)
    assert v.page.locator("#verdict-buttons").bounding_box()["y"] > 844
    v.page.click("#cluster-judge")
    v.settled("document.querySelector('#verdict-buttons').getBoundingClientRect().bottom < innerHeight")
    assert v.state("document.activeElement.getAttribute('role')") == "radio"
    assert v.state("location.hash") == address
    assert not visit(address).page.locator("#cluster-judge").is_visible()


def test_what_an_address_lacks_is_told_by_its_name(visit, run):
    finding = run.analysis().findings()[0]
    group = run.classes[finding.group]
    subject = f"#class={finding.group}&subject={finding.name}&page=cluster"
    for address, told in (
        (f"{subject}&with=zzz", "This report has no comparison “zzz”. Something"),
        ("#class=99", "This report has no class “99”. Something"),
        (f"#class={finding.group}&subject=zzz", f"no subject “zzz” in “{group}”. Something"),
    ):
        assert told in visit(address).page.inner_text("#trouble"), address


def test_a_selection_by_hand_is_not_told_as_the_finding(visit):
    v = visit()
    summary = v.page.inner_text("#case-summary")
    v.state("spray.set({ selection: Uint32Array.of(0, 1, 2), origin: 'brush', sample: null })")
    assert v.page.inner_text("#case-title").startswith("3 of ")
    assert "still on F1" in v.page.inner_text("#case-summary")
    assert v.page.inner_text("#case-evidence") == ""
    assert "mean of 3 selected" in v.page.inner_text("#panel-finding")
    header = v.page.locator("#panel-gallery header").bounding_box()
    assert header["height"] < 40 and v.page.locator("#gallery-page").bounding_box()["height"] < 24
    v.page.click("#gallery-back")
    assert v.page.inner_text("#case-summary") == summary


def test_a_finger_scrolls_the_page_over_the_embedding(fresh):
    v = fresh(width=390, height=844, has_touch=True, is_mobile=True)
    tools = "spray.figures.embedding.model.toolbar"
    assert v.state(f"[{tools}.active_drag, {tools}.active_scroll]") == [None, None]
    actions = v.state(
        "spray.figures.embedding.canvas_view"
        " ? getComputedStyle(spray.figures.embedding.canvas_view.events_el).touchAction : ''"
    )
    assert actions != "none"


def test_names_of_any_length_and_direction_leave_the_reports_words_alone(browser, tmp_path, fresh):
    names = ["\u202eabc", "W" * 400, "\u05e9\u05dc\u05d5\u05dd"]
    run = stores.synthetic.make(tmp_path / "names.zarr", classes=3)
    page = reports.build(run.path, tmp_path / "names.html")
    text = page.read_text()
    for known, name in zip(run.classes, names, strict=False):
        text = text.replace(json.dumps(known), json.dumps(name))
    page.write_text(text)
    v = fresh(url=page.as_uri(), width=390, height=844)
    assert v.state("document.documentElement.scrollWidth") <= 390
    for group in range(3):
        v.state(f"spray.router.go({{ group: spray.report.groups[{group}].index }}).then(() => null)")
        assert v.state("document.documentElement.scrollWidth") <= 390
        right = (
            "[...document.querySelectorAll('#panel-verdict *')].map((at) => at.getBoundingClientRect().right)"
        )
        assert v.state(f"Math.max(...{right})") <= 390
    assert "\u202e" not in v.page.inner_text("body")
    assert v.state("spray.isolated('\\u05e9')") == "\u2068\u05e9\u2069"


def test_the_skip_link_stays_on_its_page(visit):
    v = visit()
    v.state("spray.router.go({ page: 'summary' }).then(() => null)")
    v.page.locator(".skip").focus()
    v.page.keyboard.press("Enter")
    assert v.state("[spray.state.page, document.activeElement.id, location.hash]") == [
        "summary",
        "content",
        "#summary",
    ]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("#class=99", "no class “99”"),
        ("#class=0&sample=9999999", "no sample “9999999”"),
        ("#class=0&subject=zzz", "no subject “zzz”"),
        ("#class=0&analysis=zzz", "no analysis “zzz”"),
    ],
)
def test_an_address_of_what_is_not_there_says_so(visit, address, word):
    v = visit(address)
    assert word in v.page.inner_text("#trouble")
    v.page.locator("#class-list .class").first.click()
    v.settled("document.getElementById('trouble').hidden")


def test_a_sample_that_is_clicked_is_in_the_address(fresh):
    v = fresh()
    v.page.locator(".tile").nth(1).click()
    row = v.state("spray.state.chunk.rows[spray.state.sample]")
    assert f"sample={row}" in v.state("location.hash")
    v.page.reload()
    v.page.wait_for_selector("body.ready")
    assert v.state("spray.state.chunk.rows[spray.state.sample]") == row


def test_metadata_with_many_values_gaps_and_ties_can_be_kept_and_sorted(fresh):
    v = fresh()
    made = """(() => {
        const { chunk } = spray.state;
        const blank = Object.create(null);
        blank.gaps = Array.from({ length: chunk.n }, (_, i) => (i === 3 ? "nan" : String(i * 7 % 101)));
        blank.zeros = Array.from({ length: chunk.n }, (_, i) => (i % 5 ? "0" : String(i)));
        blank.place = Array.from({ length: chunk.n }, (_, i) => `place ${i % 40}`);
        return { ...chunk, metadata: blank };
    })()"""
    v.state(f"spray.set({{ chunk: {made} }})")
    offered = v.state("[...document.getElementById('gallery-keep').options].map((at) => at.value)")
    assert {"quarter0.gaps", "quarter3.zeros", "meta.place=place 1"} <= set(offered)
    whole = v.state("spray.state.chunk.n")
    for column, measured in (("gaps", whole - 1), ("zeros", whole)):
        kept = [
            v.state(
                "Array.from({ length: spray.state.chunk.n }, (_, i) => i)"
                f".filter(spray.filter(spray.state.chunk, 'quarter{part}.{column}'))"
            )
            for part in range(4)
        ]
        assert sorted(i for part in kept for i in part) == [
            i for i in range(whole) if column == "zeros" or i != 3
        ]
        assert all(abs(len(part) - measured / 4) <= 1 for part in kept)
    everything = "Uint32Array.from({ length: spray.state.chunk.n }, (_, i) => i)"
    order = v.state(
        f"spray.ordered({{ ...spray.state, selection: {everything}, keep: 'all', sort: 'meta.gaps' }})"
    )
    numbers = [int(i) * 7 % 101 for i in order[:-1]]
    assert order[-1] == 3 and numbers == sorted(numbers)


def test_the_card_of_a_tile_opens_for_the_keyboard_too(visit):
    v = visit()
    v.page.locator("#gallery-next").focus()
    v.page.keyboard.press("Tab")
    assert v.page.locator("#hover").is_visible()
    v.page.keyboard.press("Shift+Tab")
    assert not v.page.locator("#hover").is_visible()


def test_a_verdict_in_the_table_is_not_cut_off(fresh):
    v = fresh()
    v.page.fill("#annotator", "A. Auditor")
    v.page.locator("#verdict-buttons [data-value=clever_hans]").click()
    cell = v.page.locator("#clusters td.given").first.bounding_box()
    table = v.page.locator("#panel-clusters .scroll").bounding_box()
    assert cell["x"] + cell["width"] <= table["x"] + table["width"] + 1
    assert v.page.get_attribute("#facts", "title") == v.page.inner_text("#facts")
