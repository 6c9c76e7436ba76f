"""The attribution stage: relevance of every sample of a data set, into the store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spray.attribution.circumstances import threads_as_begun
from spray.attribution.retry import take_back_failed
from spray.attribution.stage import Stage, Written, prepared
from spray.attribution.step import Attribution
from spray.attribution.tables import Tables
from spray.data import as_audit_data
from spray.engine.errors import AttributionError
from spray.journal import Journal, journal
from spray.progress import Report, silent
from stores import Run, StoreBusy

WHAT = "attribute"


def attribute_dataset(
    model: nn.Module,
    dataset: object,
    out: str | Path,
    attribution: Attribution | None = None,
    *,
    device: str | torch.device = "cpu",
    client: Any = None,
    retry_failed: bool = False,
    report: Report = silent,
) -> Run:
    """Compute and store the relevance of every sample; goes on where an earlier run stopped.

    Writes the table ``samples`` and one ``relevance/<composite>`` for each target into the store at ``out``, and a log
    beside it (``spray.journal``). A sample that cannot be read, whose label is out of range or whose relevance is not
    finite becomes a failed row with its reason. Where memory runs out the batch is halved, and the commit says so.

    Args:
        model: in evaluation mode; nothing in it is changed, it is only moved to ``device``.
        dataset: ``AuditData``, or a map-style torch data set of ``(input, label)``.
        client: a ``distributed.Client``: its workers do the work (``spray.attribution.cluster``), and the
            store comes out the same.
        retry_failed: whether shards with samples that failed, and can be read by now, are computed anew. Analyses that
            were made before keep to the samples that they were made of.

    Raises:
        AttributionError: no sample can be read, the data set gives other pixels each time or than before, classes
            and outputs do not fit, not even one sample fits into memory, or the model is in no state to be explained.
        stores.StoreError: the store at ``out`` holds results of another model, data set or configuration.
        stores.StoreBusy: another process is writing some of the shards; all others are committed.
        spray.engine.UnsupportedOperation: the model has an operation that the composite has no rule for.
    """
    step = attribution or Attribution()
    if client is not None:
        from spray.attribution.cluster import attribute_on

        return attribute_on(
            client, model, dataset, out, step, device=str(device), retry_failed=retry_failed, report=report
        )
    where = torch.device(device)
    with threads_as_begun(out, where), journal(out, WHAT, device=str(where)) as log:
        stage, tables = prepared(model.to(where), as_audit_data(dataset), step, where, out)
        retried = take_back_failed(stage, tables) if retry_failed else []
        todo = tables.missing()
        log("plan", **_facts(stage, tables, todo), retried=retried)
        tally = Tally(tables, todo, report)
        with _readers_told(tally):
            _write(stage, tables, todo, tally, log)
    return tables.run


def attribute_share(
    model: nn.Module,
    dataset: object,
    out: str | Path,
    attribution: Attribution | None = None,
    *,
    share: int,
    of: int,
    device: str = "cpu",
    report: Report = silent,
) -> Run:
    """Compute every ``of``-th shard from number ``share`` on: one of several processes on the same store.

    Start ``of`` processes with shares 0, 1, …; each can be stopped and started again.

    Raises:
        AttributionError: ``share`` is not below ``of``; otherwise as ``attribute_dataset``.
    """
    if not 0 <= share < of:
        raise AttributionError(f"share {share} of {of}: shares go from 0 to {of - 1}.")
    where, step = torch.device(device), attribution or Attribution()
    told = {"device": str(where), "share": f"{share}::{of}"}
    with threads_as_begun(out, where), journal(out, WHAT, **told) as log:
        stage, tables = prepared(model.to(where), as_audit_data(dataset), step, where, out, sharing=of)
        mine = range(share, len(tables.samples.shards), of)
        todo = {shard: rows for shard, rows in tables.missing().items() if shard in mine}
        log("plan", **_facts(stage, tables, todo))
        tally = Tally(tables, todo, report, total=sum(len(tables.samples.shards[shard]) for shard in mine))
        with _readers_told(tally):
            _write(stage, tables, todo, tally, log)
    return tables.run


def _write(stage: Stage, tables: Tables, todo: dict[int, range], tally: Tally, log: Journal) -> None:
    """Write shards. One that another process is writing is put off to the end, and then left to it.

    Raises:
        stores.StoreBusy: some were left; all others are committed.
    """
    for last in (False, True):
        held: dict[int, StoreBusy] = {}
        for shard, blocks in stage.shards(todo):
            try:
                written = stage.write(shard, blocks, tables, tally.add)
            except StoreBusy as error:
                held[shard] = error
                continue
            tell(log, written)
            if written is None:  # another process has written it since it was planned
                tally.add(len(todo[shard]), 0)
        if last and held:
            log("left", shards=list(held), reason=str(next(iter(held.values()))))
            raise StoreBusy(
                f"{len(held)} of {len(tables.samples.shards)} shards were left to others who are writing them, "
                f"{', '.join(map(str, held))}; what else there was to do is committed. {next(iter(held.values()))}"
            )
        todo = {shard: todo[shard] for shard in held}
        if not todo:
            return


@contextlib.contextmanager
def _readers_told(tally: Tally) -> Iterator[None]:
    """What torch says, at whatever line is at work then, when a process that reads ahead has died.

    Raises:
        AttributionError: one has.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise AttributionError(
            f"A process that reads samples ahead died ({str(error).strip().splitlines()[0]}) after {tally.done} of "
            f"{tally.total} samples: one of the next ends the process that decodes it, or memory ran out. What is "
            "committed is safe. The same command with --cluster local:1 finds samples that end processes, and sets "
            "them apart; with fewer --workers less memory is taken."
        ) from error


class Tally:
    """Samples that are done, and that failed, told as they grow."""

    def __init__(
        self, tables: Tables, todo: dict[int, range], report: Report, total: int | None = None
    ) -> None:
        self.total = tables.run.n if total is None else total
        self.done = self.total - sum(map(len, todo.values()))
        self.failed = sum(not any(row in rows for rows in todo.values()) for row in tables.failures())
        self.report = report
        self.add(0, 0)

    def add(self, rows: int, failed: int) -> None:
        """So many more."""
        self.done += rows
        self.failed += failed
        self.report(self.done, self.total, WHAT, self.failed)


def tell(log: Journal, written: Written | None) -> None:
    """A line about a shard that was committed, if one was."""
    if written is not None:
        log("shard", **asdict(written))


def _facts(stage: Stage, tables: Tables, todo: dict[int, range]) -> dict[str, Any]:
    """What there is to do, for the log."""
    rows = sum(map(len, todo.values()))
    return {
        "block": stage.step.block,
        "tables": [table.name for table in tables.relevance.values()],
        "shards": len(todo),
        "rows": rows,
        "resumed": rows < tables.run.n,
    }
