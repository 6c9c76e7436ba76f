"""A repair does again what it took back where the settings are those it was made with, and owns up where not."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from audit_tools import MODEL, TOML, contents, draw_pictures, spray
from click.testing import CliRunner

import stores
from spray.cli import main


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration beside its model and 2 × 12 pictures, and the store that it made."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    (folder / "audit.toml").write_text(TOML)
    draw_pictures(folder / "images", ("cat", "dog"), 24)
    spray("audit", folder / "audit.toml", "--quiet")
    return folder / "audit.toml"


@pytest.fixture
def store(config: Path, tmp_path: Path) -> Path:
    shutil.copytree(f"{config.with_suffix('.zarr')}.log", tmp_path / "run.zarr.log")
    return shutil.copytree(config.with_suffix(".zarr"), tmp_path / "run.zarr")


def with_other(config: Path, line: str, other: str) -> Path:
    """The same configuration but for one line."""
    path = config.with_name("other.toml")
    path.write_text(config.read_text().replace(line, other))
    return path


def damage(folder: Path) -> None:
    """Flip one bit of the largest chunk below a folder."""
    chunks = [path for path in folder.rglob("*") if path.is_file() and path.name != "zarr.json"]
    path = max(chunks, key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def analysis_of(store: Path) -> Path:
    return store / "analyses" / stores.open(store).analysis().id


def repaired(store: Path, config: Path, *options: object, code: int = 3) -> str:
    """What is told; the exit code says whether anything is left to be done."""
    arguments = ("check", store, "--repair", "--config", config, "--quiet", *options)
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def test_findings_are_not_replaced_by_ones_of_other_settings(store: Path, config: Path) -> None:
    sound = contents(store)
    damage(analysis_of(store) / "findings" / "1")
    told = repaired(store, with_other(config, "members = 10", "members = 6"))
    assert "done again" not in told and "1 units are to be written again" in told
    assert "they were made with other settings than these" in told
    assert "Redo just these: " in told
    assert stores.open(store).analysis().findings() == []
    assert not [key for key in contents(store) if key not in sound]


def test_findings_of_these_settings_are_done_again(store: Path, config: Path) -> None:
    sound = contents(store)
    damage(analysis_of(store) / "findings" / "1")
    assert "1 units were taken back and done again." in repaired(store, config, code=0)
    assert contents(store) == sound


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", None], ids=["empty", "list", "object", "altered"])
def test_findings_whose_settings_nobody_knows_are_left(store: Path, config: Path, document: Any) -> None:
    """An altered provenance, even one that says what the configuration says, is no evidence."""
    path = analysis_of(store) / "findings" / "1" / "zarr.json"
    if document is None:
        record = json.loads(path.read_bytes())
        record["attributes"]["spray"]["provenance"]["steps"][0]["verification"]["members"] = 4
        document = json.dumps(record).encode()
    path.write_bytes(document)
    assert "done again" not in repaired(store, with_other(config, "members = 10", "members = 6"))


def test_a_superseded_list_of_findings_is_left_and_the_newest_stays(store: Path, config: Path) -> None:
    spray("verify", store, "--config", config, "--rank", "separation=1", "--quiet")
    newest = stores.open(store).analysis().findings_provenance
    assert (analysis_of(store) / "findings" / "2").is_dir()
    damage(analysis_of(store) / "findings" / "1")
    told = repaired(store, config, code=0)
    assert "done again" not in told and "to be written again" not in told
    assert "Nothing needs 1 of what was taken back any more" in told and "Redo just these" not in told
    assert stores.open(store).analysis().findings_provenance == newest
    assert not (analysis_of(store) / "findings" / "3").exists()


def test_tested_classes_that_nothing_writes_again_are_not_called_done(store: Path, config: Path) -> None:
    (tested, *_) = sorted((analysis_of(store) / "tested").iterdir())
    (tested / "zarr.json").write_bytes(b"")
    told = repaired(store, config, code=0)
    assert "done again" not in told and "Redo just these" not in told
    assert "Incomplete" not in told


@pytest.mark.parametrize("lost", [None, b"", b"{"], ids=["deleted", "empty", "torn"])
def test_a_lost_document_of_an_analysis_is_written_again(
    store: Path, config: Path, lost: bytes | None
) -> None:
    sound, document = contents(store), analysis_of(store) / "zarr.json"
    if lost is None:
        document.unlink()
    else:
        document.write_bytes(lost)
    assert "done again" in repaired(store, config, code=0)
    assert contents(store) == sound and stores.check(store) == []


def test_a_lost_document_of_another_analysis_is_left_with_its_command(store: Path, config: Path) -> None:
    document = analysis_of(store) / "zarr.json"
    document.unlink()
    told = repaired(store, config, "--neighbours", 4)
    assert "done again" not in told and "Redo just these: " in told
    assert stores.open(store).analyses() == []


def test_a_lost_root_is_written_again_from_its_copy_or_by_the_command(store: Path, config: Path) -> None:
    sound = contents(store)
    (store / "zarr.json").unlink()
    told = spray("check", store, "--repair")
    assert "zarr.json: " in told and "(repaired)" in told and contents(store) == sound
    for key in ("zarr.json", "ledger/run.json"):
        (store / key).unlink()
    result = CliRunner().invoke(main, ["check", str(store), "--repair"])
    assert result.exit_code == 3 and "1 units are to be written again" in result.stdout
    assert "Redo just these: " in result.stdout
    assert "1 units were taken back and done again." in repaired(store, config, code=0)
    assert contents(store) == sound


def test_a_group_made_before_a_sample_came_back_is_not_mixed_with_it(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "audit.toml").write_text(TOML)
    draw_pictures(tmp_path / "images", ("cat", "dog"), 24)
    picture = tmp_path / "images" / "cat" / "02.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:40])
    spray("audit", tmp_path / "audit.toml", "--quiet")
    picture.write_bytes(whole)
    store, config = tmp_path / "audit.zarr", tmp_path / "audit.toml"
    spray("attribute", config, "--retry-failed", "--quiet")
    before, first = contents(store), analysis_of(store)
    damage(first / "c0")
    assert "or of other samples" in repaired(store, config)
    assert all(before[key] == data for key, data in contents(store).items() if "/c0/" not in key)
    again = json.loads(spray("analyze", store, "--json"))
    assert again["analysis"] != first.name and again["shortfalls"] == []
    told = spray("info", store)
    assert "Made when 1 samples had failed, and others have now (0)" in told and "Never written" in told


def test_a_sample_that_cannot_be_made_again_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "audit.toml").write_text(TOML)
    draw_pictures(tmp_path / "images", ("cat", "dog"), 24)
    spray("audit", tmp_path / "audit.toml", "--quiet")
    store, config = tmp_path / "audit.zarr", tmp_path / "audit.toml"
    run = stores.open(store)
    row = next(at for at, name in enumerate(run.samples.read("id")) if "02.png" in str(name))
    (table,) = (run.table(name) for name in run.tables() if name != "samples")
    picture = tmp_path / "images" / "cat" / "02.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:40])
    (store / table.key / "sum" / "c" / str(row // table.rows_per_shard)).write_bytes(b"")
    told = repaired(store, config)
    assert "done again" in told and f"rows {row} to {row}: was there before, and has failed now" in told
    assert "--retry-failed" in told
    (note,) = stores.check(store)
    assert note.kind == "note" and "1 of its samples have failed since" in note.detail
    assert "1 of its samples have failed since" in spray("info", store)
    spray("export", store, tmp_path / "project", "--to", "virelay")
    with (
        h5py.File(tmp_path / "project" / "attribution.h5") as maps,
        h5py.File(tmp_path / "project" / "analysis.h5") as analysis,
    ):
        there = set(maps["index"][()].tolist())
        assert row not in there and len(there) == 23
        for category in analysis.values():
            (embedding, *_) = category["embedding"].values()
            assert set(category["index"][()].tolist()) <= there
            assert len(category["index"]) == len(embedding) == len(category["cluster"]["kmeans"])
    picture.write_bytes(whole)
    spray("attribute", config, "--retry-failed", "--quiet")
    assert stores.check(store) == []


def test_the_command_that_is_named_wrote_just_that_table_and_that_analysis(
    config: Path, tmp_path: Path
) -> None:
    store = tmp_path / "run.zarr"
    one = ("attribute", config, "--out", store, "--quiet")
    spray(*one, "--shards", "1::2")
    spray(*one, "--composite", "gradient", "--shards", "0::1")
    gap = CliRunner().invoke(main, ["check", str(store)]).stdout
    assert [line for line in gap.splitlines() if line.startswith("Go on: ")] == [
        "Go on: main " + " ".join(map(str, one))
    ]
    spray(*one)
    first, second = (
        ("analyze", store, "--relevance", name, "--picture", "none", "--quiet")
        for name in ("gradient", "epsilon_plus")
    )
    spray(*first)
    damage(analysis_of(store) / "c0")
    spray(*second)
    damage(store / "relevance" / "gradient")
    told = CliRunner().invoke(main, ["check", str(store), "--repair"]).stdout
    redo = [line.removeprefix("Redo just these: main ") for line in told.splitlines() if "Redo" in line]
    assert redo == [
        " ".join(map(str, (*one, "--composite", "gradient"))),
        " ".join(map(str, first)),
    ]
