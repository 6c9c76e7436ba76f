"""What a reader of an analysis has to know beside its results: what it lacks, and on what it was computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stores.analysis import ALL_CLASSES
from stores.errors import StoreError
from stores.machines import circumstances_of
from stores.provenance import Json

if TYPE_CHECKING:
    from stores.analyses import AnalysisHandle
    from stores.run import Run
    from stores.tables import Table

SELECTION, FAILED = "select", "failed"
"""The step of an analysis that chose its samples, and what that calls those that had failed."""
NAMED = 8
"""So many classes are named."""


def circumstances(run: Run, handle: AnalysisHandle) -> list[str]:
    """A sentence for each; none of an analysis of all samples, wholly searched, of relevance by one kind of machine.

    What differs between kinds of machines, `spray info` tells.
    """
    told = shortfalls(run, handle)
    try:
        table = run.table(str(handle.facts["relevance"]))
        told += [f"{table.name} {sentence}." for sentence in circumstances_of(table, details=False)]
    except (KeyError, StoreError):  # an analysis that says less, or damage, which a check tells
        pass
    return told


def shortfalls(run: Run, handle: AnalysisHandle) -> list[str]:
    """Those of them that say what it lacks."""
    told = [not_written(run, handle), not_searched(run, handle), of_other_samples(run, handle)]
    return [sentence for sentence in told if sentence]


def lacking(run: Run, handle: AnalysisHandle) -> list[str]:
    """The same, and where the search for findings stopped: for who takes the results elsewhere."""
    return [*shortfalls(run, handle), *filter(None, [not_finished(handle)])]


def not_written(run: Run, handle: AnalysisHandle) -> str:
    """Groups that the analysis was begun for and that are not there; "" where all are."""
    missing = handle.missing(handle.planned or [])
    if not missing:
        return ""
    if of_other_samples(run, handle):
        return f"Never written: {_groups(run, missing)}. Their samples are not those of then any more."
    return (
        f"Not written yet: {_groups(run, missing)}, of which nothing is said here. The command that made the analysis "
        "goes on with them."
    )


def not_searched(run: Run, handle: AnalysisHandle) -> str:
    """Groups that are there and were not when findings were searched; "" where there are none."""
    if not (unsearched := handle.unsearched):
        return ""
    return (
        f"Not searched for findings: {_groups(run, unsearched)}, written after the others were. `spray verify` "
        "searches and tests them."
    )


def not_finished(handle: AnalysisHandle) -> str:
    """Where the commands that find and test stopped before the end; "" where there is nothing to go on with.

    What was imported is what it is: nobody searches it unasked.
    """
    if handle.missing(handle.planned or []) or not handle.groups or handle.facts.get("imported"):
        return ""
    tested = handle.tested_groups
    if not handle.searched and not tested:
        return "Not searched for findings yet."
    done = handle.findings_provenance
    if tested and not (done and any(step.get("done") for step in done.steps)):
        return f"Tests of the findings were begun, and are not done ({len(tested)} of {len(handle.groups)} groups)."
    return ""


def of_other_samples(run: Run, handle: AnalysisHandle) -> str:
    """Where other samples have failed by now than when the analysis was made; "" where the same have."""
    select = next((step for step in handle.provenance.steps if step.get("name") == SELECTION), None)
    try:
        failed = failed_rows(run, run.table(str(handle.facts["relevance"])))
    except (KeyError, StoreError):
        return ""
    now, then = failed_samples(failed), select.get(FAILED) if select else None
    if now == then or select is None:
        return ""
    if not isinstance(then, dict):  # none had, or an early release did not say: its groups do
        since = sum(int(np.isin(handle.read(group).rows, failed).sum()) for group in handle.groups)
        if not since:
            return ""
        return f"{since:,} of its samples have failed since, and have no relevance any more."
    return (
        f"Made when {then['rows']:,} samples had failed, and others have now ({now['rows'] if now else 0:,}): `spray "
        "analyze` makes one of the samples as they are."
    )


def failed_samples(rows: Sequence[int]) -> dict[str, Json] | None:
    """How many samples have failed, and a digest of which; None where none has.

    It is part of what makes an analysis that one: of samples that come back it knows nothing.
    """
    digest = hashlib.sha256(np.array(rows, "<i8").tobytes()).hexdigest()[:16]
    return {"rows": len(rows), "digest": digest} if rows else None


def failed_rows(run: Run, table: Table) -> list[int]:
    """Samples that have failed, as such or in this table, ascending."""
    return sorted({*run.samples.failures, *table.failures})


def _groups(run: Run, groups: Sequence[int]) -> str:
    names = [run.classes[group] if group != ALL_CLASSES else "all classes" for group in groups[:NAMED]]
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    return f"{count} ({', '.join(names)}{more})"
