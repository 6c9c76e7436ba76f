"""The run log: every stage of every process tells what it did, beside the store and never in it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from audit_tools import Images, contents, tiny_model
from store_tools import s3_server

import spray
import stores
from spray import journal as module
from spray.analysis import Analysis
from spray.attribution import Attribution, attribute_dataset, attribute_share
from spray.engine.errors import AttributionError
from spray.invocation import COMMAND
from spray.journal import journal, last_command, place_of
from stores.places import floor_at

STEP = Attribution("epsilon_plus", block=4, grid=5, thumbnails=8)


def events(store: Path | str, stage: str = "") -> list[dict]:
    """Every line of a store's log."""
    floor = floor_at(place_of(store))
    lines = [line for name in floor.names("") for line in floor.read(name).splitlines()]
    found = [json.loads(line) for line in lines]
    return [event for event in found if event["stage"].startswith(stage)]


def test_an_audit_tells_what_every_stage_did(tmp_path):
    data = Images(24, items={5: ValueError("torn")})
    out = tmp_path / "a.zarr"
    spray.audit(tiny_model(), data, out, attribution=STEP, analysis=Analysis(picture="none"))
    first, plan, *shards, last = events(out, "attribute")
    assert (first["event"], plan["event"], last["event"]) == ("start", "plan", "end")
    assert (plan["rows"], plan["shards"], plan["resumed"]) == (24, 6, False)
    assert (first["device"], plan["block"], plan["tables"]) == ("cpu", 4, ["relevance/epsilon_plus"])
    assert (
        first["store"] == str(out) and first["pid"] and first["version"] and first["time"].endswith("+00:00")
    )
    assert [shard["shard"] for shard in shards] == list(range(6))
    assert [shard["failed"] for shard in shards] == [0, 1, 0, 0, 0, 0]
    assert [shard["failures"] for shard in shards] == [{}, {"ValueError: torn": [5]}, {}, {}, {}, {}]
    assert {(it["rows"], it["batch"], it["halved"], it["device"]) for it in shards} == {(4, 4, False, "cpu")}
    assert all(0 <= it["took"] <= it["seconds"] for it in shards)
    assert [it["event"] for it in events(out, "analyze")] == ["start", "group", "group", "group", "end"]
    assert [it["event"] for it in events(out, "verify")] == ["start", "group", "group", "group", "end"]
    assert all(oct(path.stat().st_mode)[-3:] == "644" for path in Path(place_of(out)).iterdir())


def test_interruptions_failures_and_going_on_are_told(tmp_path):
    out = tmp_path / "a.zarr"

    def stop(error: BaseException, after: int):
        def report(done, total, what, failed):
            if done >= after:
                raise error

        return report

    for error, event in ((KeyboardInterrupt(), "interrupted"), (OSError("lost"), "failed")):
        with pytest.raises(type(error)):
            attribute_dataset(tiny_model(), Images(), out, STEP, report=stop(error, 8))
        assert events(out)[-1]["event"] == event
    assert [it["error"] for it in events(out) if it["event"] == "failed"] == ["OSError: lost"]
    attribute_dataset(tiny_model(), Images(), out, STEP)
    plans = [it for it in events(out) if it["event"] == "plan"]
    assert sorted(it["resumed"] for it in plans) == [False, True, True]
    done = [it["shard"] for it in events(out) if it["event"] == "shard"]
    assert sorted(done) == list(range(5))  # each once, over three sessions


def test_logs_are_beside_the_store_and_make_no_difference_to_it(tmp_path):
    for name in ("a", "b"):
        attribute_dataset(tiny_model(), Images(), tmp_path / f"{name}.zarr", STEP)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.zarr",
        "a.zarr.log",
        "b.zarr",
        "b.zarr.log",
    ]
    attribute_share(tiny_model(), Images(), tmp_path / "a.zarr", STEP, share=1, of=2)
    assert {it.get("share") for it in events(tmp_path / "a.zarr") if it["event"] == "start"} == {None, "1::2"}


def test_a_halved_batch_is_told(tmp_path):
    from test_memory import Small

    attribute_dataset(Small(2).eval(), Images(), tmp_path / "a.zarr", STEP)
    assert {(it["batch"], it["halved"]) for it in events(tmp_path / "a.zarr") if it["event"] == "shard"} == {
        (2, True)
    }


def test_what_fails_before_the_work_begins_is_told(tmp_path):
    out = tmp_path / "a.zarr"
    for data, words in (
        (Images(3, items=dict.fromkeys(range(3), ValueError("torn"))), "no readable sample .*torn"),
        (Images(channels=3), "samples, which are of shape 3 × 8 × 8"),
    ):
        with pytest.raises(AttributionError, match=words):
            attribute_dataset(tiny_model(), data, out, STEP)
    with pytest.raises(ValueError, match="no composite 'lrp'"):
        attribute_dataset(tiny_model(), Images(), out, Attribution("lrp"))
    told = [it["error"].partition(": ")[0] for it in events(out) if it["event"] == "failed"]
    assert sorted(told) == ["AttributionError", "AttributionError", "ValueError"]
    assert not out.exists()


