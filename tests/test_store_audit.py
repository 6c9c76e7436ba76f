"""Whatever is done to the files of a store is found, named, and repaired by redoing just that."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_tools import be_reborn, contents, fill, new_run, new_table, values

import stores
from stores.owners import Owner
from stores.provenance import canonical_json
from stores.schema import crc32c

SAMPLES = 30
LAST_VERDICT = "verdicts/00000002.json"
COPY, ASIDE = "ledger/run.json", "ledger/damaged/run.json"
EXEMPT = {"relevance/zarr.json", "analyses/zarr.json"}
"""Empty Zarr groups, of which no byte is trusted."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "run.zarr"
    run = stores.synthetic.make(path, samples=SAMPLES, size=16)
    for number in range(2):
        run.add_verdict(
            stores.Verdict(
                "sample", "", str(number), "valid", "", "me", "2026-01-01T00:00:00Z", (str(number),)
            )
        )
    return path


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def redo(path: Path) -> None:
    """Run the stages again: each writes what is not committed."""
    stores.synthetic.make(path, samples=SAMPLES, size=16)


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def zero_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[: min(len(data), 4096)] = bytes(min(len(data), 4096))
    path.write_bytes(data)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES = [delete, empty, truncate, lengthen, zero_a_page, flip_a_bit]
ALL_DAMAGES = [
    damage if damage in (delete, flip_a_bit) else pytest.param(damage, marks=pytest.mark.slow)
    for damage in DAMAGES
]
"""The slow ones are told by length, or by the same checksum."""


def test_a_sound_store_has_no_problems(path: Path) -> None:
    before = contents(path)
    assert stores.check(path) == []
    assert stores.check(path, repair=True) == []
    assert contents(path) == before


@pytest.mark.parametrize("damage", ALL_DAMAGES)
def test_every_damaged_file_is_found(path: Path, damage: Callable[[Path], None]) -> None:
    for key, sound in contents(path).items():
        if key in EXEMPT or (damage is delete and key.startswith("ledger/")):
            continue  # a unit without its commit is one that is not written yet
        damage(path / key)
        if (path / key).exists() and (path / key).read_bytes() == sound:
            continue  # zeroing what is zero
        problems = stores.check(path)
        assert problems and not any(problem.repaired for problem in problems), f"{key}: not noticed"
        (path / key).write_bytes(sound)


ONE_OF_EACH = [
    "samples/zarr.json",
    "samples/id/zarr.json",
    "samples/thumbnail/c/0/0/0/0",
    "relevance/epsilon_plus_flat/input.full=scale/c/0",
    "ledger/commits/relevance/epsilon_plus_flat/0.json",
    "analyses/{analysis}/zarr.json",
    "analyses/{analysis}/c1/zarr.json",
    "analyses/{analysis}/c1/vectors/c/0/0",
    "analyses/{analysis}/findings/1/region/c/0",
    "ledger/commits/analyses/{analysis}/c2.json",
]


@pytest.mark.parametrize("damage", [delete, flip_a_bit])
def test_all_that_was_damaged_is_repaired_and_redone(path: Path, damage: Callable[[Path], None]) -> None:
    expected = contents(path)
    keys = [key.format(analysis=stores.open(path).analysis().id) for key in ONE_OF_EACH]
    for key in keys:
        damage(path / key)
    problems = stores.check(path)
    assert len(problems) >= 5
    repaired = stores.check(path, repair=True)
    assert all(problem.repaired or problem.redo or problem.kind == "incomplete" for problem in repaired)
    assert {problem.unit for problem in repaired} == {problem.unit for problem in problems}
    redo(path)
    assert contents(path) == expected


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_values_are_never_read(path: Path, damage: Callable[[Path], None]) -> None:
    truth = {
        (name, column): stores.open(path).table(name).read(column)
        for name in stores.open(path).tables()
        for column in stores.open(path).table(name).columns
    }
    sound = contents(path)
    for key, data in sound.items():
        parts = key.split("/c/")
        if len(parts) != 2:
            continue
        damage(path / key)
        for (name, column), expected in truth.items():
            if not key.startswith(f"{name}/{column}"):
                continue
            try:
                read = stores.open(path).table(name).read(column)
            except stores.Damaged:
                continue
            assert np.array_equal(read, expected, equal_nan=expected.dtype.kind == "f"), (
                f"{key} gave wrong {column}"
            )
        (path / key).write_bytes(data)


