"""Verdicts as files: read, merged, refused, written into the store, carried over to another analysis."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime

import pytest

import reports
import stores
import stores.synthetic
from reports.model import ReportModel, store_identity
from reports.verdicts import (
    VerdictFile,
    VerdictFileError,
    add_to_store,
    conflicts,
    merge,
    overlaps,
    read_file,
    write_file,
)
from stores.judgements import judgements
from stores.schema import element


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stores.synthetic.make(tmp_path_factory.mktemp("verdicts") / "run.zarr", samples=120)


def verdict(run, number=0, *, drop=0, **changes):
    finding = run.analysis().findings()[number]
    ids = [str(name) for name in run.samples.read("id", finding.rows)][drop:]
    fields = {
        "subject": "finding",
        "analysis": run.analysis().id,
        "key": finding.name,
        "verdict": "valid",
        "note": "",
        "annotator": "A",
        "time": "2026-01-01T00:00:00Z",
        "members": tuple(sorted(ids)),
    }
    return stores.Verdict(**{**fields, **changes})


def file_of(run, *verdicts):
    return VerdictFile(store_identity(run), "title", verdicts)


def test_a_file_comes_back_as_it_was_written(tmp_path, run):
    file = file_of(run, verdict(run, note="ümläut 🐎 </script>"), verdict(run, 1))
    assert read_file(write_file(tmp_path / "v.json", file)) == file


@pytest.mark.parametrize(
    "forged",
    [
        {"subject": "sample", "key": "a", "members": ("b",)},
        {"members": ()},
        {"key": "k" * 20_000},
        {"analysis": "a" * 300},
    ],
)
def test_a_verdict_that_is_not_on_what_it_names_is_not_taken(tmp_path, run, forged):
    file = file_of(run, verdict(run, **forged))
    with pytest.raises(VerdictFileError, match="damaged"):
        read_file(write_file(tmp_path / "v.json", file))
    before = run.verdicts()
    with pytest.raises(stores.StoreError):
        add_to_store(run, file)
    assert run.verdicts() == before


def test_a_store_takes_no_verdict_on_samples_that_it_has_not(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    for changes in ({"members": ("no such id",)}, {"subject": "sample", "key": "", "members": ("",)}):
        with pytest.raises(VerdictFileError, match="no sample of"):
            add_to_store(run, file_of(run, verdict(run), verdict(run, **changes)))
    assert run.verdicts() == []


def test_words_on_two_findings_with_the_same_members_are_no_disagreement(run):
    one = verdict(run, key="c1.f2", verdict="clever_hans")
    other = verdict(run, key="c1.f3", annotator="B")
    assert conflicts([one, other]) == []
    again = verdict(run, key="c1.f3", annotator="C", verdict="unsure")
    (found,) = conflicts([one, other, again])
    assert [(it.key, it.annotator) for it in found.verdicts] == [("c1.f3", "B"), ("c1.f3", "C")]
    elsewhere = dataclasses.replace(other, analysis="another", key="c1.f7")
    assert len(conflicts([one, elsewhere])) == 1, "in another analysis they had another name"


def test_a_file_shows_its_verdicts_and_disagreements_in_a_notebook_as_text(run):
    hostile = "<script>alert(1)</script>"
    one = verdict(run, note="the tag", annotator="Ada")
    file = file_of(run, one, verdict(run, annotator="Bob", verdict="clever_hans", note=hostile))
    told = file._repr_html_()
    assert "2 verdicts" in told and "the tag" in told and "⚠ Clever Hans" in told and file.store[:12] in told
    assert told.count("<tr>") == 3 and f"finding {one.key}: Ada: valid (the tag); Bob: clever_hans" in told
    named = dataclasses.replace(one, annotator=hostile, key=hostile)
    for shown in (told, VerdictFile(hostile, hostile, (named,))._repr_html_()):
        assert "<script" not in shown and "&lt;script&gt;" in shown
    assert "disagree" not in file_of(run, one)._repr_html_()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda content: "no json {", "cannot be read"),
        (lambda content: json.dumps([1]), "holds no verdicts"),
        (lambda content: json.dumps({**content, "format": "other"}), "holds no verdicts"),
        (lambda content: json.dumps({**content, "version": 2}), "version 2"),
        (lambda content: json.dumps({**content, "verdicts": [{"key": "x"}]}), "damaged"),
        (
            lambda content: json.dumps(
                {**content, "verdicts": [{**content["verdicts"][0], "members": ["another.png"]}]}
            ),
            "damaged.*digest",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, run, spoil, told):
    content = json.loads(json.dumps(file_of(run, verdict(run)).to_json()))
    (tmp_path / "v.json").write_text(spoil(content), encoding="utf-8")
    with pytest.raises(VerdictFileError, match=told):
        read_file(tmp_path / "v.json")


def test_merging_keeps_each_verdict_once_in_the_order_of_time(run):
    early, late = verdict(run), verdict(run, time="2026-01-02T00:00:00Z", verdict="unsure")
    merged, disagreement = merge([file_of(run, late), file_of(run, early, late)])
    assert merged.verdicts == (early, late)
    assert disagreement == [], "one person may change their mind"


def test_people_who_disagree_are_shown_with_their_last_word(run):
    said = [
        verdict(run, annotator="A", verdict="clever_hans", time="2026-01-01T00:00:00Z"),
        verdict(run, annotator="B", verdict="unsure", time="2026-01-02T00:00:00Z"),
        verdict(run, annotator="B", verdict="valid", time="2026-01-03T00:00:00Z", note="the task allows it"),
        verdict(run, 1, annotator="B", verdict="valid", time="2026-01-04T00:00:00Z"),
    ]
    (conflict,) = conflicts(said)
    assert {v.annotator: v.verdict for v in conflict.verdicts} == {"A": "clever_hans", "B": "valid"}
    assert "A: clever_hans" in str(conflict) and "the task allows it" in str(conflict)
    assert conflicts([*said, verdict(run, annotator="A", verdict="valid", time="2026-01-05T00:00:00Z")]) == []


def test_words_without_a_name_are_not_those_of_one_person(run):
    one = VerdictFile("s", "", (verdict(run, annotator="", verdict="clever_hans"),))
    for word in ("valid", "withdrawn"):
        later = verdict(run, annotator=" ", verdict=word, time="2026-01-02T00:00:00Z")
        _, found = merge([one, VerdictFile("s", "", (later,))])
        said = [[(v.author == v, v.verdict) for v in each.verdicts] for each in found]
        assert said == ([[(True, "clever_hans"), (True, "valid")]] if word == "valid" else [])
    assert "unnamed: clever_hans" in str(conflicts([*one.verdicts, verdict(run, verdict="valid")])[0])
    spaced = verdict(run, annotator="Ada ", verdict="valid", time="2026-01-02T00:00:00Z")
    assert conflicts([verdict(run, annotator="Ada", verdict="unsure"), spaced]) == []


def test_verdicts_about_different_stores_are_not_merged(run):
    foreign = dataclasses.replace(file_of(run, verdict(run)), store="0" * 64)
    with pytest.raises(VerdictFileError, match="2 stores"):
        merge([file_of(run), foreign])
    with pytest.raises(VerdictFileError, match="another store"):
        add_to_store(run, foreign)
    assert run.verdicts() == []


def test_a_store_takes_each_verdict_once(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    file = file_of(run, verdict(run), verdict(run, 1))
    assert add_to_store(run, file) == 2
    assert add_to_store(run, file) == 0
    assert run.verdicts() == list(file.verdicts)


def test_the_identity_of_a_store_outlives_analyses_and_verdicts(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    before = store_identity(run)
    add_to_store(run, file_of(run, verdict(run)))
    run.write_analysis(stores.Provenance(({"name": "again"},)), [], facts=run.analysis().facts)
    assert store_identity(stores.open(run.path)) == before
    other = stores.synthetic.make(tmp_path / "other.zarr", samples=60, seed=1)
    assert store_identity(other) != before


def test_overlap_with_members_of_another_analysis_is_jaccard(run):
    model = ReportModel.from_run(run)
    same, near = verdict(run), verdict(run, drop=1)
    foreign = verdict(run, members=("nowhere.png",))
    sample = verdict(run, subject="sample", key="x", members=("x",))
    found = overlaps(model, [same, near, foreign, sample])
    n = len(same.members)
    assert found == {("finding", near.digest): (same.key, (n - 1) / n)}


@pytest.mark.parametrize(
    "changes",
    [
        {"time": 5},
        {"note": {"x": 1}},
        {"note": None},
        {"members": "abc", "digest": ""},
        {"members": [1, 2], "digest": ""},
        {"members": 7, "digest": ""},
        {"subject": "nonsense"},
        {"time": "zzzz not a time"},
        {"time": "2026-01-01"},
        {"time": "2026-13-01T00:00:00Z"},
        {"time": "9031-01-01T00:00:00Z"},
        {"note": "x" * 10_001},
        {"annotator": "x" * 201},
    ],
)
def test_a_hostile_field_is_refused_and_nothing_is_taken(tmp_path, run, changes):
    content = json.loads(json.dumps(file_of(run, verdict(run)).to_json()))
    content["verdicts"][0] |= changes
    (tmp_path / "v.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(VerdictFileError, match="damaged"):
        read_file(tmp_path / "v.json")


def test_a_store_refuses_what_it_could_not_order_and_reads_what_it_has(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    run.add_verdict(verdict(run))
    with pytest.raises(stores.StoreError, match="a moment that has come"):
        add_to_store(run, file_of(run, verdict(run, 1), verdict(run, time="9031-01-01T00:00:00Z")))
    assert len(run.verdicts()) == 1, "all or nothing"
    (path,) = (tmp_path / "run.zarr").glob("verdicts/*.json")
    old = dataclasses.asdict(verdict(run))
    old |= {"time": 5, "note": {"x": 1}, "members": [1, 2], "digest": "0"}
    path.write_text(json.dumps(element("verdict", old)))
    (read,) = stores.open(run.path).verdicts()
    assert (read.time, read.note, read.members) == ("5", '{"x": 1}', ("1", "2"))
    later = verdict(run, time="2020-01-01T00:00:00Z", members=read.members, verdict="unsure")
    assert conflicts([later, read]) == [], "one person: what tells no time is the earlier"
    reports.build(run.path, tmp_path / "report.html")


def test_times_are_compared_as_moments(run):
    early = verdict(run, time="2026-01-01T10:00:00+02:00", verdict="clever_hans")
    late = verdict(run, time="2026-01-01T09:00:00Z")
    assert merge([file_of(run, late, early)])[0].verdicts == (early, late)


def test_the_order_of_words_does_not_depend_on_the_readers_clock(tmp_path, monkeypatch):
    """Read on a machine that is ten years behind, yesterday's word is still the last."""
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    add_to_store(
        run, file_of(run, verdict(run), verdict(run, time="2026-01-02T00:00:00Z", verdict="clever_hans"))
    )
    monkeypatch.setattr("stores.verdicts.datetime", Behind)
    (said,) = [judgement.word for judgement in judgements(run, run.analysis()) if judgement.verdicts]
    assert said == "clever_hans"
    with pytest.raises(stores.StoreError, match="a moment that has come"):
        run.add_verdict(verdict(run, time="2026-01-03T00:00:00Z"))


