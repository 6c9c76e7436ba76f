"""The served report: lazy blocks, who may ask, and verdicts of several people at once."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from browser import Visit, chromium, in_browser, near
from store_tools import s3_server

import stores
import stores.synthetic
from reports.blocks import blocks
from reports.carriers import read_models
from reports.images import quantise
from reports.judging import Judged
from reports.model import ReportModel, store_identity
from reports.server import Source

SCRIPT = """
import sys
from reports.server import serve
serve(sys.argv[1], port=0, ready=lambda url: print(url, flush=True))
"""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("served") / "run.zarr", samples=300)


@contextmanager
def serving(store):
    """A server of its own for a store."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


@pytest.fixture(scope="module")
def url(run):
    with serving(run.path) as address:
        yield address


def ask(url, *, body=None, **headers):
    request = urllib.request.Request(
        url, data=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with OPENER.open(request, timeout=20) as answer:
            return answer.status, answer.read().decode("utf-8"), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8"), error.headers


def token_of(url):
    html = ask(url)[1]
    start = html.index('"token":"') + len('"token":"')
    return html[start : html.index('"', start)]


def verdict(run, **changes):
    finding = run.analysis().findings()[0]
    ids = [str(name) for name in run.samples.read("id", finding.rows)]
    record = {
        "subject": "finding",
        "analysis": run.analysis().id,
        "key": finding.name,
        "verdict": "clever_hans",
        "note": "a tag",
        "annotator": "A",
        "time": "2026-01-01T00:00:00Z",
        "members": sorted(ids),
        "digest": stores.members_digest(ids),
    }
    return {**record, **changes}


def post(run, url, token, **changes):
    body = json.dumps(verdict(run, **changes)).encode()
    return ask(url + "verdicts", body=body, X_Spray_Token=token, Content_Type="application/json")


def test_it_listens_to_this_machine_alone_and_forbids_framing_and_foreign_scripts(url):
    assert url.startswith("http://127.0.0.1:")
    status, _, headers = ask(url)
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_other_hosts_and_origins_are_refused(run, url):
    assert ask(url, Host="evil.example")[0] == 403
    assert ask(url + "verdicts", Origin="https://evil.example")[0] == 403
    before = len(run.verdicts())
    assert post(run, url, "guessed")[0] == 403
    assert post(run, url, "gu\xe9ssed")[0] == 403
    assert len(run.verdicts()) == before


@pytest.mark.parametrize(
    "path",
    [
        "data/chunk-nothing-0",
        "data/chunk-x",
        "data/x",
        "data/pictures-a-b-c",
        "data/..%2f..%2fzarr.json",
        "data/",
    ],
)
def test_blocks_that_do_not_exist_are_not_found(url, path):
    assert ask(url + path)[0] == 404


def test_blocks_out_of_an_analysis_are_not_found(run, url):
    analysis = run.analysis().id
    for name in (
        f"chunk-{analysis}",
        f"chunk-{analysis}-99",
        f"pictures-{analysis}-0-9999",
        f"pictures-{analysis}-0--1",
        f"pictures-{analysis}-0-{'.'.join(['0'] * 300)}",
        f"pictures-{analysis}-0-..",
        f"proof-{analysis}-0-99",
        f"proof-{analysis}-0--1",
    ):
        assert ask(f"{url}data/{name}")[0] == 404, name
    for name in (f"chunk-{analysis}-0", f"pictures-{analysis}-0-5.1.7", f"proof-{analysis}-0-0"):
        assert ask(f"{url}data/{name}")[0] == 200, name


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "guilty"},
        {"members": ["only/one.png"], "digest": ""},
        {"key": "c0.f99"},
        {"note": 3},
        {"annotator": ""},
        {"annotator": " \t"},
        {"annotator": "\u200b"},
        {"members": "text"},
        {"more": "fields"},
        {"time": "zzzz not a time"},
        {"time": "9031-01-01T00:00:00Z"},
        {"note": "x" * 5_000_000},
        {"subject": "cluster"},
        {"subject": "sample", "key": "no/such.png", "members": ["no/such.png"], "digest": ""},
        {"analysis": "0123456789ab", "members": ["no/such.png"], "digest": ""},
        {"analysis": "0123456789ab", "members": [], "digest": ""},
    ],
)
def test_what_is_no_verdict_is_refused_with_a_reason(run, url, changes):
    before = len(run.verdicts())
    status, body, _ = post(run, url, token_of(url), **changes)
    assert status == 400
    assert json.loads(body)["error"]
    assert len(run.verdicts()) == before


