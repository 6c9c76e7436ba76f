"""Failed samples tried again: a disk that was away for a minute makes failed rows, which nothing else does again."""

from __future__ import annotations

from spray.attribution.stage import UNEXPLAINABLE, Stage
from spray.attribution.tables import Tables
from spray.blocks import BlockReader

POISON = "every process that worked on it died"
FOR_GOOD = (UNEXPLAINABLE, POISON)
"""Not so: what the model makes of a sample, and samples that would end this process, too."""


def take_back_failed(stage: Stage, tables: Tables) -> list[int]:
    """Take back the shards with samples that failed and can be read by now; returns their numbers.

    Of every table of the store, since all are made from the same samples: those of other composites are then to be
    completed by the commands that made them. What cannot be read now either is left as it is. The relevance is taken
    back first, so that a store in which this was interrupted can be gone on with.

    Raises:
        stores.StoreBusy: another process is writing one of the shards; those before it are taken back.
    """
    reader = BlockReader(stage.data, 1, stage.filler, stage.classes)
    done = set(range(len(tables.samples.shards))).difference(tables.samples.missing())

    def has_come_back(row: int, reason: str) -> bool:
        return not reason.endswith(FOR_GOOD) and not reader.block([row]).failed

    shards = [
        shard
        for shard in sorted(done)
        if any(has_come_back(row, reason) for row, reason in tables.samples.failed_in(shard).items())
    ]
    others = [tables.run.table(name) for name in tables.run.tables() if name != tables.samples.name]
    known = {table.name: table for table in tables.relevance.values()}
    for shard in shards:
        for table in [known.get(table.name, table) for table in others]:
            table.take_back(shard)
        tables.samples.take_back(shard)
    return shards
