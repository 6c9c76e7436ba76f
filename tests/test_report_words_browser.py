"""What the report says: conclusions first, failures, numbers in their order, and on paper; in Chromium, offline."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from browser import IN_BROWSER, Visit, near, serving

import reports
import stores
import stores.synthetic
from reports.model import ReportModel

pytestmark = IN_BROWSER

SAMPLES = 150
COLOURED = """(() => {
    const context = document.querySelector("#overview-flagged canvas").getContext("2d");
    const { data } = context.getImageData(0, 0, 148, 148);
    const isRed = (i) => data[i] > 200 && data[i + 1] < 60 && data[i + 2] < 60;
    return data.reduce((count, _, i) => count + (i % 4 === 0 && isRed(i)), 0);
})()"""
"""Red pixels of the first flagged finding's map."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    metadata = {
        "stage": np.arange(SAMPLES) % 11,
        "age": np.arange(SAMPLES) / 2,
        "file": [f"file {row}" for row in range(SAMPLES)],
    }
    path = tmp_path_factory.mktemp("words") / "run.zarr"
    return stores.synthetic.make(path, samples=SAMPLES, metadata=metadata, failures=3)


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html", title="Audit of shapes")


def test_what_follows_stands_before_what_was_measured(visit):
    v = visit()
    summary = (
        "20 of 100 'Not shown. x' samples. Removing it lowers P(x) by 0.53. Pasting works. "
        "Confirmed (q = 0.0003): the model uses it; whether it may is for you to judge."
    )
    words = f"spray.element('p', {{}}, spray.caseWords({json.dumps(summary)}, {{ titled: %s }}))"
    for titled, rest in (("true", ""), ("false", "20 of 100 'Not shown. x' samples. ")):
        told = v.state(f"{words % titled}.textContent")
        measured = f"{rest}Removing it lowers P(x) by 0.53. Pasting works."
        assert (
            told
            == f"Confirmed (q = 0.0003): the model uses it; whether it may is for you to judge. {measured}"
        )
        assert v.state(f"{words % titled}.querySelector('b').textContent").startswith("Confirmed")
    assert v.state("spray.caseWords('nothing to conclude.')") == ["nothing to conclude."]


def test_a_broken_image_is_counted_once_and_is_not_audited(run, visit):
    failed = {*run.samples.failures, *run.table(str(run.analysis().facts["relevance"])).failures}
    assert len(failed) == 3 == ReportModel.from_run(run).facts["failed"]["rows"]
    v = visit()
    v.page.click("#pages a[data-page=overview]")
    v.settled("spray.state.page === 'overview'")
    told = v.page.locator("#overview-numbers .fact").all_inner_texts()
    assert told[0].split("\n") == ["147 of 150", "samples audited"]
    assert told[-1].split("\n") == ["3", "samples failed"]
    assert "147 of 150 samples" in v.page.inner_text("#facts")
    v.page.click("#pages a[data-page=about]")
    assert "3 of 150 samples" in v.page.inner_text("#about-checks")


def test_where_nothing_was_tested_nothing_is_told_as_clear(browser, tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=120)
    first = run.analysis()
    groups = [first.read(group) for group in first.groups]
    again = run.write_analysis(stores.Provenance(({"name": "second"},)), groups, facts=dict(first.facts))
    findings = first.findings()
    bare = [dataclasses.replace(finding, flagged=False, evidence={}, pictures={}) for finding in findings]
    again.write_findings(bare, stores.Provenance(({"name": "untested"},)))
    assert ReportModel.from_run(run).analysis == first.id, "the newest that was tested, not the newest"
    page = reports.build(run.path, tmp_path / "r.html", analysis=again.id).as_uri()
    v = Visit(browser, f"{page}#overview")
    told = v.page.inner_text("#overview-flagged")
    assert told.startswith(f"{len(bare)} findings, none tested by an intervention") and "None:" not in told
    flagged = sum(finding.flagged for finding in findings)
    assert f"{flagged} flagged in " in told and "findings not tested" in v.page.inner_text("#facts")
    assert "–\nflagged: none was tested" in v.page.inner_text("#overview-numbers")
    v.page.locator("#overview-findings .card-finding").first.click()
    v.settled("spray.state.page === 'class'")
    assert v.page.inner_text("#case-eyebrow").startswith("Not tested")
    v.page.click("#pages a[data-page=summary]")
    assert v.page.inner_text("#summary-state").startswith("findings not tested")
    v.page.click("#pages a[data-page=overview]")
    v.page.locator("#overview-flagged a").click()
    v.settled(f"spray.state.analysis === {json.dumps(first.id)}")
    assert v.page.locator("#overview-flagged article").count() == flagged
    v.close()


