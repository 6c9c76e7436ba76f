"""The tables of one attribution: the samples, and the relevance of each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stores
from spray.attribution.display import Display
from spray.attribution.targets import Target
from stores import Run, Table


@dataclass(frozen=True)
class Tables:
    """Where the results go."""

    run: Run
    samples: Table
    relevance: Mapping[Target, Table]

    def missing(self) -> dict[int, range]:
        """Shards that any table lacks, with their rows."""
        absent = {shard for table in self._all for shard in table.missing()}
        return {shard: self.samples.shards[shard] for shard in sorted(absent)}

    def failures(self) -> set[int]:
        """Rows that have failed so far, in any table."""
        return {row for table in self._all for row in table.failures}

    @property
    def _all(self) -> tuple[Table, ...]:
        return (self.samples, *self.relevance.values())


def stored_block(out: str | Path) -> int | None:
    """The block that the tables of the store at ``out`` were computed with; None where there are none yet.

    Every table tells, so that it is known where the document of one was lost.
    """
    blocks = [step.get("block") for step in _steps(out, "compute")]
    return next((block for block in blocks if isinstance(block, int)), None)


def stored_display(out: str | Path) -> Display | None:
    """How the samples of the store at ``out`` are shown; None where there are none yet.

    Where the normalisation is not known this was found from the first samples that could be read then: others may be
    readable now.
    """
    shown = [step["display"] for step in _steps(out, "samples")]
    return Display(tuple(shown[0]["scale"]), tuple(shown[0]["offset"])) if shown else None


def stored_threads(out: str | Path) -> int | None:
    """Torch's threads when the first shard of the store at ``out`` was computed; None without one, or on GPUs."""
    for table in _tables(out):
        for shard in table.committed[:1]:
            threads = table.facts(shard).get("threads")
            return threads if isinstance(threads, int) else None
    return None


def _steps(out: str | Path, name: str) -> list[Mapping[str, Any]]:
    """The steps of this name in the provenance of the tables of the store at ``out``."""
    return [step for table in _tables(out) for step in table.provenance.steps if step.get("name") == name]


def _tables(out: str | Path) -> list[Table]:
    """Those of the store at ``out``; none where there is no store yet."""
    try:
        run = stores.open(out)
    except stores.NotAStore:
        return []
    return [table for table in map(run.table_at, run.table_keys()) if table is not None]
