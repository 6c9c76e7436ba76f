"""Encodings against plain statements of what they promise."""

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from stores.encoding import column_documents, decode, encode_shard, scale_rows
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
    files = encode_shard(column, len(texts), 8, range(len(texts)), np.array([*texts, None], object)[:-1])
    files |= {"/zarr.json": column_documents(column, len(texts), 8)[""]}
    buffer = default_buffer_prototype().buffer
    store = MemoryStore({key.strip("/"): buffer.from_bytes(data) for key, data in files.items()})
    stored = np.asarray(zarr.open_array(store, mode="r")[...])
    assert decode(column, {"": stored}).tolist() == texts


def test_the_same_values_give_the_same_bytes() -> None:
    column = Column("m", "float32", (8, 8), ("y", "x"), "scaled_float16")
    values = np.random.default_rng(0).normal(size=(6, 8, 8))
    one, other = (encode_shard(column, 10, 6, range(6), values) for _ in range(2))
    assert one == other and set(one) == {"/c/0/0/0", "=scale/c/0"}
