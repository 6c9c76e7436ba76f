"""Versions of a whole store: nothing of it is changed where any part was written by a later release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stores.errors import Damaged, Unreadable
from stores.floor import Floor
from stores.names import is_key
from stores.schema import parsed, refuse_unknown

DOCUMENT = "zarr.json"
ANALYSES, COMMITS, VERDICTS = "analyses", "ledger/commits", "verdicts"
OWNERS = ("relevance", ANALYSES)


def refuse_newer(floor: Floor, *, everything: bool = False) -> None:
    """Refuse a store of which tables, analyses, or the first or last thing added to each are of an unknown version.

    With ``everything``, any element. What cannot be read at all has no version, and is for others to find.

    Raises:
        UnknownVersion: there is one.
    """
    for key in _everything(floor) if everything else _foremost(floor):
        try:
            attributes = _attributes(floor.read(key))
        except (Damaged, Unreadable):
            continue
        record = attributes.get("spray") if isinstance(attributes, Mapping) else None
        if isinstance(record, Mapping) and "type" in record:
            refuse_unknown(record, f"{floor.url}: {key}")


def _foremost(floor: Floor) -> Iterator[str]:
    """The documents of tables and analyses, the first and last commit of each, and the last verdict."""
    owners = ["samples"]
    for folder in OWNERS:
        owners += [f"{folder}/{name}" for name in floor.names(folder) if is_key(name) and name != DOCUMENT]
    for owner in owners:
        yield f"{owner}/{DOCUMENT}"
        for part in (owner, f"{owner}/findings") if owner.startswith(ANALYSES) else (owner,):
            yield from _ends(floor, f"{COMMITS}/{part}")
    yield from _ends(floor, VERDICTS)


def _ends(floor: Floor, folder: str) -> set[str]:
    """The first and the last record of a folder, by number."""
    names = [name for name in floor.names(folder) if is_key(name) and name.endswith(".json")]
    names.sort(key=lambda name: (len(name), name))
    return {f"{folder}/{name}" for name in (names[:1] + names[-1:])}


def _everything(floor: Floor) -> list[str]:
    documents = [key for key in floor.sizes("") if key.rpartition("/")[2] == DOCUMENT]
    records = [key for folder in (COMMITS, VERDICTS) for key in floor.sizes(folder)]
    keys = {*documents, *(key for key in records if key.endswith(".json"))}
    return sorted(key for key in keys if all(map(is_key, key.split("/"))))


def _attributes(document: bytes | None) -> object:
    """What a Zarr group says, or a record that is no part of one; None where it cannot be read."""
    try:
        content = parsed(document or b"")
    except ValueError:
        return None
    return content.get("attributes", content) if isinstance(content, Mapping) else None