def test_a_check_tells_how_far_it_has_come(path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    stores.check(path, report=lambda *told: seen.append(told))
    units = sum(key.startswith("ledger/commits/") and "verdicts" not in key for key in contents(path))
    assert seen == [(done, units, "check") for done in range(1, units + 1)]


def test_problems_name_shard_rows_and_file(path: Path) -> None:
    (path / "relevance/epsilon_plus_flat/input.place/c/0/0/0").write_bytes(b"short")
    [problem] = stores.check(path)
    assert (problem.unit, problem.kind, problem.rows) == (
        "relevance/epsilon_plus_flat/0",
        "bytes",
        (0, SAMPLES),
    )
    assert "input.place/c/0/0/0 has 5 bytes where" in problem.detail
    assert str(problem).startswith("relevance/epsilon_plus_flat/0, rows 0 to 29: ")
    table = stores.open(path).table("relevance/epsilon_plus_flat")
    with pytest.raises(stores.Damaged, match="check --repair"):
        table.read("input.place")
    assert len(table.read("start")) == SAMPLES, "the other columns are sound"


def test_repair_takes_back_only_what_is_damaged(path: Path) -> None:
    before = contents(path)
    (path / "samples/logits/c/0/0").write_bytes(b"")
    stores.check(path, repair=True)
    gone = {key for key in before if key not in contents(path)}
    assert gone == {"ledger/commits/samples/0.json"}
    run = stores.open(path)
    assert run.samples.missing() == [0] and run.table("relevance/epsilon_plus_flat").complete


def test_two_sound_files_swapped_are_found(path: Path) -> None:
    one, other = path / "relevance/epsilon_plus_flat/start/c/0", path / "relevance/epsilon_plus_flat/sum/c/0"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert [problem.unit for problem in stores.check(path)] == ["relevance/epsilon_plus_flat/0"]


def test_a_commit_of_another_shard_is_found(path: Path) -> None:
    commits = path / "ledger/commits"
    shutil.copy(commits / "relevance/epsilon_plus_flat/0.json", commits / "samples/0.json")
    problems = stores.check(path)
    assert [(problem.unit, problem.kind) for problem in problems] == [("samples/0", "commit")]
    with pytest.raises(stores.Damaged):
        stores.open(path).samples.read("id")


def test_a_damaged_verdict_is_set_aside_and_never_lost(path: Path) -> None:
    first = path / "verdicts/00000001.json"
    broken = first.read_bytes()[:-5]
    first.write_bytes(broken)
    with pytest.raises(stores.Damaged, match="00000001"):
        stores.open(path).verdicts()
    [problem] = stores.check(path, repair=True)
    assert (problem.kind, problem.repaired) == ("verdict", True)
    assert (path / "verdicts/damaged/00000001.json").read_bytes() == broken
    assert [verdict.key for verdict in stores.open(path).verdicts()] == ["1"]
    assert stores.check(path) == []


def test_what_dead_writers_left_is_found_and_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_reborn(monkeypatch)
    run = stores.open(path, "r+")
    claim = run.samples.claim(0)
    claim.__enter__()
    assert stores.check(path) == [], "its writer is alive"
    (path / "ledger/tmp").mkdir(exist_ok=True)
    (path / "ledger/tmp" / f"{Owner.me().mark}-0").write_bytes(b"half")
    be_reborn(monkeypatch)
    assert {(problem.kind, problem.unit.rpartition("/")[0]) for problem in stores.check(path)} == {
        ("lease", "samples"),
        ("litter", "ledger/tmp"),
    }
    assert all(problem.repaired for problem in stores.check(path, repair=True))
    assert stores.check(path) == []


def test_altered_metadata_is_told_on_reading(path: Path) -> None:
    document = path / "samples/zarr.json"
    document.write_text(document.read_text().replace("prediction", "predictiom"))
    with pytest.raises(stores.Damaged, match="not what was written"):
        stores.open(path).samples.read("label")


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("samples/label", '"little"', '"big"'),
        ("samples/label", '"int64"', '"float64"'),
        ("samples/thumbnail", '"level": -5', '"level": 2'),
        ("relevance/epsilon_plus_flat/input.full", '"float16"', '"int16"'),
        ("relevance/epsilon_plus_flat/input.full=scale", '"float32"', '"int32"'),
        ("relevance/epsilon_plus_flat/sum", '"float64"', '"int64"'),
        ("samples/id", None, ""),
    ],
)
def test_an_array_is_not_read_by_an_altered_document(
    path: Path, key: str, before: str | None, after: str
) -> None:
    document = path / key / "zarr.json"
    text = document.read_text()
    assert before is None or before in text
    table, column = key.removesuffix("=scale").rsplit("/", 1)
    document.unlink() if before is None else document.write_text(text.replace(before, after))
    with pytest.raises(stores.Damaged, match=f"{key}/zarr.json is missing or altered.*check --repair"):
        stores.open(path).table(table).read(column)
    assert [problem.kind for problem in stores.check(path, repair=True)] == ["metadata"]
    assert stores.check(path) == [] and len(stores.open(path).table(table).read(column))


