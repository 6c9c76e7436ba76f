"""The tables of one attribution: the samples, and the relevance of each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import stores
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
    try:
        run = stores.open(out)
    except stores.NotAStore:
        return None
    tables = filter(None, map(run.table_at, run.table_keys()))
    steps = [step for table in tables for step in table.provenance.steps if step.get("name") == "compute"]
    return next((block for step in steps if isinstance(block := step.get("block"), int)), None)
