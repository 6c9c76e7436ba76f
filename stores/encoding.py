"""Arrays as bytes and back: Zarr v3 documents and chunks, built in memory; only the floor writes files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Float, Int
from numcodecs import Blosc, VLenUTF8, Zstd
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.core import Buffer
from zarr.storage import MemoryStore

from stores import shards
from stores.provenance import Json
from stores.schema import Column

SCALE = "=scale"
"""Suffix of the array of row scales beside a scaled_float16 array; no escaped name can end in it."""

_SURROGATE = re.compile(r"\\u([0-9a-f]{4})")


@dataclass(frozen=True)
class Compression:
    """Of half-precision maps by Blosc, bits shuffled, and the level of Zstandard for what is not stored as it is."""

    library: Literal["zstd", "lz4"]
    level: int
    zstd: int
    blocksize: int = 0
    """Of Blosc, in bytes; 0 leaves it to choose."""


COMPRESSIONS: Mapping[str, Compression] = {
    "zstd": Compression("zstd", 5, 3),
    "lz4": Compression("lz4", 9, 3),
    "fast": Compression("lz4", 9, 1),
    "faster": Compression("lz4", 5, -5, 32 * 1024),
}
"""By the name that a table's metadata have for them."""
FIRST_COMPRESSION, COMPRESSION = "zstd", "faster"
"""That of tables that name none, as those of early releases, and that of new ones. LZ4 is five times as fast and 3 %
larger, and nearly twice as fast again for 2 % more in blocks that fit the processor's first cache; Zstandard's level -5
takes half the time of 1 for thumbnails, for 15 % more of their bytes."""
_INNER_BYTES = 512 * 1024
"""Aimed size of the unit of reading inside a shard; one small map per chunk reads 30 times slower."""
_SCALED_AT_ONCE = 2**16
"""Numbers that are scaled and rounded together: they stay in the processor's cache."""


@dataclass(frozen=True)
class _Spec:
    """One Zarr array of a column."""

    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    fill: Any
    attributes: Mapping[str, Json]
    compression: str = FIRST_COMPRESSION


def column_arrays(column: Column) -> list[str]:
    """Suffixes of a column's arrays: the values, and their row scales where there are any."""
    return list(_specs(column))


def column_documents(column: Column, rows: int, rows_per_shard: int, compression: str) -> dict[str, bytes]:
    """The ``zarr.json`` of each array of a column, by the array's suffix."""
    documents = {}
    for suffix, spec in _specs(column, compression).items():
        files: dict[str, Buffer] = {}
        _create(files, spec, rows, rows_per_shard)
        documents[suffix] = files["zarr.json"].to_bytes()
    return documents