RELEVANCE = "relevance/epsilon_plus_flat"


def with_version_2(path: Path) -> None:
    text = path.read_text()
    assert text.count('"version":1') + text.count('"version": 1') == 1
    path.write_text(text.replace('"version":1', '"version":2').replace('"version": 1', '"version": 2'))


@pytest.mark.parametrize(
    "newer",
    [
        f"ledger/commits/{RELEVANCE}/0.json",
        f"{RELEVANCE}/zarr.json",
        "analyses/{analysis}/zarr.json",
        "analyses/{analysis}/c1/zarr.json",
        "analyses/{analysis}/findings/1/zarr.json",
        LAST_VERDICT,
    ],
)
def test_a_store_with_anything_newer_in_it_is_left_untouched(path: Path, newer: str) -> None:
    (path / "samples/label/zarr.json").unlink()
    truncate(path / "samples/label/c/0")
    (path / "ledger/tmp").mkdir(exist_ok=True)
    (path / "ledger/tmp/dead-1-1-0").write_bytes(b"half")
    with_version_2(path / newer.format(analysis=stores.open(path).analysis().id))
    before = contents(path)
    with pytest.raises(stores.UnknownVersion, match="left untouched"):
        stores.check(path, repair=True)
    if not newer.endswith(("c1/zarr.json", "findings/1/zarr.json")):
        with pytest.raises(stores.UnknownVersion, match="left untouched"):
            stores.open(path, "r+")
    assert contents(path) == before


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change an element and give it the CRC that it then has."""
    document = json.loads(path.read_bytes())
    record = document.get("attributes", document)["spray"]
    change(record)
    del record["crc32c"]
    record["crc32c"] = crc32c(canonical_json(record).encode("utf-8", "surrogatepass"))
    path.write_text(json.dumps(document))


def test_a_newer_commit_between_others_is_refused_where_its_rows_are_used(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path))
    fill(table)
    middle = tmp_path / f"ledger/commits/{table.key}/1.json"
    rewritten(middle, lambda record: record.update(version=2))
    before = contents(tmp_path)
    told = r"relevance/test/1\.json: the commit has format version 2; this reader knows 1.*left untouched"
    fresh = stores.open(tmp_path).table(table.name)
    assert fresh.read("score", [0, 9]).tolist() == [0, 9 / 7]
    for use in (
        lambda: fresh.read("score", [4]),
        lambda: list(fresh.iterate("score")),
        lambda: fresh.ok,
        lambda: fresh.failures,
        lambda: fresh.facts(1),
        lambda: stores.check(tmp_path),
        lambda: stores.check(tmp_path, repair=True),
        lambda: new_table(stores.open(tmp_path, "r+")).write(1, values(range(4, 8))),
        lambda: new_table(stores.open(tmp_path, "r+")).take_back(1),
    ):
        with pytest.raises(stores.UnknownVersion, match=told):
            use()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("member", "value"), [("encoding", "int8"), ("dtype", "bfloat16"), ("scale_of", "label")]
)
def test_a_column_of_a_later_release_is_refused(tmp_path: Path, member: str, value: str) -> None:
    table = new_table(new_run(tmp_path))
    fill(table)
    rewritten(tmp_path / table.key / "zarr.json", lambda record: record["columns"][1].update({member: value}))
    before = contents(tmp_path)
    for use in (
        lambda: stores.open(tmp_path).table(table.name),
        lambda: stores.check(tmp_path, repair=True),
    ):
        with pytest.raises(stores.UnknownVersion, match=f"{member}.*upgrade spray-audit"):
            use()
    assert contents(tmp_path) == before


def test_what_is_not_written_is_named(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path / "run.zarr"))
    for shard in (0, 1):
        table.write(shard, values(table.shards[shard]))
    (tmp_path / "run.zarr/ledger/commits/relevance/test/0.json").unlink()
    lost, absent = stores.check(tmp_path / "run.zarr", repair=True)
    assert str(lost) == (
        "relevance/test/0, rows 0 to 3: is not written: its files are there, but no commit record (a writer stopped "
        "before it, or it was lost)"
    )
    assert str(absent) == "relevance/test, rows 8 to 9: 1 of 3 shards are not written yet (2)"
    assert {problem.kind for problem in (lost, absent)} == {"incomplete"}
    shutil.rmtree(tmp_path / "run.zarr/ledger/commits")
    assert [problem.rows for problem in stores.check(tmp_path / "run.zarr")] == [(0, 4), (4, 8), (8, 10)]


def test_lost_commits_of_groups_and_findings_are_named(path: Path) -> None:
    id = stores.open(path).analysis().id
    for unit in ("c1", "findings/1"):
        (path / f"ledger/commits/analyses/{id}/{unit}.json").unlink()
    found = [(problem.unit, problem.kind) for problem in stores.check(path)]
    assert found == [(f"analyses/{id}/{unit}", "incomplete") for unit in ("c1", "findings/1")]


def test_what_was_taken_back_is_told_once(path: Path) -> None:
    truncate(path / f"{RELEVANCE}/start/c/0")
    assert [problem.kind for problem in stores.check(path, repair=True)] == ["bytes"]
    assert [problem.kind for problem in stores.check(path)] == ["incomplete"]


@pytest.mark.parametrize("lost", [delete, empty, truncate])
def test_a_lost_root_is_written_anew_by_the_command_that_made_it(
    path: Path, lost: Callable[[Path], None]
) -> None:
    """Also in a store of an early release, which keeps no copy of it."""
    (path / COPY).unlink()
    sound = contents(path)
    lost(path / "zarr.json")
    with pytest.raises((stores.NotAStore, stores.Damaged), match=r"`spray check .*run\.zarr --repair` says"):
        stores.open(path)
    truncate(path / RELEVANCE / "sum/c/0")
    left = {} if lost is not truncate else {ASIDE: (path / "zarr.json").read_bytes()}
    for repair in (False, True):
        root, shard = stores.check(path, repair=repair)
        assert (root.unit, root.redo, root.repaired) == ("zarr.json", True, repair)
        assert shard.unit == f"{RELEVANCE}/0" and shard.repaired == repair
    assert not (path / "zarr.json").exists()
    redo(path)
    assert contents(path) == sound | left | {COPY: sound["zarr.json"]}


def test_a_lost_root_is_not_replaced_by_another_run_s(path: Path) -> None:
    run = stores.open(path)
    (path / "zarr.json").unlink()
    before = contents(path)
    for change in ({"samples": 31}, {"classes": ["one"]}, {"provenance": {"model": "another"}}):
        right = {"classes": run.classes, "samples": run.n, "provenance": run.provenance}
        with pytest.raises(stores.NotAStore, match="a path that is free"):
            stores.create(path, **{**right, **change})
    assert contents(path) == before


@pytest.mark.parametrize("word", ['"spray"', '"type"', '"table"', '"analysis"'])
def test_a_flipped_bit_makes_no_table_or_analysis_vanish(path: Path, word: str) -> None:
    run = stores.open(path)
    analysis = f"analyses/{run.analysis().id}"
    for unit in ("samples", RELEVANCE, analysis):
        document = path / unit / "zarr.json"
        sound = document.read_bytes()
        if word.encode() not in sound:
            continue
        at = sound.index(word.encode()) + 2
        document.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(stores.Damaged, match=f"{unit}.*(does not say|that of no analysis)"):
            run.analysis() if unit == analysis else run.tables()
        assert [problem.unit for problem in stores.check(path) if problem.kind == "metadata"] == [unit]
        problems = stores.check(path, repair=True)
        assert not document.exists() and any(problem.redo for problem in problems)
        document.write_bytes(sound)
    assert stores.check(path) == []


def test_json_nested_without_end_is_damage_like_any_other(path: Path) -> None:
    id = stores.open(path).analysis().id
    for key in (
        "samples/zarr.json",
        "samples/label/zarr.json",
        LAST_VERDICT,
        "ledger/commits/samples/0.json",
    ):
        (path / key).write_bytes(b"[" * 100_000)
    (path / f"analyses/{id}/zarr.json").write_bytes(b'{"a":' * 100_000)
    assert len({problem.unit for problem in stores.check(path)}) >= 4
    with pytest.raises(stores.Damaged, match="nested too deeply"):
        stores.open(path).samples


STRANGE = [".DS_Store", "._0.json", "0 copy.json", "Thumbs.db", "0-x.json"]


@pytest.mark.parametrize("name", STRANGE)
def test_what_others_lay_in_a_store_disturbs_nothing(path: Path, name: str) -> None:
    folders = [folder for folder in path.rglob("*") if folder.is_dir()]
    for folder in [path, path / "ledger/leases", path / "ledger/tmp", *folders]:
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\0Bud1")
    before = contents(path)
    assert stores.check(path, repair=True) == []
    run = stores.open(path, "r+")
    assert all(run.table(table).complete for table in run.tables())
    assert run.analysis().findings() and len(run.verdicts()) == 2
    assert contents(path) == before


@pytest.mark.parametrize("kind", ["folder", "loop", "dangling link"])
def test_folders_and_links_in_the_place_of_files_are_named(path: Path, kind: str) -> None:
    wrong = ["samples/label/c/0", "samples/prediction/zarr.json", f"ledger/commits/{RELEVANCE}/0.json"]
    for key in wrong:
        (path / key).unlink()
        if kind == "folder":
            (path / key).mkdir()
        else:
            (path / key).symlink_to(path / key if kind == "loop" else path / "nowhere")
    with pytest.raises(
        stores.Damaged, match=r"folder where a file was|link to itself|link that leads nowhere"
    ):
        stores.open(path).table(RELEVANCE).read("sum", [0])
    for repair in (False, True):
        told = {problem.unit: problem for problem in stores.check(path, repair=repair)}
        assert {"samples/prediction", f"{RELEVANCE}/0", "samples/0"} <= told.keys()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(path: Path, kind: str) -> None:
    (path / "samples/label/c/0").unlink()
    if kind == "pipe":
        os.mkfifo(path / "samples/label/c/0")
    else:
        (path / "samples/label/c/0").symlink_to("/dev/zero")
    [problem] = stores.check(path)
    assert problem.unit == "samples/0" and "a device or a pipe where a file was expected" in problem.detail
    with pytest.raises(stores.Damaged, match="a device or a pipe"):
        stores.open(path).samples.read("label")


@pytest.mark.parametrize(
    "folder", ["ledger/tmp", "ledger/leases", "samples", "samples/label/c", "ledger/commits"]
)
def test_nothing_is_written_or_removed_beyond_a_link(path: Path, folder: str) -> None:
    """A store from a stranger may hold a link to any place of this machine."""
    outside = path.parent / "outside"
    (path / folder).rename(outside) if (path / folder).exists() else outside.mkdir()
    lease = f"unit-{'0' * 16}"
    for name in ("thesis.tex", f"{Owner.me().machine}-{2**22 + 1}-1-0", lease):
        (outside / name).write_bytes(b"precious")
    (path / folder).symlink_to(outside)
    before = contents(outside)
    with contextlib.suppress(stores.StoreError):
        stores.open(path, "r+")
    with contextlib.suppress(stores.StoreError):
        run = stores.open(path, "r+")
        run.samples.write(0, {name: run.samples.read(name, range(8)) for name in run.samples.columns})
    stores.check(path, repair=True)
    assert contents(outside) == before


def test_a_claim_of_a_dead_writer_hides_no_missing_shard(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path))
    with table.claim(2):
        lease = contents(tmp_path)[next(key for key in contents(tmp_path) if "leases/" in key)]
    table.write(0, values(table.shards[0]))
    dead = json.loads(lease) | {"pid": 2**22 + 1}
    (tmp_path / f"ledger/leases/relevance=2ftest=2f2-{'0' * 16}").write_text(json.dumps(dead))
    told = [problem.kind for problem in stores.check(tmp_path, repair=True)]
    assert told == ["lease", "incomplete"]


def test_documents_and_commits_of_another_store_are_told(tmp_path: Path) -> None:
    def make(name: str, **options: Any) -> Path:
        stores.synthetic.make(tmp_path / name, **({"samples": 60, "seed": 0} | options))
        return tmp_path / name

    mine, other, longer = make("mine"), make("other", seed=1), make("longer", samples=90)
    named = make("named", names=["a", "b", "c"])
    analysis = stores.open(mine).analysis().id
    theirs = stores.open(other).analysis().id
    for key, source, words in (
        ("samples/zarr.json", other, "that of another run"),
        ("zarr.json", named, "zarr.json is that of another run than its tables"),
        ("zarr.json", longer, "zarr.json is that of another run than its tables"),
        (f"analyses/{analysis}/zarr.json", other, f"that of analysis {theirs}"),
    ):
        before = contents(mine)
        (mine / key).write_bytes((source / key.replace(analysis, theirs)).read_bytes())
        assert words in " ".join(map(str, stores.check(mine)))
        stores.check(mine, repair=True)
        (mine / ASIDE).unlink(missing_ok=True)
        if key != "zarr.json":
            (mine / key).write_bytes(before[key])
        assert contents(mine) == before, f"repair changed more than {key}"
    (mine / COPY).unlink()  # as in a store of an early release
    for source, words in ((named, "of other classes"), (longer, "60 rows and the run 90 samples")):
        (mine / "zarr.json").write_bytes((source / "zarr.json").read_bytes())
        altered = contents(mine)
        assert words in " ".join(map(str, stores.check(mine, repair=True))) and contents(mine) == altered


def test_a_root_with_other_names_of_classes_is_not_opened(tmp_path: Path) -> None:
    for name, names in (("mine", ["cat", "dog", "owl"]), ("other", ["dog", "cat", "owl"])):
        stores.synthetic.make(tmp_path / name, samples=60, names=names)
    mine = tmp_path / "mine"
    (mine / "zarr.json").write_bytes((tmp_path / "other/zarr.json").read_bytes())
    with pytest.raises(stores.Damaged, match="of other classes"):
        stores.open(mine)
    (root,) = stores.check(mine)
    assert root.unit == "zarr.json" and "another run than its tables" in root.detail
    (mine / COPY).unlink()  # as in a store of an early release
    assert {problem.unit for problem in stores.check(mine)} == {"samples", stores.synthetic.RELEVANCE}


def test_a_lost_root_is_written_anew_with_the_same_names_only(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples": 60, "size": 12}
    stores.synthetic.make(tmp_path / "run", names=["cat", "dog", "owl"], **options)
    before = contents(tmp_path)
    (tmp_path / "run/zarr.json").unlink()
    with pytest.raises(stores.NotAStore):
        stores.synthetic.make(tmp_path / "run", names=["dog", "cat", "owl"], **options)
    stores.synthetic.make(tmp_path / "run", names=["cat", "dog", "owl"], **options)
    assert contents(tmp_path) == before


def test_groups_that_an_analysis_lacks_are_told(path: Path) -> None:
    run = stores.open(path, "r+")
    handle = run.create_analysis(stores.Provenance(({"name": "begun"},)), facts={}, groups=[0, 1, 12])
    unit = f"analyses/{handle.id}"
    assert [(problem.unit, problem.kind) for problem in stores.check(path)] == [(unit, "incomplete")]
    handle.write(replace(run.analysis().read(0), group=12))
    assert [problem.detail for problem in stores.check(path, repair=True)] == [
        "2 of 3 groups are not written yet (c0, c1)"
    ]
    shutil.rmtree(path / unit / "c12")
    shutil.rmtree(path / "ledger/commits" / unit)
    assert ["3 of 3 groups" in problem.detail for problem in stores.check(path)] == [True]


def test_a_lost_verdict_is_told_wherever_it_stood(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    def say(word: Any) -> None:
        run.add_verdict(stores.Verdict("sample", "", "a", word, "", "me", "2026-01-01T00:00:00Z", ("a",)))

    def told() -> list[str]:
        return [problem.unit for problem in stores.check(tmp_path, repair=True)]

    for word in ("valid", "unsure", "clever_hans"):
        say(word)
    assert told() == []
    (tmp_path / "verdicts/00000003.json").unlink()
    assert told() == told() == ["verdicts/00000003.json"]
    say("withdrawn")
    assert told() == ["verdicts/00000003.json"]
    assert [verdict.verdict for verdict in run.verdicts()] == ["valid", "unsure", "withdrawn"]
    shutil.rmtree(tmp_path / "verdicts")
    assert told() == [f"verdicts/0000000{number}.json" for number in (1, 2, 3, 4)]
    say("unsure")
    (tmp_path / "verdicts/00000005.json").rename(tmp_path / "verdicts/00000001.json")
    assert told()[0] == "verdicts/00000001.json" and len(run.verdicts()) == 0
    shutil.rmtree(tmp_path / "verdicts")
    shutil.rmtree(tmp_path / "ledger/commits/verdicts")  # as in a store of an early release
    say("valid")
    assert told() == [] and len(run.verdicts()) == 1


@pytest.mark.parametrize("damage", ALL_DAMAGES)
def test_a_lost_root_is_written_again_from_its_copy(path: Path, damage: Callable[[Path], None]) -> None:
    sound = contents(path)
    damage(path / "zarr.json")
    (path / "samples/label/zarr.json").unlink()
    with pytest.raises((stores.NotAStore, stores.Damaged), match=r"writes zarr\.json again from its copy"):
        stores.open(path)
    before = contents(path)
    assert [problem.unit for problem in stores.check(path)] == ["zarr.json", "samples/label"]
    assert contents(path) == before
    assert all(problem.repaired and not problem.redo for problem in stores.check(path, repair=True))
    (path / ASIDE).unlink(missing_ok=True)
    assert contents(path) == sound


def test_a_store_without_any_document_of_its_own_is_checked_all_the_same(path: Path) -> None:
    id = stores.open(path).analysis().id
    for key in ("zarr.json", COPY, "samples/zarr.json", f"{RELEVANCE}/zarr.json"):
        (path / key).unlink()
    flip_a_bit(path / f"analyses/{id}/c1/vectors/c/0/0")
    flip_a_bit(path / LAST_VERDICT)
    found = {problem.unit for problem in stores.check(path)}
    assert found == {"zarr.json", "samples", RELEVANCE, f"analyses/{id}/c1", LAST_VERDICT}


def test_a_copy_of_another_root_restores_nothing(path: Path, tmp_path: Path) -> None:
    sound = contents(path)
    stores.synthetic.make(tmp_path / "other", samples=SAMPLES, size=16, names=["a", "b", "c"])
    for lost in (False, True):
        (path / COPY).write_bytes((tmp_path / "other/zarr.json").read_bytes())
        if lost:
            (path / "zarr.json").unlink()
            (told,) = stores.check(path, repair=True)
            assert told.unit == "zarr.json" and told.redo and "has no copy" in told.detail
            redo(path)
        (told,) = stores.check(path, repair=True)
        assert told.unit == COPY and "another run" in told.detail and told.repaired
        assert contents(path) == sound


def unreadable(monkeypatch: pytest.MonkeyPatch, bad: Path, number: int) -> None:
    """Have the system refuse to open one file."""
    opening = Path.open

    def fails(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == bad:
            raise OSError(number, os.strerror(number), str(self))
        return opening(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", fails)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_root_that_cannot_be_read_is_named_and_the_rest_is_checked(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    truncate(path / RELEVANCE / "sum/c/0")
    before = contents(path)
    with monkeypatch.context() as disk:
        unreadable(disk, path / "zarr.json", number)
        with pytest.raises(stores.StoreError, match=r"zarr\.json cannot be read"):
            stores.open(path)
        for repair in (False, True):
            root, shard = stores.check(path, repair=repair)
            assert root.unit == "zarr.json" and "cannot be read" in root.detail
            assert root.repaired == (repair and number == errno.EIO) and not root.redo
            assert shard.unit == f"{RELEVANCE}/0" and shard.repaired == repair
    redo(path)
    assert {key for key, data in contents(path).items() if data != before[key]} == {f"{RELEVANCE}/sum/c/0"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_file_that_cannot_be_read_is_named_and_the_check_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What the disk has lost is taken back; what this user may not read is not touched."""
    bad = path / "samples/label/c/0"
    truncate(path / "relevance/epsilon_plus_flat/sum/c/0")
    unreadable(monkeypatch, bad, number)
    with pytest.raises(stores.StoreError, match="samples/label/c/0 cannot be read"):
        stores.open(path).samples.read("label")
    lost = number == errno.EIO
    for repair in (False, True):
        found = {it.unit: it for it in stores.check(path, repair=repair) if it.kind == "bytes"}
        assert found.keys() == {"samples/0", "relevance/epsilon_plus_flat/0"}
        assert "samples/label/c/0 cannot be read" in found["samples/0"].detail
        assert found["samples/0"].redo == lost and found["samples/0"].repaired == (lost and repair)
        assert found["relevance/epsilon_plus_flat/0"].redo
    assert (path / "ledger/commits/samples/0.json").exists() != lost


def test_what_a_living_process_writes_is_told_so(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path / "run.zarr"))
    fill(table)
    (tmp_path / "run.zarr/ledger/commits/relevance/test/1.json").unlink()
    with stores.open(tmp_path / "run.zarr", "r+").table("relevance/test").claim(1):
        told = [it.detail for it in stores.check(tmp_path / "run.zarr") if it.unit == "relevance/test/1"]
    assert len(told) == 1 and told[0].startswith(f"is being written by process {os.getpid()} on ")
