"""What differs between two records, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

TOLD = 4
"""At most so many differences are told."""


def difference(stored: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    """The first entries that differ, each by its way through the record, such as provenance.steps.Attribution.grid."""
    found = list(_differences(stored or {}, json.loads(json.dumps(wanted)), "")) or ["order"]
    found.sort(key=lambda text: not text.startswith("provenance"))  # how it was made explains the rest
    more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return "; ".join(found[:TOLD]) + more


def _differences(stored: Any, wanted: Any, where: str) -> Iterator[str]:
    old, new = _by_name(stored), _by_name(wanted)
    if old is None or new is None:
        if stored != wanted:
            yield f"{where} (stored {_short(stored)}, now {_short(wanted)})"
        return
    for key in {**new, **old}:
        if not (
            key == "id" and isinstance(new.get(key), str)
        ):  # the digest of the rest tells nobody anything
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)


def _by_name(value: Any) -> Mapping[str, Any] | None:
    """A record's entries; also those of a list of records that have names, all different."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list) and value and all(isinstance(e, Mapping) and "name" in e for e in value):
        named = {str(entry["name"]): entry for entry in value}
        return named if len(named) == len(value) else None
    return None


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
