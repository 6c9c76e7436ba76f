"""Shards as bytes: those that Zarr would write, without its scheduling, which costs more than the compression.

The layout is that of Zarr's sharding codec: chunks, each with a CRC-32C at its end, then an index of their (offset,
length) pairs as uint64 and its CRC-32C, all little-endian. A shard of one chunk is just that.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import google_crc32c
import numpy as np

Compress = Callable[[np.ndarray], Any]
"""Bytes (or a view of them) of a contiguous array of one axis."""
ABSENT = 2**64 - 1
"""Offset and length, in the index, of a chunk all of whose rows are beyond the end of the array."""


def encode(
    values: np.ndarray, rows_per_shard: int, rows_per_chunk: int, fill: Any, compress: Compress
) -> bytes:
    """One shard that holds these rows, fewer than ``rows_per_shard`` at the end of an array."""
    little = values.dtype.newbyteorder("<")
    chunks = []
    for low in range(0, len(values), rows_per_chunk):
        chunk = np.ascontiguousarray(values[low : low + rows_per_chunk], little)
        if len(chunk) < rows_per_chunk:
            rest = np.full((rows_per_chunk - len(chunk), *chunk.shape[1:]), fill, little)
            chunk = np.concatenate([chunk, rest])
        data = compress(chunk.reshape(-1))
        chunks += [data, _crc(data)]
    if rows_per_chunk < rows_per_shard:
        index = _index([len(data) + 4 for data in chunks[::2]], rows_per_shard // rows_per_chunk)
        chunks += [index, _crc(index)]
    return b"".join(chunks)


def _index(lengths: list[int], chunks: int) -> bytes:
    index = np.full((chunks, 2), ABSENT, "<u8")
    index[: len(lengths)] = list(zip(accumulate(lengths, initial=0), lengths, strict=False))
    return index.tobytes()


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