def test_a_body_that_is_nested_too_deeply_is_refused(url):
    status, body, _ = ask(url + "verdicts", body=b"[" * 200_000, X_Spray_Token=token_of(url))
    assert status == 400 and json.loads(body)["error"]


def test_a_verdict_of_an_analysis_that_is_gone_is_taken_and_only_once(run, url):
    before = len(run.verdicts())
    for _ in range(2):
        assert post(run, url, token_of(url), analysis="0123456789ab", key="c9.f9", note="earlier")[0] == 200
    assert [v.note for v in run.verdicts()[before:]] == ["earlier"]


def test_many_at_once_lose_nothing(run, url):
    token = token_of(url)
    before = len(run.verdicts())
    with ThreadPoolExecutor(8) as people:
        answers = list(
            people.map(lambda i: post(run, url, token, note=f"note {i}", annotator=str(i))[0], range(24))
        )
    assert answers == [200] * 24
    assert {v.note for v in run.verdicts()[before:]} == {f"note {i}" for i in range(24)}


def test_what_a_page_has_is_not_sent_again(run, url):
    status, body, headers = ask(url + "verdicts")
    state = headers["X-Spray-State"]
    assert status == 200 and len(json.loads(body)) == len(run.verdicts())
    status, body, headers = ask(f"{url}verdicts?known={state}")
    assert (status, body, headers["X-Spray-State"]) == (204, "", state)
    run.add_verdict(stores.Verdict(**verdict(run, note="by another program")))
    status, body, headers = ask(f"{url}verdicts?known={state}")
    assert status == 200 and headers["X-Spray-State"] != state
    assert [it["note"] for it in json.loads(body)] == ["by another program"], "only what is new"
    assert int(headers["X-Spray-From"]) == len(run.verdicts()) - 1
    for strange in ("", "x", "0-0000000000000000", f"{'9' * 5000}-{'0' * 16}", state.replace("-", "-0")[:-1]):
        status, body, headers = ask(f"{url}verdicts?known={strange}")
        assert (status, len(json.loads(body)), headers["X-Spray-From"]) == (200, len(run.verdicts()), "0")


def test_a_server_reads_each_verdict_once(tmp_path, monkeypatch):
    import reports.judging

    run = stores.synthetic.make(tmp_path / "run.zarr", samples=30)
    read, plain = [], reports.judging.read_verdict
    monkeypatch.setattr(reports.judging, "read_verdict", lambda *of: read.append(of[1]) or plain(*of))
    judged = Judged(run)
    assert judged.told()[1:] == (0, [])
    for note in ("one", "two", "two"):
        judged.add(stores.Verdict(**verdict(run, note=note)))
        judged.told()
    state, _, texts = judged.told()
    assert [json.loads(text)["note"] for text in texts] == ["one", "two"]
    (tmp_path / "run.zarr" / "verdicts" / "00000001.json").unlink()  # as a repair does
    after, count, texts = judged.told(state)
    assert (after != state, count, len(texts)) == (True, 0, 1), "the page gets what is left, as a whole"
    assert len(read) == len(set(read)) == 2


@in_browser
def test_two_browsers_see_each_others_verdicts_and_full_resolution(run, url):
    finding = run.analysis().findings()[0]
    with chromium() as browser:
        one, other = Visit(browser, url), Visit(browser, url)
        for visit in (one, other):
            visit.settled("spray.pictures(spray.state.chunk, spray.state.selection[0]) !== null")
            assert near(visit.pixels("#gallery canvas"), (255, 0, 0), 70) > 20
        for visit, word, note in ((one, "valid", "from one"), (other, "unsure", "from the other")):
            visit.page.fill("#annotator", "Ada")  # one person at two machines
            visit.page.fill("#verdict-note", note)
            visit.page.locator("#verdict-buttons").get_by_role("radio", name=word).click()
        for visit in (one, other):
            visit.settled("document.getElementById('verdict-status').textContent === 'Saved in the store.'")
        one.state("spray.verdicts.refresh().then(() => true)")
        one.settled("document.getElementById('verdict-note').value === 'from the other'")
        one.page.locator("#verdict-buttons").get_by_role("radio", name="Clever Hans").click()
        one.settled("document.getElementById('verdict-status').textContent === 'Saved in the store.'")
        one.page.click("#verdict-undo")
        one.settled("document.getElementById('verdict-status').textContent.startsWith('Taken back')")
        given = verdict(run, note="from a file")
        file = {"format": "spray-verdicts", "version": 1, "store": store_identity(run), "verdicts": [given]}
        content = json.dumps(file).encode()
        other.page.set_input_files(
            "#verdict-file", {"name": "v.json", "mimeType": "application/json", "buffer": content}
        )
        other.settled("document.getElementById('verdict-status').textContent === '1 verdict imported.'")
        assert run.verdicts()[-1].note == "from a file"
        one.close()
        other.close()
    notes = [v.note for v in run.verdicts() if v.key == finding.name]
    assert notes[-5:-3] == ["from one", "from the other"]
    words = [v.verdict for v in run.verdicts() if v.key == finding.name]
    assert words[-4:-1] == ["unsure", "clever_hans", "unsure"], "taking back gives the verdict before anew"


