"""Rows of maps that are stored as they are (codecs: bytes, crc32c), read without decoding anything else.

Zarr reads the same files; this spares its scheduling, which costs more than the reading where a class's rows are strewn
over all shards. The layout is that of Zarr's sharding codec: chunks, then an index of (offset, length) pairs of
uint64 with a CRC-32C, all little-endian.
"""

from __future__ import annotations

import google_crc32c
import numpy as np
from jaxtyping import Int

from stores.encoding import is_raw, rows_per_chunk
from stores.errors import Damaged
from stores.floor import Floor
from stores.schema import Column

_CRC = 4
_RESIDUE = 0x48674BC7
"""CRC-32C of any bytes that are followed by their CRC-32C."""


def readable(column: Column) -> bool:
    """Whether a column is stored in this way."""
    return is_raw(column)


def read_rows(
    floor: Floor, key: str, column: Column, rows: Int[np.ndarray, " m"], rows_per_shard: int
) -> np.ndarray:
    """Values of ascending rows of one shard, every chunk that holds one checked as a whole.

    Raises:
        Damaged: a chunk is missing, or its checksum does not match.
    """
    shard = int(rows[0]) // rows_per_shard
    file = "/".join([key, "c", str(shard), *("0" for _ in column.shape)])
    size = rows_per_chunk(column, rows_per_shard)
    local = rows - shard * rows_per_shard
    index = _index(floor, file, rows_per_shard // size)
    values = np.empty((len(rows), *column.shape), column.dtype)
    chunks, starts = np.unique(local // size, return_index=True)
    for number, first, last in zip(chunks.tolist(), starts, [*starts[1:], len(rows)], strict=True):
        offset, length = (0, None) if index is None else index[number].tolist()
        data = _checked(floor.read_part(file, offset, length), file)
        chunk = np.frombuffer(data, column.dtype).reshape(size, *column.shape)
        np.take(chunk, local[first:last] - number * size, axis=0, out=values[first:last])
    return values


def _index(floor: Floor, file: str, chunks: int) -> Int[np.ndarray, "chunks 2"] | None:
    """Where each chunk lies in the shard; None where the shard is one chunk."""
    if chunks == 1:
        return None
    length = 16 * chunks + _CRC
    size = floor.size(file) or 0
    data = _checked(floor.read_part(file, size - length, length), file)
    return np.frombuffer(data, "<u8").reshape(chunks, 2)


def _checked(data: bytes | None, file: str) -> memoryview:
    """The bytes before their CRC-32C."""
    if data is None or len(data) < _CRC or google_crc32c.value(data) != _RESIDUE:
        raise Damaged(f"{file}: a chunk is missing or its checksum does not match")
    return memoryview(data)[:-_CRC]