def test_the_page_of_a_finding_needs_one(visit, run):
    finding = run.analysis().findings()[0]
    v = visit(f"#class={finding.group}&sample={finding.rows[0]}&page=cluster")
    assert v.state("[spray.state.page, spray.state.subject.key]") == ["cluster", finding.name]
    v.state("(spray.report.groups[1].subjects = [], null)")
    index = v.state("spray.report.groups[1].index")
    v.state(f"(location.hash = '#class={index}&page=cluster', null)")
    v.settled(f"spray.state.group.index === {index}")
    assert v.state("spray.state.page") == "class" and v.page.locator("#page-class").is_visible()
    v.page.reload()
    v.page.wait_for_selector("body.ready")


def test_a_word_of_trouble_can_be_closed(visit):
    v = visit("#class=99")
    v.page.locator("#trouble button").click()
    assert v.page.locator("#trouble").is_hidden()


@pytest.fixture(scope="module")
def by_channel(tmp_path_factory):
    """A store whose findings have no map of their own, as those by channel; the flagged one is not the first."""
    run = stores.synthetic.make(tmp_path_factory.mktemp("channels") / "run.zarr", samples=120)
    first = run.analysis()
    groups = [first.read(group) for group in first.groups]
    again = run.write_analysis(stores.Provenance(({"name": "channels"},)), groups, facts=dict(first.facts))
    found = [
        dataclasses.replace(
            finding,
            mean_map=None,
            region=None,
            pictures={},
            evidence={**finding.evidence, "channels": [1, 2]},
            score=finding.score if not finding.flagged else 0.001,
        )
        for finding in first.findings()
    ]
    found.sort(key=lambda finding: -finding.score)
    assert not found[0].flagged and any(finding.flagged for finding in found)
    again.write_findings(found, stores.Provenance(({"name": "found"},)))
    return run, again


@pytest.mark.parametrize("carrier", ["file", "served"])
def test_findings_by_channel_show_the_mean_of_their_members(browser, by_channel, tmp_path, carrier):
    run, analysis = by_channel
    flagged = next(finding for finding in analysis.findings() if finding.flagged)
    with contextlib.ExitStack() as stack:
        if carrier == "served":
            url = stack.enter_context(serving(run.path))
        else:
            url = reports.build(run.path, tmp_path / "r.html").as_uri()
        v = Visit(browser, url)
        assert v.state("spray.state.subject.key") == flagged.name, "flagged ones first, whatever their score"
        assert near(v.pixels("#mean-map"), (255, 0, 0), 60) > 20, "the tag"
        own = v.pixels("#mean-map")
        assert v.page.inner_text("#case-title").endswith("share one strategy")
        assert "channels suppressed" in v.page.inner_text("#case-evidence")
        v.page.click("#pages a[data-page=overview]")
        v.settled("spray.state.page === 'overview'")
        v.settled(f"spray.state.page === 'overview' && {COLOURED} > 20")
        v.page.click("#pages a[data-page=class]")
        v.settled("spray.state.page === 'class'")
        v.state(
            "spray.set({ selection: Uint32Array.from(spray.state.chunk.members["
            "spray.state.group.subjects.at(-1).key]), origin: 'brush', sample: null })"
        )
        v.settled("!document.querySelector('#panel-finding figcaption').textContent.includes('on its way')")
        assert (v.pixels("#mean-map") != own).any()
        v.page.click("#gallery-back")
        np.testing.assert_array_equal(v.pixels("#mean-map"), own)
        v.close()


def test_a_mean_that_is_on_its_way_is_not_the_picture_of_another(fresh):
    v = fresh()
    before = v.pixels("#mean-map")
    v.state("(spray.tiles.meanOf = () => null, null)")
    v.state("spray.set({ selection: Uint32Array.of(1, 2, 3), origin: 'brush', sample: null })")
    assert "mean of 3 selected: on its way" in v.page.inner_text("#panel-finding figcaption")
    assert np.ptp(v.pixels("#mean-map")[10:-10, 10:-10].reshape(-1, 3), axis=0).max() == 0
    v.state("spray.set({ selection: spray.state.chunk.members[spray.state.subject.key], origin: 'subject' })")
    np.testing.assert_array_equal(v.pixels("#mean-map"), before)


EVERY = """const every = (root) => [...root.querySelectorAll("*")]
    .flatMap((one) => [one, ...(one.shadowRoot ? every(one.shadowRoot) : [])]);"""
"""All elements in a place, those of shadow roots, too."""


def use(v, tool):
    """Make a tool of the embedding the active one."""
    tools = "spray.figures.embedding.model.toolbar.tools"
    v.state(f"({tools}.find((it) => it.type === '{tool}').active = true, null)")


