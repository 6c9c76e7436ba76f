"""Versions of a whole store: nothing of it is changed where any part was written by a later release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stores.errors import Damaged
from stores.floor import Floor
from stores.names import is_key
from stores.schema import parsed, refuse_unknown

DOCUMENT = "zarr.json"
OWNERS = ("relevance", "analyses")


def refuse_newer(floor: Floor, *, everything: bool = False) -> None:
    """Refuse a store with a table or an analysis of an unknown version; with ``everything``, with any such element.

    What cannot be read at all has no version, and is for others to find.

    Raises:
        UnknownVersion: there is one.
    """
    for key in _everything(floor) if everything else _owners(floor):
        try:
            attributes = _attributes(floor.read(key))
        except Damaged:
            continue
        record = attributes.get("spray") if isinstance(attributes, Mapping) else None
        if isinstance(record, Mapping) and "type" in record:
            refuse_unknown(record, f"{floor.url}: {key}")


def _owners(floor: Floor) -> Iterator[str]:
    yield f"samples/{DOCUMENT}"
    for folder in OWNERS:
        yield from (
            f"{folder}/{name}/{DOCUMENT}" for name in floor.names(folder) if is_key(name) and name != DOCUMENT
        )


def _everything(floor: Floor) -> list[str]:
    documents = [key for key in floor.sizes("") if key.rpartition("/")[2] == DOCUMENT]
    records = [key for folder in ("ledger/commits", "verdicts") for key in floor.sizes(folder)]
    keys = {*documents, *(key for key in records if key.endswith(".json"))}
    return sorted(key for key in keys if all(map(is_key, key.split("/"))))


def _attributes(document: bytes | None) -> object:
    """What a Zarr group says, or a record that is no part of one; None where it cannot be read."""
    try:
        content = parsed(document or b"")
    except ValueError:
        return None
    return content.get("attributes", content) if isinstance(content, Mapping) else None
