"""Provenance: what was computed, with which parameters, from what. Only what changes numbers enters an id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

TUNING = {"tuning": True}
"""Field metadata of parameters that never change a number (block sizes, workers): left out of every id."""


def describe(step: object) -> dict[str, Json]:
    """Name and every field of a step, a frozen dataclass, ready for JSON.

    The name is the step's ``name`` (or its class name); fields marked ``metadata=TUNING`` are left out.

    Raises:
        TypeError: the step is no dataclass, or a field has no JSON form.
    """
    if not dataclasses.is_dataclass(step) or isinstance(step, type):
        raise TypeError(
            f"cannot describe {step!r}: a step is an instance of a frozen dataclass, whose fields are all of "
            "its parameters. Decorate its class with @dataclass(frozen=True)."
        )
    fields = {
        field.name: to_json(getattr(step, field.name))
        for field in dataclasses.fields(step)
        if not field.metadata.get("tuning", False)
    }
    return {"name": getattr(step, "name", type(step).__name__), **fields}


def to_json(value: Any) -> Json:
    """JSON form of a parameter: steps are described, tuples become lists, numpy scalars become numbers.

    Arrays and tensors become shape, type and a digest of their values.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((to_json(entry) for entry in value), key=canonical_json)
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return to_json(value.item())
    if hasattr(value, "__array__"):
        return _array(value)
    raise TypeError(
        f"{value!r} of type {type(value).__name__} has no JSON form, so it cannot stand in a provenance "
        "record. Use numbers, strings, tuples, mappings, arrays, or a frozen dataclass."
    )


def _array(value: Any) -> Json:
    """Shape, type and SHA-256 (of the values in C order, little-endian) of a numpy array or a torch tensor."""
    array = np.ascontiguousarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.hasobject:
        raise TypeError(
            f"an array of {array.dtype} has no JSON form, so it cannot stand in a provenance record. Use an array of "
            "numbers, or a tuple."
        )
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def canonical_json(value: Json) -> str:
    """One spelling per value: keys sorted, no spaces, non-ASCII kept; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Provenance:
    """The steps that made a result, in order, and the ids of the results they started from."""

    steps: tuple[Mapping[str, Json], ...]
    parents: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """SHA-256 (hex) of the canonical JSON: equal provenance, equal id."""
        text = canonical_json({"steps": list(self.steps), "parents": list(self.parents)})
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _repr_html_(self) -> str:
        from stores.shown import provenance_html

        return provenance_html(self)

    def to_json(self) -> dict[str, Json]:
        """The record as it stands in a store."""
        return {"id": self.id, "steps": [dict(step) for step in self.steps], "parents": list(self.parents)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Provenance:
        """The inverse of ``to_json``."""
        return cls(tuple(record["steps"]), tuple(record["parents"]))