def test_figures_and_their_tools_have_names_and_say_what_is_pressed(visit):
    v = visit()
    found = v.state(
        f"""(() => {{ {EVERY}
            return every(document.getElementById("page-class"))
                .filter((one) => one.tabIndex === 0 && !one.matches("a, button, select, input, textarea, tr"))
                .map((one) => ["role", "aria-label", "aria-pressed"].map((name) => one.getAttribute(name)));
        }})()"""
    )
    assert len(found) >= 8 and all(role in ("img", "button") and label for role, label, _ in found)
    pressed = {label: state for _, label, state in found if state}
    assert pressed["Lasso Select"] == "true" and pressed["Box Select"] == "false" and "Reset" not in pressed
    use(v, "BoxSelectTool")
    v.settled(
        f"""(() => {{ {EVERY}
            const box = every(document.getElementById("figure-embedding")).find((one) => one.title === "Box Select");
            return box.getAttribute("aria-pressed") === "true";
        }})()"""
    )
    use(v, "LassoSelectTool")


def test_analyses_are_told_apart_in_few_words(visit):
    v = visit()
    names = [["LRP a", "6.channel"], ["LRP a"], ["LRP a", "by label"]]
    assert v.state(f"spray.sharedParts({json.dumps(names)})") == 1
    assert v.state("spray.sharedParts([['a', 'b'], ['c']])") == 0


def test_numbers_to_keep_stand_in_their_order(visit):
    v = visit()
    offered = v.state("[...document.getElementById('gallery-keep').options].map((at) => at.textContent)")
    stages = [text.split(": ")[1] for text in offered if text.startswith("stage: ")]
    assert stages == [f"{float(stage)}" for stage in range(11)]


def test_what_goes_along_tells_quarters_of_numbers_and_what_it_leaves_out(visit, run):
    v = visit()
    quarters = v.state("spray.quarters(spray.state.chunk.metadata.age)")
    ages = np.array(v.state("Array.from(spray.numbersOf(spray.state.chunk.metadata.age))"))
    assert len(set(quarters)) == 4 and quarters.count(quarters[int(ages.argmin())]) == pytest.approx(
        len(ages) / 4, abs=1
    )
    assert all(ages[i] <= np.quantile(ages, 0.3) for i, told in enumerate(quarters) if told.startswith("≤"))
    assert v.state("spray.quarters(spray.state.chunk.metadata.stage)") is None
    assert v.state("spray.quarters(['1', 'nan', ''])") is None
    finding = run.analysis().findings()[0]
    go = {"page": "cluster", "group": finding.group, "subject": finding.name}
    v.state(f"spray.router.go({json.dumps(go)}).then(() => null)")
    table = v.page.locator("#cluster-columns .associations")
    rows = [row.split("\t") for row in table.inner_text().split("\n")]
    aged = [row for row in rows if row[0] == "age"]
    assert len(aged) <= 1 and any(row[0] == "brightness" for row in rows), "the one that differs most"
    told = v.page.locator("#cluster-columns .faint").all_inner_texts()
    many = len(set(v.state("spray.state.chunk.metadata.file"))) > 50
    assert any("Left out" in text and "file" in text for text in told) is many


def test_on_paper_the_summary_is_a_table_with_a_place_to_sign(fresh):
    v = fresh("#summary", width=717, height=1000)
    v.page.emulate_media(media="print")
    head = v.page.locator("#summary-table thead th")
    assert (
        head.first.is_visible()
        and head.first.evaluate("(at) => getComputedStyle(at).display") == "table-cell"
    )
    body = v.page.locator("#summary-table tbody tr").first.locator("td, th").all()
    edges = [cell.bounding_box()["x"] for cell in body]
    assert edges == sorted(edges) and len({cell.bounding_box()["y"] for cell in body}) == 1
    assert v.page.locator(".paper").is_visible() and "signed" in v.page.inner_text(".paper")
    v.state("window.dispatchEvent(new Event('beforeprint'))")
    assert "Printed 20" in v.page.inner_text("#summary-identity")
    v.state("window.dispatchEvent(new Event('afterprint'))")
    assert "Printed" not in v.page.inner_text("#summary-identity")
    v.page.emulate_media(media="screen")
    assert not v.page.locator(".paper").is_visible()


def test_on_paper_a_finding_has_no_controls_and_begins_on_its_first_page(fresh, run):
    finding = run.analysis().findings()[0]
    v = fresh(f"#class={finding.group}&subject={finding.name}&page=cluster", width=717, height=1000)
    v.page.emulate_media(media="print")
    controls = (
        "[...document.querySelectorAll('#page-cluster :is(button:not(.glimpse), select, textarea, input)')]"
    )
    assert v.state(f"{controls}.filter((at) => at.checkVisibility()).length") == 0
    assert (
        v.page.locator("#cluster-columns .card").first.evaluate("(at) => getComputedStyle(at).breakInside")
        == "auto"
    )
    assert v.page.locator("#cluster-columns .effects svg").first.bounding_box()["width"] < 480
