"""Relevance by one revision of the engine is not completed by another, whose numbers are others."""

from __future__ import annotations

from spray.engine import revision
from spray.engine.errors import AttributionError
from stores import Run
from stores.provenance import Json

ENTRY = "engine"


def stated() -> dict[str, Json]:
    """What the provenance of relevance says of the engine; nothing of the first revision, as in early releases."""
    return {ENTRY: revision.REVISION} if revision.REVISION > 1 else {}


def refuse_other(run: Run, name: str) -> None:
    """Refuse to go on with a table of relevance that another revision began.

    Raises:
        AttributionError: so it was.
    """
    if name not in run.tables():
        return
    table = run.table(name)
    entries = [step[ENTRY] for step in table.provenance.steps if ENTRY in step]
    if (then := entries[0] if entries else 1) == revision.REVISION:
        return
    done = table.committed
    release = table.facts(done[0]).get("libraries", {}).get("spray-audit") if done else None
    raise AttributionError(
        f"{run.path}: {name} was begun by revision {then} of SpRAy's engine"
        f"{f' (spray-audit {release})' if release else ''}, and this is revision {revision.REVISION}, whose numbers "
        "are others. What is committed was not changed, and is read as it is: complete it with that release"
        f"{f' (pip install spray-audit=={release})' if release else ''}, or write to a new store."
    )
