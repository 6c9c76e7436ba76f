"""A root that cannot be read: the copy it is written again from, and what the tables beside it tell of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from stores.errors import Damaged, StoreError, Unreadable
from stores.floor import Floor
from stores.ledger import COMMITS, create_once
from stores.problems import Done, Problem
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


def copy_problems(floor: Floor, samples: int, digest: str, done: Done) -> Iterator[Problem]:
    """Of the copy of a root that is there, and says this; one of an early release has none."""
    try:
        copy, root = floor.read(COPY), floor.read(ROOT)
    except Unreadable as error:
        yield Problem(COPY, "metadata", str(error))
        return
    except Damaged:
        copy, root = b"", floor.read(ROOT)
    if copy is None or copy == root:
        return
    if copied(floor) is not None and not fits(floor, samples, digest):
        told = f"is that of another run than {ROOT} beside it: put the right one in the place of the other"
        yield Problem(COPY, "metadata", told)
        return
    problem = Problem(COPY, "metadata", f"the copy of {ROOT} is altered, or that of another run")
    yield done(problem, partial(floor.put, COPY, root or b""))


def root_problem(floor: Floor, why: StoreError, done: Done) -> Problem:
    """Of a root that is lost: written again from its copy, or removed for the command that made the store."""
    if isinstance(why, Unreadable):
        return Problem(ROOT, "metadata", str(why))
    if (copy := sound_copy(floor)) is not None:
        problem = Problem(ROOT, "metadata", f"{why} Its copy, {COPY}, is sound.")
        return done(problem, partial(restore, floor, copy))
    told = (
        f"{why} It has no copy: the command that made the store writes it anew, once repair has removed it."
    )
    return done(Problem(ROOT, "metadata", told, redo=True), partial(take_away, floor))


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
