"""Verdicts in headless Chromium: several people, tabs and clocks, by keyboard, and a server that comes and goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser import IN_BROWSER, Visit, serving
from store_tools import with_twins

import reports
import stores
import stores.synthetic
from reports.model import store_identity

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("verdicts") / "run.zarr", samples=120)


@pytest.fixture(scope="module")
def report(run):
    return reports.build(run.path, run.path.parent / "report.html")


@pytest.fixture
def visit(browser, report):
    one = Visit(browser, report.as_uri())
    sign(one)
    yield one
    one.close()


def sign(v, name="Ada"):
    """Enter the name of whoever judges."""
    v.page.fill("#annotator", name)
    v.page.press("#annotator", "Enter")


def choose(v, word):
    v.page.locator("#verdict-buttons").get_by_role("radio", name=word).click()


def chosen(v):
    return v.page.locator("#verdict-buttons [aria-checked=true]").all_inner_texts()


def records(v):
    """Verdict, note and annotator of all that the report knows."""
    return [(it["verdict"], it["note"], it["annotator"]) for it in v.state("spray.verdicts.all()")]


def show(v, finding):
    v.state(f"spray.router.go({{group: {finding.group}, subject: {json.dumps(finding.name)}}})")
    v.settled(f"spray.state.subject?.key === {json.dumps(finding.name)}")


def record_of(run, number=0, **changes):
    finding = run.analysis().findings()[number]
    ids = tuple(sorted(str(name) for name in run.samples.read("id", finding.rows)))
    fields = {"subject": "finding", "analysis": run.analysis().id, "key": finding.name, "verdict": "valid"}
    fields |= {"note": "", "annotator": "A", "time": "2026-01-01T00:00:00Z", "members": ids}
    changed = {**fields, **changes}
    return {**changed, "digest": stores.members_digest(changed["members"])}


def take(v, run, *given):
    """Import verdicts; gives what the report says."""
    file = {"format": "spray-verdicts", "version": 1, "store": store_identity(run), "verdicts": given}
    v.state("(document.getElementById('verdict-status').textContent = '', null)")
    content = json.dumps(file).encode()
    v.page.set_input_files(
        "#verdict-file", {"name": "v.json", "mimeType": "application/json", "buffer": content}
    )
    v.settled("document.getElementById('verdict-status').textContent !== ''")
    return v.page.inner_text("#verdict-status")


def test_nobody_is_made_to_say_what_another_said(visit):
    v = visit
    v.page.fill("#annotator", "Alice")
    v.page.fill("#verdict-note", "the tag")
    choose(v, "Clever Hans")
    v.page.fill("#annotator", "Bob")
    v.page.fill("#verdict-note", "only a note")
    v.page.locator("#annotator").focus()
    assert records(v) == [("clever_hans", "the tag", "Alice")]
    v.page.fill("#verdict-note", "fine")
    choose(v, "valid")
    assert records(v) == [("clever_hans", "the tag", "Alice"), ("valid", "fine", "Bob")]


def test_a_note_goes_with_the_verdict_that_follows_it_or_with_ones_own(visit):
    v = visit
    for note, word in (("one", "valid"), ("two", "unsure")):
        v.page.fill("#verdict-note", note)
        choose(v, word)
    assert records(v) == [("valid", "one", "Ada"), ("unsure", "two", "Ada")]
    v.page.fill("#verdict-note", "three")
    v.page.locator("#annotator").focus()
    assert records(v)[2:] == [("unsure", "three", "Ada")]


def test_verdicts_are_signed_and_the_one_chosen_waits_for_the_name(visit):
    v = visit
    sign(v, "")
    v.page.fill("#verdict-note", "a tag")
    choose(v, "Clever Hans")
    assert records(v) == []
    assert v.state("document.activeElement.id") == "annotator"
    assert v.page.inner_text("#verdict-status").startswith("Verdicts are signed: your name first")
    v.page.keyboard.type("  Ada ")
    v.page.keyboard.press("Enter")
    assert records(v) == [("clever_hans", "a tag", "Ada")]
    assert v.state("document.activeElement.dataset.value") == "clever_hans"
    choose(v, "valid")
    assert [word for word, _, _ in records(v)] == ["clever_hans", "valid"], "asked for once"


def test_another_choice_takes_the_place_of_what_waits_and_another_finding_ends_it(visit, run):
    v = visit
    first, second = run.analysis().findings()[:2]
    sign(v, "")
    choose(v, "Clever Hans")
    v.page.keyboard.type("Ada")
    choose(v, "valid")
    assert records(v) == [("valid", "", "Ada")]
    sign(v, "")
    choose(v, "unsure")
    v.page.keyboard.press("Enter")
    show(v, second)
    sign(v, "Bob")
    assert records(v) == [("valid", "", "Ada")]
    show(v, first)
    assert records(v) == [("valid", "", "Ada")]


def test_a_name_that_is_left_signs_too(visit):
    v = visit
    sign(v, "")
    choose(v, "unsure")
    v.page.keyboard.type("Ada")
    v.page.locator("#class-list .class").nth(1).click()
    assert records(v) == [("unsure", "", "Ada")]


def test_words_without_a_name_silence_none(visit, run):
    v = visit
    for word, day in (("clever_hans", 1), ("valid", 2), ("withdrawn", 3)):
        take(v, run, record_of(run, verdict=word, annotator="", time=f"2026-01-0{day}T00:00:00Z"))
    said = v.state("spray.verdicts.said(spray.state.subject).map(({ verdict }) => verdict)")
    assert said == ["clever_hans", "valid"]
    assert v.state("spray.verdicts.current(spray.state.subject).verdict") == "conflict"
    told = v.page.inner_text("#clusters tr[aria-selected=true]")
    assert "disagreement" in told
    v.page.locator("#annotator").focus()
    assert chosen(v) == [], "they are nobody's own"


def test_the_note_of_another_is_not_taken_over(visit, run):
    take(visit, run, record_of(run, note="of Alice", annotator="Alice"))
    visit.page.fill("#annotator", "Bob")
    choose(visit, "valid")
    assert records(visit) == [("valid", "of Alice", "Alice"), ("valid", "", "Bob")]


def test_a_note_that_was_begun_waits(visit, run):
    first, second = run.analysis().findings()[:2]
    visit.page.fill("#verdict-note", "begun")
    show(visit, second)
    assert visit.page.input_value("#verdict-note") == ""
    show(visit, first)
    assert visit.page.input_value("#verdict-note") == "begun"
    assert records(visit) == []


def test_arrows_move_and_space_chooses(visit):
    visit.page.locator("#verdict-buttons [role=radio]").first.focus()
    visit.page.keyboard.press("ArrowRight")
    assert records(visit) == []
    visit.page.keyboard.press("Space")
    assert [word for word, _, _ in records(visit)] == ["valid"]


def test_people_who_disagree_are_all_shown(visit, run):
    v = visit
    take(
        v,
        run,
        record_of(run, verdict="clever_hans", annotator="Alice", note="a tag"),
        record_of(run, annotator="Bob"),
    )
    assert chosen(v) == []
    assert "disagreement" in v.page.inner_text("#clusters tr[aria-selected=true]")
    v.page.fill("#annotator", "Alice")
    v.page.locator("#verdict-note").focus()
    assert chosen(v)[0].endswith("Clever Hans")
    assert "Bob: valid" in v.page.inner_text("#verdict-status")
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    page = v.page.inner_text("#page-summary")
    for said in (
        "1 disagreement",
        "Clever Hans (Alice)",
        "valid (Bob)",
        "Alice: a tag",
        "Alice, 2026-01-01\nBob, 2026-01-01",
    ):
        assert said in page, said


def test_people_who_agree_are_all_heard(visit, run):
    v = visit
    early = record_of(run, verdict="clever_hans", annotator="Alice", note="a tag")
    take(v, run, early, record_of(run, verdict="clever_hans", annotator="Bob", time="2026-01-02T00:00:00Z"))
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    case = v.page.inner_text("#page-summary")
    assert "Alice: a tag" in case and "Alice, 2026-01-01\nBob, 2026-01-02" in case
    finding = run.analysis().findings()[0]
    v.state(
        f"spray.router.go({{page: 'cluster', group: {finding.group}, subject: {json.dumps(finding.name)}}})"
    )
    v.settled("spray.state.page === 'cluster'")
    assert "Clever Hans · Alice: a tag; Bob" in v.page.inner_text("#cluster-columns .story")


def test_the_summary_has_the_last_word_of_each_on_samples_too(visit, run):
    v = visit
    name = str(run.samples.read("id", run.analysis().findings()[0].rows[:1])[0])
    on = {"subject": "sample", "key": name, "members": (name,)}
    said = [
        record_of(run, **on, verdict=verdict, note=verdict, time=f"2026-01-0{day}T00:00:00Z", annotator=by)
        for day, (verdict, by) in enumerate(
            [("valid", "Alice"), ("unsure", "Alice"), ("clever_hans", "Alice"), ("unsure", "Bob")], start=1
        )
    ]
    take(v, run, *said)
    v.page.click("#pages a[data-page=summary]")
    v.settled("spray.state.page === 'summary'")
    lines = v.page.locator("#summary-others li").all_inner_texts()
    assert len(lines) == 3 and "Clever Hans" in lines[0] and "Alice" in lines[0] and "Bob" in lines[1]
    assert lines[2].startswith("2 words that their authors replaced") and "valid" not in "".join(lines[:2])


def test_a_verdict_on_a_sample_is_on_that_sample(visit, run):
    v = visit
    one, other = (str(name) for name in run.samples.read("id", run.analysis().findings()[0].rows[:2]))
    for forged in (
        record_of(run, subject="sample", key=one, members=(other,)),
        record_of(run, members=()),
        record_of(run, key="k" * 20_000),
    ):
        assert "damaged" in take(v, run, forged) and records(v) == []


def test_the_browser_keeps_members_once_for_all_words_about_them(visit, run):
    v = visit
    for note in ("a", "b", "c", "d"):
        v.page.fill("#verdict-note", note)
        choose(v, "valid")
    assert len(records(v)) == 4
    member = str(run.samples.read("id", run.analysis().findings()[0].rows[:1])[0])
    assert v.state("Object.values(localStorage).join('')").count(member) == 1
    before = records(v)
    v.page.reload()
    v.page.wait_for_selector("body.ready")
    assert records(v) == before
    assert v.state("spray.verdicts.all().every((it) => it.members.length > 1)")
    ids = ["b", "a\ue000", "a\U0001f40e", "a", "", "aa", "\U0001f40e", "\ufb01", "Z", "\uc100", "\ue050"]
    ids += ["\U0001f40f", "\U0001f40e\U0001f40e", "\udcff", "a\ud83d", "a\ud83dz", "a\ud83e"]
    digest = v.state(f"spray.verdicts.digest({json.dumps(ids)}.sort(spray.verdicts.byCodePoint))")
    assert digest == stores.members_digest(ids)


def test_thousands_of_members_take_little_room_and_come_back_whole(visit):
    v = visit
    v.state(
        """(() => { window.ids = Array.from({ length: 2500 }, (_, i) => `train/n01440764/n01440764_${i}.JPEG`);
        ids.push("", "\\ud83d", "\\ud83d\\udc0e", ...["", "y", "yyyyyyyyy"].map((end) => "x".repeat(11000) + end));
        for (let i = 0; i < 20; i += 1)
            spray.verdicts.give("finding", `${i}`, [...ids, `only ${i}`],
                { verdict: "valid", note: "", annotator: "A" });
        })()"""
    )
    assert v.state("Object.values(localStorage).join('').length") < 20 * 30_000, "75,000 of it are ids"
    before = v.state("spray.verdicts.all()")
    v.page.reload()
    v.page.wait_for_selector("body.ready")
    assert len(before) == 20 and v.state("spray.verdicts.all()") == before
    assert set(before[3]["members"]) >= {"", "train/n01440764/n01440764_7.JPEG", "only 3"}


def test_a_browser_that_has_no_room_says_so_and_goes_on_when_it_has(visit, run):
    v = visit
    v.state("localStorage.setItem('other', 'x'.repeat(5200000))")
    v.state(
        """(() => { try { for (let i = 0; ; i += 1) localStorage.setItem(`more ${i}`, "x".repeat(500)); }
        catch { return null } })()"""
    )
    choose(v, "valid")
    assert v.page.inner_text("#verdict-status").startswith("This browser has no room for more: export")
    assert [word for word, _, _ in records(v)] == ["valid"]
    v.state("localStorage.removeItem('other')")
    show(v, run.analysis().findings()[1])
    choose(v, "unsure")
    assert v.page.inner_text("#verdict-status").startswith("Kept in this browser")
    v.page.reload()
    v.page.wait_for_selector("body.ready")
    assert [word for word, _, _ in records(v)] == ["valid", "unsure"], "what had no room is kept, too"


def test_of_two_findings_with_the_same_members_one_is_judged(browser, tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    again = with_twins(run)
    first, *_ = again.findings()
    page = reports.build(run.path, tmp_path / "r.html", analysis=again.id).as_uri()
    v = Visit(browser, f"{page}#class={first.group}&subject=twin.f1")
    sign(v)

    def words():
        word = "(spray.verdicts.current(spray.groupOf('{}')[1])?.verdict ?? null)"
        return [v.state(word.format(name)) for name in ("twin.f0", "twin.f1", "twin.half")]

    choose(v, "Clever Hans")
    assert words() == [None, "clever_hans", None]
    show(v, first)
    assert chosen(v) == []
    choose(v, "valid")
    assert words() == ["valid", "clever_hans", None]
    v.page.click("#verdict-undo")
    assert words() == [None, "clever_hans", None]
    members = tuple(sorted(str(name) for name in run.samples.read("id", first.rows)))
    elsewhere = record_of(run, analysis="another", key="twin.f1", annotator="B", members=members)
    take(v, run, elsewhere)
    assert words() == ["valid", "clever_hans", None], "of another analysis: on the first"
    v.close()


def test_undo_says_what_it_takes_back_and_where(visit, run):
    v = visit
    first, second = run.analysis().findings()[:2]
    choose(v, "valid")
    show(v, second)
    where = f"valid on F1, {run.classes[first.group]}"
    assert v.page.get_attribute("#verdict-undo", "title") == f"Take back: {where}"
    v.page.click("#verdict-undo")
    assert v.page.inner_text("#verdict-status") == f"Taken back: {where}."
    assert records(v) == [] and v.page.get_attribute("#verdict-undo", "title") == ""
    v.page.locator(".tile").first.click()
    choose(v, "unsure")
    v.page.click("#verdict-undo")
    identity = v.state("spray.state.chunk.ids[spray.state.sample]")
    assert v.page.inner_text("#verdict-status") == f"Taken back: unsure on sample {identity}."


def test_the_later_moment_holds_whatever_its_offset(visit, run):
    early = record_of(run, verdict="clever_hans", time="2026-01-01T10:00:00+02:00")
    take(visit, run, record_of(run, time="2026-01-01T09:00:00Z"), early)
    assert chosen(visit)[0].endswith("valid")


HOSTILE_FIELDS: tuple[dict[str, Any], ...] = (
    {"time": "zzzz not a time"},
    {"time": "9031-01-01T00:00:00Z"},
    {"time": 5},
    {"note": {"x": 1}},
    {"note": "x" * 10_001},
    {"subject": "nonsense"},
    {"verdict": "conflict"},
    {"subject": ["finding"]},
)


def test_hostile_fields_are_not_imported(visit, run):
    for changes in HOSTILE_FIELDS:
        said = take(visit, run, record_of(run, 1), record_of(run) | changes)
        assert "Nothing was imported" in said, changes
        assert records(visit) == [], changes


def test_an_imported_verdict_of_an_earlier_analysis_is_matched_in_classes_not_opened_yet(visit, run):
    findings = run.analysis().findings()
    number = next(i for i, finding in enumerate(findings) if finding.group != findings[0].group)
    for place in (0, number):
        given = record_of(run, place, key=f"c{findings[place].group}.f99", analysis="0123456789ab")
        given["members"] = given["members"][1:]
        take(visit, run, given | {"digest": stores.members_digest(given["members"])})
    nearest = visit.state("Object.values(spray.report.overlaps).map(([key]) => key)")
    assert nearest == [findings[0].name, findings[number].name]
    assert visit.state("spray.verdicts.inherited(spray.state.subject).record.annotator") == "A"


def test_the_note_of_an_earlier_verdict_goes_with_the_same_verdict_alone(visit, run):
    given = record_of(
        run, key="c9.f9", analysis="0123456789ab", verdict="clever_hans", note="a tag", annotator="Bob"
    )
    given["members"] = given["members"][1:]
    take(visit, run, given | {"digest": stores.members_digest(given["members"])})
    assert visit.page.input_value("#verdict-note") == "a tag"
    choose(visit, "valid")
    assert records(visit)[1:] == [("valid", "", "Ada")]
    visit.page.click("#verdict-undo")
    choose(visit, "Clever Hans")
    assert records(visit)[1:] == [("clever_hans", "a tag", "Ada")]


def until(page, expression):
    """Wait as ``Visit.settled`` does, in a tab that may lie behind another and so draws no frames."""
    page.evaluate(
        f"""() => new Promise((resolve, reject) => {{
            const last = performance.now() + 15000;
            const look = () => {{
                if ({expression}) resolve(true);
                else if (performance.now() > last) reject(new Error({json.dumps(expression)}));
                else setTimeout(look, 20);
            }};
            look();
        }})"""
    )


def test_two_tabs_keep_each_others_verdicts(browser, report, run):
    one = Visit(browser, report.as_uri())
    sign(one)
    other = one.context.new_page()
    other.goto(report.as_uri())
    other.wait_for_selector("body.ready")
    choose(one, "Clever Hans")
    until(one.page, "spray.verdicts.all().length === 1")
    until(other, "spray.verdicts.all().length === 1")
    finding = run.analysis().findings()[1]
    name = json.dumps(finding.name)
    other.evaluate(f"spray.router.go({{group: {finding.group}, subject: {name}}})")
    until(other, f"spray.state.subject?.key === {name}")
    other.locator("#verdict-buttons").get_by_role("radio", name="valid").click()
    until(one.page, "spray.verdicts.all().length === 2")
    one.page.click("#verdict-undo")
    until(other, "spray.verdicts.all().length === 1")
    one.page.reload()
    one.page.wait_for_selector("body.ready")
    assert [word for word, _, _ in records(one)] == ["valid"]
    one.close()


@pytest.mark.parametrize("text", ["{}", "null", "no json {", '[{"time": 5}, null, 3]'])
def test_damaged_storage_is_put_aside(visit, text):
    place = "`spray:verdicts:${spray.report.store}`"
    visit.state(f"localStorage.setItem({place}, {json.dumps(text)})")
    visit.page.reload()
    visit.page.wait_for_selector("body.ready")
    choose(visit, "valid")
    assert [word for word, _, _ in records(visit)] == ["valid"]
    assert visit.state(f"localStorage.getItem({place} + ':damaged')") == text


@pytest.fixture
def served(browser, tmp_path):
    """A store and a visit to its server, which runs in a thread of its own."""
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=90)
    with serving(run.path) as url:
        visit = Visit(browser, url)
        sign(visit)
        yield run, visit
        visit.context.close()


STATUS = "document.getElementById('verdict-status').textContent"


def test_what_could_not_be_saved_is_sent_once_the_server_is_back(served):
    run, v = served
    v.page.route("**/verdicts*", lambda route: route.abort())
    choose(v, "valid")
    v.settled(f"{STATUS}.startsWith('Not saved')")
    assert run.verdicts() == [] and v.state("spray.verdicts.unsent().length") == 1
    v.page.unroute("**/verdicts*")
    v.state("spray.verdicts.refresh().then(() => null)")
    assert [it.verdict for it in run.verdicts()] == ["valid"]
    assert v.state("spray.verdicts.unsent().length") == 0


def test_a_page_older_than_the_server_says_that_it_has_to_be_loaded_anew(served):
    run, v = served
    v.page.route("**/verdicts*", lambda route: route.abort())
    choose(v, "valid")
    v.settled(f"{STATUS}.startsWith('Not saved')")
    v.page.unroute("**/verdicts*")
    v.problems.clear()  # the console tells of the requests that failed
    v.state("spray.report.carrier.token = 'of an earlier server'")
    told = v.state("spray.verdicts.refresh()")
    assert told.startswith("Not saved") and "Reload" in told
    assert run.verdicts() == []
    assert v.state("spray.verdicts.unsent().length") == 1, "it waits"


def test_undo_at_the_server_withdraws(served):
    run, v = served
    choose(v, "valid")
    v.settled(f"{STATUS} === 'Saved in the store.'")
    v.page.click("#verdict-undo")
    v.settled(f"{STATUS}.startsWith('Taken back')")
    assert [it.verdict for it in run.verdicts()] == ["valid", "withdrawn"]
    assert chosen(v) == [] and v.state("spray.verdicts.current(spray.state.subject)") is None


def test_an_older_answer_does_not_replace_a_newer(served):
    _, v = served
    v.state(
        """(() => { const fetched = window.fetch; window.fetch = async (...asked) => {
            const answer = await fetched(...asked);
            if (asked.length === 1 && !window.held) await new Promise((resolve) => (window.held = resolve));
            return answer; }; window.polled = spray.verdicts.refresh(); })()"""
    )
    v.settled("window.held")
    choose(v, "valid")
    v.settled(f"{STATUS} === 'Saved in the store.'")
    v.state("(window.held(), window.polled.then(() => null))")
    assert v.state("spray.report.verdicts.length") == 1
