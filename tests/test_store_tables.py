"""Tables: what was written comes back, what was not is never made up, bad input is told and harms nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_tools import COLUMNS, PER_SHARD, PROVENANCE, ROWS, contents, fill, new_run, new_table, values

import stores
from stores.ledger import Commit


@pytest.fixture
def run(tmp_path: Path) -> stores.Run:
    return new_run(tmp_path / "run.zarr")


@pytest.fixture
def table(run: stores.Run) -> stores.Table:
    return new_table(run)


@pytest.fixture
def full(table: stores.Table) -> stores.Table:
    fill(table)
    return table


def test_values_come_back_exactly(full: stores.Table, run: stores.Run) -> None:
    expected = values(range(ROWS))
    again = stores.open(run.path).table("relevance/test")
    assert again.read("id").tolist() == expected["id"]
    assert np.array_equal(again.read("map"), expected["map"])
    assert np.array_equal(again.read("score"), expected["score"])
    assert (again.read("map").dtype, again.read("score").dtype) == (np.float32, np.float64)
    assert again.complete and again.ok.all() and again.failures == {}
    assert again.provenance == PROVENANCE and list(again.columns.values()) == COLUMNS


@pytest.mark.parametrize(
    "rows",
    [
        [9, 0, 5, 5, 3],
        [],
        np.array([7]),
        slice(2, 9),
        slice(None, None, 3),
        slice(8, 2, -2),
        np.array([4, 5], np.uint8),
    ],
)
@pytest.mark.parametrize("column", ["id", "map", "score"])
def test_rows_in_any_order(full: stores.Table, column: str, rows: Any) -> None:
    assert np.array_equal(
        full.read(column, rows), full.read(column)[rows if len(full.read("id")[rows]) else []]
    )


def test_iterate_goes_shard_by_shard(full: stores.Table) -> None:
    pieces = list(full.iterate("score", [9, 2, 3, 8, 2]))
    assert [rows.tolist() for rows, _ in pieces] == [[2, 3], [8, 9]]
    assert np.array_equal(np.concatenate([part for _, part in pieces]), np.array([2, 3, 8, 9]) / 7)
    assert len(list(full.iterate("map"))) == 3


def test_what_is_not_written_is_not_read(table: stores.Table) -> None:
    table.write(1, values(range(4, 8)))
    assert table.missing() == [0, 2] and not table.complete
    assert table.ok.tolist() == [False] * 4 + [True] * 4 + [False] * 2
    assert np.array_equal(table.read("score", [7, 4]), np.array([7, 4]) / 7)
    for rows in (None, [4, 8], slice(0, 5)):
        with pytest.raises(stores.Uncommitted, match="not written yet"):
            table.read("score", rows)
    with pytest.raises(stores.Uncommitted):
        next(table.iterate("map"))


def test_all_zero_maps_are_written(table: stores.Table) -> None:
    zero = {"id": [""] * 4, "map": np.zeros((4, 3, 3)), "score": np.zeros(4)}
    table.write(0, zero)
    assert (table.read("map", slice(0, 4)) == 0).all()
    assert table.ok[:4].all()


def test_failed_rows_read_as_fill_and_say_why(table: stores.Table) -> None:
    given = values(range(4, 8))
    given["map"] = given["map"].copy()
    given["map"][3, 1, 1] = np.inf
    given["score"][2] = np.nan
    reasons = table.write(1, given, {4: "cannot be decoded"})
    assert reasons == {4: "cannot be decoded", 6: "score is not finite", 7: "map is not finite"}
    assert table.failures == reasons
    assert table.ok[4:8].tolist() == [False, True, False, False]
    assert np.isnan(table.read("map", [4, 6, 7])).all() and np.isnan(table.read("score", [4, 6, 7])).all()
    assert np.isfinite(table.read("map", [5])).all()
    assert table.read("id", [4]).tolist() == ["ü/4"]  # a failed sample keeps its name


def test_missing_values_are_allowed_where_said(run: stores.Run) -> None:
    columns = [stores.Column("meta.width", "float32", missing=True), stores.Column("label", "int64")]
    table = run.create_table("samples", columns, rows_per_shard=ROWS, provenance=PROVENANCE)
    width = np.where(np.arange(ROWS) == 3, np.nan, 1.0)
    assert table.write(0, {"meta.width": width, "label": np.arange(ROWS)}, {5: "no image"}) == {5: "no image"}
    assert np.flatnonzero(np.isnan(table.read("meta.width"))).tolist() == [3, 5]
    assert table.read("label", [4, 5]).tolist() == [4, -1]


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_dtype_comes_back(run: stores.Run, dtype: str) -> None:
    column = stores.Column("x", dtype, (2,), ("channel",))
    table = run.create_table("samples", [column], rows_per_shard=7, provenance=PROVENANCE)
    given = (np.arange(2 * ROWS).reshape(ROWS, 2) % 2).astype(dtype)
    for shard, rows in enumerate(table.shards):
        table.write(shard, {"x": given[rows.start : rows.stop]})
    assert table.read("x").dtype == np.dtype(dtype) and np.array_equal(table.read("x"), given)


def test_maps_larger_than_a_chunk_of_reading(tmp_path: Path) -> None:
    run = stores.create(tmp_path / "run", classes=["a"], samples=50, provenance={})
    columns = [stores.Column("map", "float32", (3, 120, 120), ("channel", "y", "x"))]
    table = run.create_table("relevance/big", columns, rows_per_shard=24, provenance=PROVENANCE)
    given = np.random.default_rng(0).normal(size=(50, 3, 120, 120)).astype(np.float32)
    for shard, rows in enumerate(table.shards):
        table.write(shard, {"map": given[rows.start : rows.stop]})
    rows = np.array([0, 1, 5, 22, 23, 24, 49])
    assert np.array_equal(table.read("map", rows), given[rows])
    assert np.array_equal(table.read("map"), given)


def test_plain_maps_are_read_as_zarr_reads_them(tmp_path: Path) -> None:
    import zarr

    run = stores.create(tmp_path / "run", classes=["a"], samples=3000, provenance={})
    columns = [stores.Column("place", "float32", (14, 14), ("y", "x"))]
    table = run.create_table("relevance/maps", columns, rows_per_shard=2400, provenance=PROVENANCE)
    given = np.random.default_rng(0).normal(size=(3000, 14, 14)).astype(np.float32)
    for shard, rows in enumerate(table.shards):
        table.write(shard, {"place": given[rows.start : rows.stop]}, {rows.start: "failed"})
    array = zarr.open_array(str(run.path), path="relevance/maps/place", mode="r")
    assert array.shards == (2400, 14, 14) and array.chunks[0] < 2400
    for chosen in (slice(None), slice(700, 2500), np.arange(3, 3000, 7)):
        rows = np.arange(3000)[chosen]
        assert np.array_equal(table.read("place", rows), array[...][rows], equal_nan=True)


@pytest.mark.parametrize("name", ["id", "map", "plain", "number", "picture"])
def test_files_of_two_shards_that_changed_places_are_not_read(tmp_path: Path, name: str) -> None:
    """Each is sound in itself and as long as the other; what ends every chunk stands in the commit."""
    columns = [
        *COLUMNS[:2],
        stores.Column("plain", "float32", (64, 64), ("y", "x")),  # two shards of several chunks
        stores.Column("number", "int64"),
        stores.Column("picture", "uint8", (96, 128), ("y", "x")),  # the same, and nothing to compress
    ]
    run = stores.create(tmp_path / "run.zarr", classes=["a"], samples=256, provenance={})
    table = run.create_table("relevance/test", columns, rows_per_shard=128, provenance=PROVENANCE)
    rng = np.random.default_rng(0)
    for shard, rows in enumerate(table.shards):
        filled = {
            "id": [f"{row:03}" for row in rows],
            "map": rng.choice([-1, 1], (128, 3, 3)),
            "plain": rng.random((128, 64, 64)),
            "number": [shard + 1] * 128,
            "picture": rng.integers(0, 256, (128, 96, 128), dtype=np.uint8),
        }
        table.write(shard, filled)
    one, other = sorted(
        path for path in (Path(run.path) / table.key / name / "c").rglob("*") if path.is_file()
    )
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second), other.write_bytes(first)
    if name in ("plain", "number", "picture"):  # elsewhere the length may tell already
        assert len(first) == len(second)
    for rows in (None, [5]):
        with pytest.raises(stores.Damaged, match=r"not what was committed|other bytes than were|where"):
            stores.open(run.path).table("relevance/test").read(name, rows)


def test_a_store_whose_commits_do_not_tell_how_chunks_end_is_read_and_written(tmp_path: Path) -> None:
    table = new_table(new_run(tmp_path / "run.zarr"))
    fill(table)
    commit = tmp_path / "run.zarr/ledger/commits/relevance/test/1.json"
    record = Commit.from_bytes(commit.read_bytes(), "")
    content = {key: value for key, value in record.content.items() if key != "seals"}
    commit.write_bytes(replace(record, content=content).to_bytes())
    again = new_table(stores.open(tmp_path / "run.zarr", "r+"))
    assert again.read("map").shape == (ROWS, 3, 3)
    again.write(1, values(again.shards[1]))
    with pytest.raises(stores.StoreError, match="committed already"):
        again.write(1, values(again.shards[1], seed=1))


@pytest.mark.parametrize("error", [MemoryError(), OSError("timed out"), stores.StoreError("no answer")])
def test_trouble_on_the_way_is_not_called_damage(
    full: stores.Table, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(stores.Table, "_read_rows", fail)
    with pytest.raises(type(error)) as caught:
        full.read("map")
    assert caught.value is error


def test_an_empty_data_set_is_complete(tmp_path: Path) -> None:
    run = stores.create(tmp_path / "run", classes=[], samples=0, provenance={})
    table = new_table(run)
    assert table.complete and table.read("map").shape == (0, 3, 3) and table.read("id").shape == (0,)
    assert stores.check(run.path) == []


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "a column too few": ({"score": None}, "Missing: .'score'"),
    "a column too many": ({"extra": np.zeros(4)}, "unknown: .'extra'"),
    "too many rows": ({"score": np.zeros(5)}, "expected shape .4,"),
    "another map size": ({"map": np.zeros((4, 3, 4))}, "got .4, 3, 4"),
    "an object array": ({"score": np.array([1.0, None, 2.0, 3.0], object)}, "holds float64, got object"),
    "text as a number": ({"score": np.array(["1", "2", "3", "4"])}, "holds float64, got <U1"),
    "complex numbers": ({"score": np.zeros(4, complex)}, "holds float64, got complex128"),
    "a number as text": ({"id": ["a", "b", "c", 4]}, "holds text, got 4 of type int"),
    "bytes as text": ({"id": [b"a", "b", "c", "d"]}, "holds text, got b'a'"),
    "too few texts": ({"id": ["a"]}, "expected 4 texts, got 1"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values_are_refused_and_nothing_is_written(
    run: stores.Run, table: stores.Table, case: str
) -> None:
    changes, message = BAD_VALUES[case]
    given = {name: it for name, it in {**values(range(4)), **changes}.items() if it is not None}
    before = contents(Path(run.path))
    with pytest.raises(stores.StoreError, match=message):
        table.write(0, given)
    assert contents(Path(run.path)) == before


@pytest.mark.parametrize("failed", [{4: "of another shard"}, {-1: "negative"}, {0: ""}])
def test_failed_rows_must_be_of_the_shard_and_have_a_reason(
    table: stores.Table, failed: dict[int, str]
) -> None:
    with pytest.raises(stores.StoreError, match="failed rows"):
        table.write(0, values(range(4)), failed)


def test_integers_that_do_not_fit_are_refused(run: stores.Run) -> None:
    table = run.create_table(
        "samples", [stores.Column("x", "uint8")], rows_per_shard=ROWS, provenance=PROVENANCE
    )
    for given in (np.full(ROWS, 256), np.full(ROWS, -1), np.zeros(ROWS)):
        with pytest.raises(stores.StoreError, match="holds uint8"):
            table.write(0, {"x": given})


@pytest.mark.parametrize("rows", [[10], [-1], [0.5], [True] * 10, [[1]], np.array(["1"])])
def test_bad_rows(full: stores.Table, rows: Any) -> None:
    with pytest.raises(stores.StoreError, match="row"):
        full.read("score", rows)


def test_unknown_names(run: stores.Run, full: stores.Table) -> None:
    with pytest.raises(KeyError, match="no column 'nope'; it has id, map, score"):
        full.read("nope")
    with pytest.raises(KeyError, match="no table 'relevance/nope'; it has relevance/test"):
        run.table("relevance/nope")
    for name in ("other", "verdicts", "../x", "relevance"):
        with pytest.raises(KeyError, match="is called"):
            run.table(name)
    with pytest.raises(stores.StoreError, match="shards 0 to 2"):
        full.write(3, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "complex64"}, "dtype"),
        ({"dtype": "object"}, "dtype"),
        ({"encoding": "pickle"}, "encoding"),
        ({"shape": (2,)}, "axes"),
        ({"shape": (0,), "axes": ("x",)}, "positive"),
        ({"dtype": "str"}, "utf8"),
        ({"dtype": "str", "encoding": "utf8", "shape": (1,), "axes": ("x",)}, "one string"),
        ({"dtype": "float64", "encoding": "scaled_float16"}, "float32"),
        ({"dtype": "int64", "missing": True}, "missing"),
    ],
)
def test_columns_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(stores.StoreError, match=message):
        stores.Column("x", **{"dtype": "float32", **arguments})


def test_a_table_is_created_once(run: stores.Run, full: stores.Table) -> None:
    before = contents(Path(run.path))
    assert new_table(run).complete
    assert contents(Path(run.path)) == before
    for change in (
        {"columns": COLUMNS[:2]},
        {"rows_per_shard": 5},
        {"provenance": stores.Provenance(({"name": "other"},))},
    ):
        with pytest.raises(stores.StoreError, match=f"already, and it differs in {next(iter(change))}"):
            new_table(run, **change)
    assert contents(Path(run.path)) == before
    with pytest.raises(stores.StoreError, match="different names"):
        new_table(run, "relevance/twice", columns=[COLUMNS[0], COLUMNS[0]])


def test_a_shard_is_written_once(run: stores.Run, full: stores.Table) -> None:
    before = contents(Path(run.path))
    full.write(0, values(range(PER_SHARD)))
    with pytest.raises(stores.StoreError, match="committed already"):
        full.write(0, values(range(PER_SHARD), seed=1))
    assert contents(Path(run.path)) == before


def test_reading_mode_refuses_to_write(run: stores.Run, full: stores.Table) -> None:
    reader = stores.open(run.path)
    calls = (
        lambda: reader.table("relevance/test").write(0, {}),
        lambda: reader.table("relevance/test").claim(0),
        lambda: new_table(reader),
        lambda: reader.create_analysis(PROVENANCE, facts={}),
    )
    for call in calls:
        with pytest.raises(stores.StoreError, match="open for reading"):
            call()


def test_any_name_makes_a_table_of_its_own(run: stores.Run) -> None:
    names = [
        f"relevance/{name}"
        for name in ("A", "a", "..", "a/b", "a//b", "/abs", "<script>", "\udcff", "é" * 300)
    ]
    for number, name in enumerate(names):
        table = new_table(
            run, name, columns=[stores.Column(f"{name}/{name}", "float64")], rows_per_shard=ROWS
        )
        table.write(0, {f"{name}/{name}": np.full(ROWS, float(number))})
    assert sorted(run.tables()) == sorted(names)
    for number, name in enumerate(names):
        assert run.table(name).read(f"{name}/{name}", [0]) == number


def test_zarr_alone_reads_the_arrays(run: stores.Run, full: stores.Table) -> None:
    import zarr

    group = zarr.open_group(str(run.path), mode="r", path="relevance/test")
    assert np.array_equal(group["score"][...], values(range(ROWS))["score"])
    scaled = group["map"][...].astype(np.float32) * group["map=scale"][...][:, None, None]
    assert np.array_equal(scaled, values(range(ROWS))["map"])
    assert group["map"].metadata.dimension_names == ("sample", "y", "x")


def test_a_hole_that_was_committed_as_good_is_damage(
    table: stores.Table, run: stores.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer with a defect: NaN under a sound commit. A reader does not pass it off as a value."""

    def careless(columns: Any, rows: Any, given: Any, failed: Any, name: str) -> Any:
        return {key: np.asarray(column) for key, column in given.items()}, failed

    monkeypatch.setattr("stores.tables.clean", careless)
    given: dict[str, Any] = dict(values(table.shards[0]))
    given["map"] = np.array(given["map"])
    given["map"][1] = np.nan
    given["id"] = np.array(given["id"], object)
    table.write(0, given)
    again = stores.open(run.path).table("relevance/test")
    with pytest.raises(stores.Damaged, match="committed as good but holds NaN"):
        again.read("map", [1])