class Behind(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2016, 1, 1, tzinfo=tz)


def test_a_word_taken_back_is_none(tmp_path):
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=60)
    said = verdict(run, verdict="clever_hans")
    other = verdict(run, annotator="B", time="2026-01-01T00:00:01Z")
    back = verdict(run, verdict="withdrawn", time="2026-01-01T00:00:02Z")
    assert len(conflicts([said, other])) == 1 and conflicts([said, other, back]) == []
    add_to_store(run, file_of(run, said, back))
    assert all(not judgement.verdicts for judgement in judgements(run, run.analysis()))


def test_names_that_are_no_text_are_written_and_read(tmp_path, run):
    file = file_of(run, verdict(run, members=("\udcff.png",)))
    assert read_file(write_file(tmp_path / "v.json", file)) == file


def test_a_verdict_on_a_finding_is_none_on_a_cluster_of_the_same_members(run):
    model = ReportModel.from_run(run)
    group = model.groups[0]
    findings = {subject.digest for subject in group.findings}
    cluster = next(s for s in group.subjects if s.kind == "cluster" and s.digest not in findings)
    ids = tuple(group.samples.ids[i] for i in cluster.members)
    on_finding = verdict(run, key="c9.f9", members=ids)
    on_cluster = verdict(run, subject="cluster", key="c9.kmeans.9", members=ids)
    found = overlaps(model, [on_finding, on_cluster])
    assert list(found) == [("finding", cluster.digest)]
    assert found["finding", cluster.digest][0] in {subject.key for subject in group.findings}
