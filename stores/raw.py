"""Rows of maps that are stored as they are (codecs: bytes, crc32c), read without decoding anything else.

Zarr reads the same files; this spares its scheduling, which costs more than the reading where a class's rows are strewn
over all shards. ``stores.shards`` says how they are laid out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import google_crc32c
import numpy as np
from jaxtyping import Int, UInt8

from stores.encoding import is_raw, rows_per_chunk
from stores.errors import Damaged
from stores.floor import Floor, Parts
from stores.schema import Column

NOT_THIS_ONE = (
    "it is sound in itself, but not what was committed: the file of another shard, or of another store"
)
_CRC = 4
_END = 4096
"""Bytes that hold the index of a shard of up to 255 chunks and the CRC-32C of the chunk before it."""
_RESIDUE = 0x48674BC7
"""CRC-32C of any bytes that are followed by their CRC-32C."""


def readable(column: Column) -> bool:
    """Whether a column is stored in this way."""
    return is_raw(column)


def seal(column: Column, rows_per_shard: int, data: bytes) -> str:
    """What a commit says of a shard's file so that no other is taken for it, though it be as long and sound in itself.

    The CRC-32C that each chunk ends in, as hex digits; where Zarr reads the file, a digest of its end.
    """
    if not is_raw(column):
        return _digest(data)
    chunks = _index(_Bytes(data), "", rows_per_shard // rows_per_chunk(column, rows_per_shard))
    return b"".join(data[offset + length - _CRC : offset + length] for offset, length in chunks).hex()


def ends_as(parts: Parts, sealed: str) -> bool:
    """Whether a file that Zarr reads ends as the one that was sealed."""
    length = min(_END, parts.size)
    return _digest(parts.read(parts.size - length, length).tobytes()) == sealed


def _digest(data: bytes) -> str:
    """No CRC: that of a chunk with its own CRC at the end is one number for all."""
    return hashlib.sha256(data[-_END:]).hexdigest()[:16]


class _Bytes:
    """A file that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> UInt8[np.ndarray, " n"]:
        return np.frombuffer(self.data, np.uint8)[offset : offset + length]


def read_rows(
    floor: Floor,
    key: str,
    column: Column,
    rows: Int[np.ndarray, " m"],
    rows_per_shard: int,
    seals: Mapping[str, str],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Values of ascending rows of one shard (in ``out`` if given), every chunk that holds one checked as a whole.

    ``seals`` are those of the commit, by file, as far as it has them.

    Raises:
        Damaged: a chunk is missing, its checksum does not match, or it is not the one that was committed.
    """
    shard = int(rows[0]) // rows_per_shard
    file = "/".join([key, "c", str(shard), *("0" for _ in column.shape)])
    sealed = bytes.fromhex(seals.get(file, ""))
    size = rows_per_chunk(column, rows_per_shard)
    local = rows - shard * rows_per_shard
    values = np.empty((len(rows), *column.shape), column.dtype) if out is None else out
    with floor.parts(file) as parts:
        if parts is None:
            raise Damaged(f"{file}: the file is missing")
        index = _index(parts, file, rows_per_shard // size)
        chunks, starts = np.unique(local // size, return_index=True)
        for number, first, last in zip(chunks.tolist(), starts, [*starts[1:], len(rows)], strict=True):
            offset, length = index[number]
            data = _checked(parts, offset, length, file)
            if sealed and sealed[_CRC * number :][:_CRC] != data[-_CRC:].tobytes():
                raise Damaged(f"{file}: {NOT_THIS_ONE}")
            chunk = data[:-_CRC].view(column.dtype).reshape(size, *column.shape)
            # In range as they are; "clip" spares the copy that "raise" makes.
            np.take(chunk, local[first:last] - number * size, axis=0, out=values[first:last], mode="clip")
    return values


def _index(parts: Parts, file: str, chunks: int) -> list[list[int]]:
    """Offset and length of each chunk in the shard."""
    if chunks == 1:
        return [[0, parts.size]]
    length = 16 * chunks + _CRC
    data = _checked(parts, parts.size - length, length, file)[:-_CRC]
    found: list[list[int]] = data.view("<u8").reshape(chunks, 2).tolist()
    return found


def _checked(parts: Parts, offset: int, length: int, file: str) -> UInt8[np.ndarray, " n"]:
    """Bytes of the file, with the CRC-32C that they end in."""
    inside = offset >= 0 and _CRC <= length <= parts.size - offset
    data = parts.read(offset, length) if inside else np.empty(0, np.uint8)
    if len(data) != length or google_crc32c.value(data) != _RESIDUE:
        raise Damaged(f"{file}: a chunk is missing or its checksum does not match")
    return data