def test_a_served_class_has_the_mean_maps_of_a_written_one_and_pictures_at_full_resolution(run, url):
    model = ReportModel.from_run(run)
    written = {name: json.loads(text) for name, text in blocks(run, model, set())}
    for group in model.groups:
        name = f"chunk-{model.analysis}-{group.index}"
        chunk = json.loads(ask(f"{url}data/{name}")[1])
        assert chunk["means"] == written[name]["means"]
        assert chunk["ids"] == written[name]["ids"] and chunk["members"] == written[name]["members"]
        page = json.loads(ask(f"{url}data/{chunk['pages']['picked']}-0.9.4")[1])
        assert page["maps"]["shape"][0] == 3
        full = run.table("relevance/epsilon_plus_flat").columns["input.full"].shape
        assert page["maps"]["shape"][1:] == list(full[1:])


@in_browser
def test_a_remote_store_is_served_read_as_it_is_looked_at_and_judged(monkeypatch):
    with s3_server(monkeypatch) as bucket:
        run = stores.synthetic.make(f"{bucket}/run.zarr", samples=90)
        finding = run.analysis().findings()[0]
        with serving(run.path) as address, chromium() as browser:
            visit = Visit(browser, address)
            visit.settled("spray.pictures(spray.state.chunk, spray.state.selection[0]) !== null")
            assert near(visit.pixels("#gallery canvas"), (255, 0, 0), 70) > 20
            read = [url for url in visit.requests if "/data/" in url]
            assert len([url for url in read if "/data/chunk-" in url]) == 1, "one class is looked at"
            visit.page.click("#case-more")
            visit.settled("document.querySelectorAll('.pair-pictures').length > 0")
            visit.page.click("#cluster-back")
            visit.settled("spray.state.page === 'class'")
            visit.page.fill("#annotator", "Ada")
            visit.page.fill("#verdict-note", "from afar")
            visit.page.locator("#verdict-buttons").get_by_role("radio", name="Clever Hans").click()
            visit.settled("document.getElementById('verdict-status').textContent === 'Saved in the store.'")
            visit.close()
        (given,) = stores.open(run.path).verdicts()
    assert (given.key, given.verdict, given.note) == (finding.name, "clever_hans", "from afar")


def test_positions_asked_for_come_in_their_order(run, url):
    analysis = run.analysis().id
    page = json.loads(ask(f"{url}data/pictures-{analysis}-0-7.2.5")[1])
    single = [json.loads(ask(f"{url}data/pictures-{analysis}-0-{i}")[1]) for i in (7, 2, 5)]
    scales = [np.frombuffer(base64.b64decode(one["scale"]["data"]), np.float32) for one in single]
    np.testing.assert_array_equal(
        np.frombuffer(base64.b64decode(page["scale"]["data"]), np.float32), np.concatenate(scales)
    )


def test_other_relevance_of_a_served_store_is_read_when_it_is_chosen(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    first = run.table(stores.synthetic.RELEVANCE)
    columns = stores.relevance_columns(first.columns["input.place"].shape)
    made = stores.Provenance(({"name": "turned"},))
    table = run.create_table("relevance/turned", columns, rows_per_shard=60, provenance=made)
    part = {column.name: first.read(column.name) for column in columns}
    table.write(0, {**part, "input.place": -part["input.place"]})
    source = Source(run, read_models(run))
    analysis = run.analysis().id
    (other,) = source.block(f"chunk-{analysis}-0")["others"]
    assert other["name"] == "turned" and other["class_scale"] > 0
    block = source.block(f"{other['pages']['picked']}-3.1")
    codes = np.frombuffer(gzip.decompress(base64.b64decode(block["maps"]["data"])), np.int8)
    rows = run.analysis().read(0).rows[[3, 1]]
    expected, _ = quantise(part["input.place"][rows] * -1.0, 4)
    np.testing.assert_array_equal(codes.reshape(expected.shape), expected)
    assert block["atlas"] is None
    with pytest.raises(KeyError):
        source.block(f"maps1-{analysis}-0-1")