def test_where_no_store_can_lie_no_log_does(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "a.zarr", Path("/dev/null"), "a\0b"):
        with pytest.raises(stores.StoreError, match=r"is no run store: .*file|is no path"):
            attribute_dataset(tiny_model(), Images(), place, STEP)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_log_that_cannot_be_written_costs_only_itself(tmp_path):
    attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", STEP)
    Path(place_of(tmp_path / "b.zarr")).write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="run log .* cannot be written .* the work goes on") as told:
        attribute_dataset(tiny_model(), Images(), tmp_path / "b.zarr", STEP)
    assert len([it for it in told if "run log" in str(it.message)]) == 1
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


def test_a_full_disk_costs_the_log_before_it_costs_the_work(tmp_path, monkeypatch):
    real = Path.open

    def full(self, mode="r", *arguments, **options):
        if "a" in mode and self.suffix == ".jsonl":
            raise OSError(28, "No space left on device")
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        run = attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", STEP)
    assert run.table("relevance/epsilon_plus").complete


def test_logs_of_remote_stores_are_remote_and_hold_nothing_secret(monkeypatch):
    with s3_server(monkeypatch) as bucket:
        url = f"{bucket}/audits/run.zarr"
        run = attribute_dataset(tiny_model(), Images(), url, STEP)
        assert [it["event"] for it in events(url)] == ["start", "plan", *["shard"] * 5, "end"]
        assert not [key for key in run.floor.sizes("") if "jsonl" in key]
        floor = floor_at(place_of(url))
        written = b"".join(floor.read(name) for name in floor.names(""))
        assert b"test-secret" not in written and b"test-key-id" not in written
        monkeypatch.setattr(module, "SECONDS_BETWEEN_UPLOADS", -1)
        with journal(url, "attribute") as log:
            log("shard", shard=1)
            assert events(url)[-1]["event"] == "shard"  # what has happened so far is there already


@pytest.mark.parametrize(
    ("store", "place"),
    [
        (Path("/x/audit.zarr"), "/x/audit.zarr.log"),
        ("audit.zarr/", "audit.zarr.log"),
        ("s3://bucket/a/run.zarr", "s3://bucket/a/run.zarr.log"),
        ("s3://bucket/", "s3://bucket/log"),
    ],
)
def test_where_logs_lie(store, place):
    assert place_of(store) == place


def test_logs_of_the_folder_that_one_is_in_lie_beside_it_and_not_in_it(tmp_path, monkeypatch):
    (tmp_path / "a.zarr").mkdir()
    monkeypatch.chdir(tmp_path / "a.zarr")
    assert place_of(".") == f"{tmp_path}/a.zarr.log"


def test_what_a_stage_tells_may_be_anything_of_numpy_and_any_text(tmp_path):
    with journal(tmp_path / "a.zarr", "attribute", name="ü\ud800\n") as log:
        log("shard", shard=np.int64(3), rows=(1, 2))
    first, told, _ = events(tmp_path / "a.zarr")
    assert first["name"] == "ü\ud800\n" and (told["shard"], told["rows"]) == (3, [1, 2])


def test_the_last_command_is_known(tmp_path):
    store = tmp_path / "a.zarr"
    assert last_command(store, ("attribute",)) is None
    token = COMMAND.set("spray audit audit.toml")
    with journal(store, "attribute"):
        pass
    COMMAND.reset(token)
    with journal(store, "analyze"), journal(store, "attribute"):
        pass
    assert last_command(store, ("attribute",)) == "spray audit audit.toml"
    assert last_command(store, ("verify",)) is None


@pytest.mark.parametrize("line", ["[]", "3", "not json", '{"command": 3}', ""])
def test_logs_of_somebody_else_tell_no_command(tmp_path, line):
    store = tmp_path / "a.zarr"
    token = COMMAND.set("spray audit audit.toml")
    with journal(store, "attribute"):
        pass
    COMMAND.reset(token)
    folder = Path(place_of(store))
    for name in ("notes.jsonl", "x-attribute.jsonl", "zz-attribute-y.jsonl", "-.jsonl"):
        (folder / name).write_text(line)
    assert last_command(store, ("attribute",)) == "spray audit audit.toml"


def test_the_command_of_another_store_is_not_given_for_a_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = COMMAND.set("spray attribute --out run.zarr")
    with journal("run.zarr", "attribute"):
        pass
    COMMAND.reset(words)
    shutil.copytree("run.zarr.log", "copy.zarr.log")
    assert last_command(tmp_path / "run.zarr", ("attribute",)) == "spray attribute --out run.zarr"
    assert last_command("copy.zarr", ("attribute",)) is None