def encode_shard(
    column: Column, rows: int, rows_per_shard: int, shard: range, values: np.ndarray, compression: str
) -> dict[str, bytes]:
    """The bytes of one shard of a column, by array suffix and chunk key: {"/c/3/0/0": …, "=scale/c/3": …}."""
    found: dict[str, bytes] = {}
    parts = _split(column, values)
    for suffix, spec in _specs(column, compression).items():
        inner = _inner_rows(rows_per_shard, _row_bytes(spec))
        key = "/".join([suffix, "c", str(shard.start // rows_per_shard), *("0" for _ in spec.shape)])
        found[key] = shards.encode(parts[suffix], rows_per_shard, inner, spec.fill, _compress(spec))
    return found


def is_raw(column: Column) -> bool:
    """Whether a column's values are stored as they are, little-endian with a CRC-32C."""
    return column.encoding == "plain" and _is_raw(column.dtype, column.shape)


def rows_per_chunk(column: Column, rows_per_shard: int) -> int:
    """Rows of the unit of reading."""
    return _inner_rows(rows_per_shard, column.row_bytes)


def decode(column: Column, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Values of a column from what its arrays hold; text as an object array of ``str``."""
    values = parts[""]
    if column.encoding == "utf8":
        return np.array([_unescape(text) for text in values.tolist()] + [None], dtype=object)[:-1]
    if column.encoding == "scaled_float16":
        return np.asarray(values.astype(np.float32) * parts[SCALE].reshape(-1, *(1,) * len(column.shape)))
    return values


def scale_rows(
    values: Float[np.ndarray, "n ..."],
) -> tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, " n"]]:
    """Float16 values and float32 scales with values × scale ≈ the input, relative error at most 2⁻¹¹.

    The scale is the power of two that brings the row's largest absolute value into [2¹⁴, 2¹⁵), so scaling is
    exact; only entries 2²⁸ times smaller than the largest fall below half precision's normal numbers.
    """
    flat = np.asarray(values, np.float32).reshape(len(values), -1)
    halves, exponents = np.empty(flat.shape, np.float16), np.empty(len(flat), np.int32)
    size = max(1, _SCALED_AT_ONCE // max(1, flat.shape[1]))
    for low in range(0, len(flat), size):
        block = slice(low, low + size)
        exponents[block] = exponent = _exponents(flat[block])
        if np.abs(exponent).max() < 127:  # the factor is a float32, and faster than its logarithm
            halves[block] = flat[block] * np.ldexp(np.float32(1), -exponent)[:, None]
        else:
            halves[block] = np.ldexp(flat[block], -exponent[:, None])
    return halves.reshape(values.shape), np.ldexp(np.float32(1), exponents).astype(np.float32)


def _exponents(rows: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " n"]:
    """Of the power of two that each row is divided by."""
    largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    exponent = np.where(largest > 0, np.frexp(largest)[1] - 15, 0)
    return np.maximum(exponent, -149)  # the smallest float32; such rows are exact all the same


def encode_group(attributes: Mapping[str, Json], arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """A whole Zarr group of small arrays, each one chunk, as files by key relative to the group."""
    files: dict[str, Buffer] = {}
    for name, values in arrays.items():
        spec = _Spec(
            str(values.dtype), values.shape[1:], tuple(f"axis_{i}" for i in range(1, values.ndim)), 0, {}
        )
        array = _create(files, spec, len(values), max(1, len(values)), path=name)
        if values.size:
            array[...] = values
    encoded = {key: data.to_bytes() for key, data in sorted(files.items())}
    return encoded | {"zarr.json": group_document(attributes)}


def decode_group(files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of ``encode_group``."""
    buffer = default_buffer_prototype().buffer
    store = MemoryStore({key: buffer.from_bytes(data) for key, data in files.items()}, read_only=True)
    names = sorted({key.split("/")[0] for key in files} - {"zarr.json"})
    arrays = {name: np.asarray(zarr.open_array(store, path=name, mode="r")[...]) for name in names}
    return json.loads(files["zarr.json"])["attributes"], arrays


def group_document(attributes: Mapping[str, Json]) -> bytes:
    """The ``zarr.json`` of a group."""
    text = json.dumps(
        {"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1, allow_nan=False
    )
    return text.encode("ascii")


def _specs(column: Column, compression: str = FIRST_COMPRESSION) -> dict[str, _Spec]:
    attributes: dict[str, Json] = {**column.attrs, "encoding": column.encoding}
    if column.encoding == "scaled_float16":
        return {
            "": _Spec("float16", column.shape, column.axes, math.nan, attributes, compression),
            SCALE: _Spec("float32", (), (), math.nan, {}, compression),
        }
    return {"": _Spec(column.dtype, column.shape, column.axes, column.fill, attributes, compression)}


def _split(column: Column, values: np.ndarray) -> dict[str, np.ndarray]:
    if column.encoding == "utf8":
        together = "".join(values)
        if together.isascii() and "\\" not in together:
            return {"": values}  # nothing to escape
        return {"": np.array([_escape(text) for text in values] + [None], dtype=object)[:-1]}
    if column.encoding == "scaled_float16":
        halves, scale = scale_rows(values)
        return {"": halves, SCALE: scale}
    return {"": values}


def _create(
    files: dict[str, Buffer], spec: _Spec, rows: int, rows_per_shard: int, path: str = ""
) -> zarr.Array[Any]:
    inner = _inner_rows(rows_per_shard, _row_bytes(spec))
    return zarr.create_array(
        MemoryStore(files),
        name=path or None,
        shape=(rows, *spec.shape),
        chunks=(inner, *spec.shape),
        shards=(rows_per_shard, *spec.shape) if inner < rows_per_shard else None,
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=_codecs(spec),
        attributes=dict(spec.attributes),
        dimension_names=("sample", *spec.axes),
        config={"write_empty_chunks": True},
    )


def _codecs(spec: _Spec) -> Iterable[Any]:
    """Half-precision maps shrink by bit shuffling; float32 maps hardly shrink, and read faster as they are."""
    if spec.dtype == "float16":
        by = COMPRESSIONS[spec.compression]
        blosc = BloscCodec(
            cname=by.library, clevel=by.level, shuffle="bitshuffle", typesize=2, blocksize=by.blocksize
        )
        return (blosc, Crc32cCodec())
    if _is_raw(spec.dtype, spec.shape):
        return (Crc32cCodec(),)
    return (ZstdCodec(level=COMPRESSIONS[spec.compression].zstd), Crc32cCodec())


def _compress(spec: _Spec) -> shards.Compress:
    """The same codecs, without the CRC-32C."""
    by = COMPRESSIONS[spec.compression]
    if spec.dtype == "float16":
        return Blosc(by.library, by.level, Blosc.BITSHUFFLE, by.blocksize).encode  # type: ignore[no-any-return]
    if _is_raw(spec.dtype, spec.shape):
        return lambda values: values.view(np.uint8)
    zstd = Zstd(by.zstd)
    if spec.dtype == "str":
        return lambda texts: zstd.encode(VLenUTF8().encode(texts))
    return zstd.encode  # type: ignore[no-any-return]


def _row_bytes(spec: _Spec) -> int:
    return 64 if spec.dtype == "str" else math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _is_raw(dtype: str, shape: tuple[int, ...]) -> bool:
    return dtype == "float32" and len(shape) > 0


def _inner_rows(rows_per_shard: int, row_bytes: int) -> int:
    """The divisor of the shard's rows whose bytes come closest to the aim; all rows where they are few."""
    if rows_per_shard * row_bytes <= 2 * _INNER_BYTES or row_bytes == 64:
        return rows_per_shard
    divisors = [d for d in range(1, math.isqrt(rows_per_shard) + 1) if rows_per_shard % d == 0]
    divisors += [rows_per_shard // d for d in divisors]
    return min(divisors, key=lambda d: (abs(math.log(d * row_bytes / _INNER_BYTES)), d))


def _escape(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates (undecodable file names) as \\udcxx, backslashes doubled."""
    if text.isascii() and "\\" not in text:
        return text
    return text.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode("utf-8")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    pieces = text.split("\\\\")
    return "\\".join(_SURROGATE.sub(lambda found: chr(int(found[1], 16)), piece) for piece in pieces)
