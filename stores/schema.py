"""The schema's version, and what a column of a table is. The format in prose: SCHEMA.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import google_crc32c
import numpy as np

from stores.errors import Damaged, StoreError, UnknownVersion
from stores.provenance import Json, canonical_json, to_json

VERSION = 1
"""Version of the format. A reader takes the versions it knows (``READABLE``) and refuses every other."""
READABLE = frozenset({1})

Encoding = Literal["plain", "scaled_float16", "utf8"]
_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "str")


@dataclass(frozen=True)
class Column:
    """One quantity per sample.

    ``shape`` and ``axes`` are those of one row, such as (14, 14) and ("y", "x"). ``scaled_float16`` keeps
    float32 maps at half the bytes, each row scaled by a power of two; ``utf8`` is text (dtype "str", any
    Python string comes back exactly). ``missing`` says that NaN is a value like any other, "not known"; in
    every other column a row with a NaN or an infinity is a failed row. ``keep`` says that failed rows keep
    their value (what a sample is called, what it was labelled) instead of the column's fill.

    Raises:
        StoreError: dtype, encoding or axes make no sense together.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    encoding: Encoding = "plain"
    attrs: Mapping[str, Json] = field(default_factory=dict)
    missing: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        object.__setattr__(self, "axes", tuple(self.axes))
        problem = self._problem()
        if problem:
            raise StoreError(f"column {self.name!r}: {problem}")

    def _problem(self) -> str | None:
        if self.dtype not in _DTYPES:
            return f"dtype {self.dtype!r} cannot be stored; use one of {', '.join(_DTYPES)}."
        if self.encoding not in get_args(Encoding):
            return f"encoding {self.encoding!r} is unknown; use one of {', '.join(get_args(Encoding))}."
        if len(self.shape) != len(self.axes) or any(length < 1 for length in self.shape):
            return f"shape {self.shape} needs one positive length per axis, and the axes are {self.axes}."
        if (self.dtype == "str") != (self.encoding == "utf8"):
            return f"text has dtype 'str' and encoding 'utf8', got {self.dtype!r} and {self.encoding!r}."
        if self.encoding == "utf8" and self.shape:
            return "text is one string per row, so shape and axes must be empty."
        if self.encoding == "scaled_float16" and self.dtype != "float32":
            return f"scaled_float16 reads back as float32, so the dtype must say so, not {self.dtype!r}."
        if self.missing and not self.dtype.startswith("float"):
            return f"only floating-point columns can have missing=True, not {self.dtype!r}."
        return None

    @property
    def fill(self) -> Any:
        """What a failed row reads as: NaN, −1, 0 (unsigned), False or ""."""
        if self.dtype == "str":
            return ""
        kind = np.dtype(self.dtype).kind
        return {"f": float("nan"), "i": -1, "u": 0, "b": False}[kind]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory; for text a guess."""
        if self.dtype == "str":
            return 64
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Json]:
        """The column as it stands in its table's metadata."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "axes": list(self.axes),
            "encoding": self.encoding,
            "attrs": to_json(dict(self.attrs)),
            "missing": self.missing,
            "keep": self.keep,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Column:
        """The inverse of ``to_json``.

        Raises:
            UnknownVersion: it says what this reader does not know: an encoding, a dtype, or a member.
        """
        try:
            return cls(**{**record, "shape": tuple(record["shape"]), "axes": tuple(record["axes"])})
        except (StoreError, TypeError) as error:
            raise UnknownVersion(
                f"the table is of a later release, or of none: {error} The store was left untouched: upgrade "
                "spray-audit to read it."
            ) from error


def sample_columns(
    classes: int,
    *,
    thumbnail: tuple[int, int, int] | None = None,
    mask: tuple[int, ...] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Column]:
    """The columns of the table "samples".

    ``thumbnail`` is (height, width, channels), ``mask`` the grid (y, x) of the objects; ``metadata`` maps names to
    dtypes and becomes columns ``meta.<name>``, floating-point ones with NaN for "not known".
    """
    columns = [
        Column("id", "str", encoding="utf8", keep=True),
        Column("label", "int64", keep=True),
        Column("prediction", "int64"),
        Column("logits", "float32", (classes,), ("class",)),
    ]
    if thumbnail is not None:
        columns.append(Column("thumbnail", "uint8", thumbnail, ("y", "x", "channel")))
    if mask is not None:
        columns.append(Column("mask", "float32", mask, ("y", "x"), missing=True))
    for name, dtype in (metadata or {}).items():
        encoding: Encoding = "utf8" if dtype == "str" else "plain"
        columns.append(
            Column(f"meta.{name}", dtype, encoding=encoding, missing=dtype.startswith("float"), keep=True)
        )
    return columns


