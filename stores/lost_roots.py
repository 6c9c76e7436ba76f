"""A root that cannot be read: the copy it is written again from, and what the tables beside it tell of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from stores.errors import Damaged, StoreError, Unreadable
from stores.floor import Floor
from stores.ledger import COMMITS, create_once
from stores.roots import COPY, ROOT, content_in, copied, run_digest
from stores.tables import table_keys

ASIDE = "ledger/damaged/run.json"
"""Where repair leaves what was in the place of a root, if it can be read at all."""


def keep_copy(floor: Floor) -> None:
    """Write the bytes of the root a second time, where a run of an early release, or one just made, has no copy."""
    if floor.size(COPY) is None and (document := floor.read(ROOT)) is not None:
        create_once(floor, COPY, document)


def was_store(floor: Floor) -> bool:
    """Whether a place without a root that can be read was a store."""
    return bool(floor.names(COMMITS)) or floor.size(COPY) is not None


def fits(floor: Floor, samples: int, digest: str) -> bool:
    """Whether no table is of another run than the one of so many samples and with this digest."""
    return all(table["rows"] == samples and table.get("run", digest) == digest for table in _tables(floor))


def sound_copy(floor: Floor) -> bytes | None:
    """The root's copy; None where there is none, it cannot be read, or a table beside it is of another run."""
    content = copied(floor)
    if content is None or not fits(floor, content["samples"], run_digest(content)):
        return None
    return floor.read(COPY)


def is_foreign(floor: Floor, samples: int, digest: str) -> bool:
    """Whether the root, which says this, is known to be another run's: a table is not of its run, and the copy fits."""
    return not fits(floor, samples, digest) and sound_copy(floor) is not None


def told_beside(floor: Floor) -> tuple[dict[str, Any], str]:
    """What a root would say, and its digest, as far as the copy or else the first table tells.

    Tables know neither the names of the classes nor the provenance of the run: both are empty then.
    """
    content = copied(floor)
    if content is not None and sound_copy(floor) is not None:
        return content, run_digest(content)
    table: dict[str, Any] = next(_tables(floor), {"rows": 0})
    return {"classes": (), "samples": table["rows"], "provenance": {}}, table.get("run", "")


def take_away(floor: Floor) -> None:
    """Remove what is in the root's place, so that the command that made the store writes it anew."""
    _set_aside(floor)
    floor.delete(ROOT)


def restore(floor: Floor, copy: bytes) -> None:
    """Write the root again."""
    _set_aside(floor)
    floor.put(ROOT, copy)


def _set_aside(floor: Floor) -> None:
    """Keep what is in the root's place, as far as it can be read."""
    with suppress(StoreError):
        if document := floor.read(ROOT):
            floor.put(ASIDE, document)


def _tables(floor: Floor) -> Iterator[dict[str, Any]]:
    """What the documents of the tables say that can be read."""
    for key in table_keys(floor):
        with suppress(Damaged, Unreadable):
            content = content_in(floor.read(f"{key}/{ROOT}") or b"", "table", f"{floor.url}/{key}")
            if content is not None:
                yield content
