"""Failed samples tried again: a disk that was away for a minute makes failed rows, which nothing else does again."""

from __future__ import annotations

import functools

from spray.attribution.quarantine import POISON
from spray.attribution.stage import NO_DIFFERENCE, NOT_FINITE, UNEXPLAINABLE, Stage
from spray.attribution.tables import Tables
from spray.blocks import BlockReader
from spray.data import input_digest
from stores import made_from

FOR_GOOD = (UNEXPLAINABLE, NO_DIFFERENCE, NOT_FINITE, POISON)
"""Not tried again: what the model makes of a sample, and samples that would end this process, too."""


def take_back_failed(stage: Stage, tables: Tables) -> list[int]:
    """Take back the shards with samples that failed and can be read by now; returns their numbers.

    Where a sample failed, of every table of the store, since all are made from the same samples: those of other
    composites are then to be completed by the commands that made them. Where it is only the relevance of a sample that
    is there, just that table's: its pixels have to be those of the sample then. What cannot be had now either is left
    as it is, and so are tables of other composites, which other commands try again. The relevance is taken back first,
    so that a store in which this was interrupted can be gone on with.

    Raises:
        stores.StoreBusy: another process is writing one of the shards; those before it are taken back.
    """
    reader = BlockReader(stage.data, 1, stage.filler, stage.classes)
    samples = tables.samples

    @functools.cache
    def pixels(row: int) -> int | None:
        """The digest of a sample that can be read now."""
        block = reader.block([row])
        return None if block.failed else input_digest(block.inputs[0])

    @functools.cache
    def has_come_back(row: int) -> bool:
        return pixels(row) is not None

    def fits_again(row: int) -> bool:
        return pixels(row) == int(samples.read(made_from.COLUMN, [row])[0])

    def open_to_retry(failures: dict[int, str]) -> list[int]:
        return [row for row, reason in failures.items() if not reason.endswith(FOR_GOOD)]

    others = [tables.run.table(name) for name in tables.run.tables() if name != samples.name]
    known = {table.name: table for table in tables.relevance.values()}
    taken = set()
    for shard in samples.committed:
        failed = samples.failed_in(shard)
        if any(map(has_come_back, open_to_retry(failed))):
            for table in [*(known.get(table.name, table) for table in others), samples]:
                table.take_back(shard)
            taken.add(shard)
            continue
        for table in known.values():
            if shard in table.missing():
                continue
            only_here = {row: why for row, why in table.failed_in(shard).items() if row not in failed}
            if any(map(fits_again, open_to_retry(only_here))):
                table.take_back(shard)
                taken.add(shard)
    return sorted(taken)
