"""Encodings against plain statements of what they promise."""

import math

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from stores.encoding import COMPRESSIONS, column_documents, decode, encode_shard, scale_rows
from stores.schema import Column

UNTIMED = settings(deadline=None)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@UNTIMED
@given(hnp.arrays(np.float32, (3, 5), elements=FLOATS))
def test_scaled_half_precision_keeps_eleven_bits(rows: np.ndarray) -> None:
    halves, scales = scale_rows(rows)
    back = halves.astype(np.float64) * scales[:, None]
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    # half precision has 11 significant bits, and below its normal numbers a fixed step of 2⁻²⁴ times the scale
    allowed = np.maximum(np.abs(rows) * 2.0**-11, np.maximum(largest * 2.0**-38, 2.0**-150))
    assert (np.abs(back - rows) <= allowed).all()


@UNTIMED
@given(hnp.arrays(np.float32, (1, 4), elements=FLOATS))
def test_the_scale_is_the_power_of_two_that_fills_the_range(rows: np.ndarray) -> None:
    halves, scales = scale_rows(rows)
    assert np.frexp(scales)[0] == 0.5
    if np.abs(rows).max() >= 2.0**-134:
        assert 2**14 <= np.abs(halves.astype(np.float64)).max() <= 2**15
    if not rows.any():
        assert scales == 1 and not halves.any()


def test_scaling_is_exact_for_values_that_fit() -> None:
    column = Column("m", "float32", (2, 2), ("y", "x"), "scaled_float16")
    for factor in (2.0**-140, 2.0**-24, 1.0, 2.0**100):
        values = np.array([[[1, -2], [3, 0]]], np.float32) * np.float32(factor)
        halves, scales = scale_rows(values)
        assert (decode(column, {"": halves, "=scale": scales}) == values).all()


@UNTIMED
@given(st.lists(st.text(st.characters()), min_size=1, max_size=5))
def test_any_text_comes_back(texts: list[str]) -> None:
    column = Column("id", "str", encoding="utf8")
    files = encode_shard(
        column, len(texts), 8, range(len(texts)), np.array([*texts, None], object)[:-1], "lz4"
    )
    files |= {"/zarr.json": column_documents(column, len(texts), 8, "lz4")[""]}
    buffer = default_buffer_prototype().buffer
    store = MemoryStore({key.strip("/"): buffer.from_bytes(data) for key, data in files.items()})
    stored = np.asarray(zarr.open_array(store, mode="r")[...])
    assert decode(column, {"": stored}).tolist() == texts


def test_the_same_values_give_the_same_bytes() -> None:
    column = Column("m", "float32", (8, 8), ("y", "x"), "scaled_float16")
    values = np.random.default_rng(0).normal(size=(6, 8, 8))
    one, other = (encode_shard(column, 10, 6, range(6), values, "lz4") for _ in range(2))
    assert one == other and set(one) == {"/c/0/0/0", "=scale/c/0"}


KINDS = [
    Column("m", "float32", (3, 40, 40), ("c", "y", "x"), "scaled_float16"),
    Column("m", "float32", (14, 14), ("y", "x")),
    Column("m", "float32"),
    Column("m", "uint8", (28, 28, 3), ("y", "x", "c")),
    Column("m", "int64"),
    Column("m", "bool"),
]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("column", KINDS, ids=lambda column: f"{column.dtype} {column.shape}")
@pytest.mark.parametrize(("rows", "per_shard"), [(10, 4), (1, 1), (1100, 1024), (2000, 600)])
def test_a_shard_has_the_bytes_that_zarr_writes(
    column: Column, compression: str, rows: int, per_shard: int
) -> None:
    values = (100 * np.random.default_rng(rows).normal(size=(rows, *column.shape))).astype(column.dtype)
    files: dict[str, bytes] = {}
    for low in range(0, rows, per_shard):
        shard = range(low, min(low + per_shard, rows))
        files |= encode_shard(column, rows, per_shard, shard, values[low : shard.stop], compression)
    documents = column_documents(column, rows, per_shard, compression)
    buffer = default_buffer_prototype().buffer
    for suffix, document in documents.items():
        mine = {key.removeprefix(f"{suffix}/"): files[key] for key in files if key.startswith(f"{suffix}/c")}
        store = MemoryStore({"zarr.json": buffer.from_bytes(document)})
        array = zarr.open_array(store, mode="r+", config={"write_empty_chunks": True})
        whole = MemoryStore(
            {key: buffer.from_bytes(data) for key, data in (mine | {"zarr.json": document}).items()}
        )
        found = np.asarray(zarr.open_array(whole, mode="r")[...])
        for low in range(0, rows, per_shard):
            array[low : low + per_shard] = found[low : low + per_shard]
        theirs = {key: data.to_bytes() for key, data in store._store_dict.items() if key != "zarr.json"}
        assert mine == theirs
        if suffix == "" and column.encoding == "plain":
            assert np.array_equal(found, values)


def test_maps_take_less_than_half_of_single_precision() -> None:
    column = Column("m", "float32", (3, 56, 56), ("c", "y", "x"), "scaled_float16")
    values = np.random.default_rng(0).normal(size=(64, *column.shape)).astype(np.float32)
    for compression in COMPRESSIONS:
        files = encode_shard(column, 64, 64, range(64), values, compression)
        assert sum(map(len, files.values())) < 0.48 * 4 * math.prod(values.shape)