def relevance_columns(
    place: tuple[int, int],
    *,
    full: tuple[int, int, int] | None = None,
    layers: Mapping[str, tuple[int, ...]] | None = None,
    checks: Sequence[str] = (),
    full_dtype: Literal["scaled_float16", "float32"] = "scaled_float16",
) -> list[Column]:
    """The columns of a table "relevance/<method>".

    ``place`` is the grid (y, x) of the pooled maps, ``full`` the input's (channel, y, x) where full maps are
    kept. ``layers`` maps a layer's name to its channels (c,), giving "<layer>.channel", or to (c, y, x),
    giving "<layer>.place" as well. ``checks`` are per-row figures beyond start, sum, absolute and absorbed.
    """
    columns = [Column("input.place", "float32", place, ("y", "x"))]
    if full is not None:
        encoding: Encoding = "plain" if full_dtype == "float32" else "scaled_float16"
        columns.append(Column("input.full", "float32", full, ("channel", "y", "x"), encoding))
    for layer, shape in (layers or {}).items():
        columns.append(Column(f"{layer}.channel", "float32", shape[:1], ("channel",)))
        if len(shape) == 3:
            columns.append(Column(f"{layer}.place", "float32", shape[1:], ("y", "x")))
    figures = dict.fromkeys(("start", "sum", "absolute", "absorbed", *checks))
    columns += [Column(name, "float64") for name in figures]
    columns.append(Column("target", "int64"))
    return columns


def crc32c(data: bytes) -> str:
    """CRC-32C of some bytes, eight hex digits."""
    return f"{google_crc32c.value(data):08x}"


def parsed(data: bytes | str) -> Any:
    """JSON from a file of whatever content.

    Raises:
        ValueError: it is none, or nested so deeply that nobody wrote it in good faith.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def element(kind: str, content: Mapping[str, Json]) -> dict[str, Json]:
    """A stored element as JSON: its type, the version, what it says, and a CRC-32C over all of that.

    Raises:
        StoreError: a number in it is NaN or infinite.
    """
    record = {"type": kind, "version": VERSION, **content}
    return {"spray": {**record, "crc32c": _record_crc(record)}}


def content_of(attributes: Any, kind: str, where: str) -> dict[str, Any] | None:
    """What an element says, or None if it is not of that type.

    Raises:
        UnknownVersion: it is of that type but not of a version that this reader knows.
        Damaged: it is not what was written.
    """
    record = attributes.get("spray") if isinstance(attributes, Mapping) else None
    if not isinstance(record, Mapping) or record.get("type") != kind:
        return None
    refuse_unknown(record, where)
    stated = {key: value for key, value in record.items() if key != "crc32c"}
    if record.get("crc32c") != _record_crc(stated):
        raise Damaged(f"{where}: the {kind} is not what was written (its checksum does not match).")
    return {key: value for key, value in stated.items() if key not in ("type", "version")}


def refuse_unknown(record: Mapping[str, Any], where: str) -> None:
    """Refuse an element, of whatever type, that is not of a version known here.

    Raises:
        UnknownVersion: so it is.
    """
    version = record.get("version")
    if type(version) is not int or version not in READABLE:  # True and 1.0 equal 1
        raise UnknownVersion(
            f"{where}: the {record.get('type')} has format version {version!r}; this reader knows "
            f"{', '.join(map(str, sorted(READABLE)))}. The store was left untouched: upgrade spray-audit to read it."
        )


def _record_crc(record: Mapping[str, Json]) -> str:
    try:
        return crc32c(canonical_json(record).encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise StoreError(
            "a number that is NaN or infinite cannot stand in a store's metadata: write None where a "
            f"figure could not be computed. The record was {str(record)[:300]}"
        ) from error
