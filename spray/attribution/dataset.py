"""The attribution stage: relevance of every sample of a data set, into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from spray.attribution.stage import Attribution, Stage, missing_shards
from spray.data import as_audit_data
from spray.progress import Report, silent
from stores import Run

__all__ = ["Attribution", "attribute_dataset"]


def attribute_dataset(
    model: nn.Module,
    dataset: object,
    out: str | Path,
    attribution: Attribution | None = None,
    *,
    device: str | torch.device = "cpu",
    client: Any = None,
    report: Report = silent,
) -> Run:
    """Compute and store the relevance of every sample; goes on where an earlier run stopped.

    Writes the tables ``samples`` and ``relevance/<composite>`` of the store at ``out``. A sample that
    cannot be read, whose label is out of range or whose relevance is not finite becomes a failed row with
    its reason.

    Args:
        model: in evaluation mode; nothing in it is changed, it is only moved to ``device``.
        dataset: ``AuditData``, or a map-style torch data set of ``(input, label)``.
        client: a ``distributed.Client``: its workers do the work (``spray.attribution.cluster``), and the
            store comes out the same.

    Raises:
        AttributionError: no sample can be read, the data set gives other pixels each time or than before, classes
            and outputs do not fit, or the model is in no state to be explained.
        stores.StoreError: the store at ``out`` holds results of another model, data set or configuration.
        spray.engine.UnsupportedOperation: the model has an operation that the composite has no rule for.
    """
    step = attribution or Attribution()
    if client is not None:
        from spray.attribution.cluster import attribute_on

        return attribute_on(client, model, dataset, out, step, device=str(device), report=report)
    stage = Stage(model.to(device), as_audit_data(dataset), step, torch.device(device))
    run, samples, relevance = stage.tables(out)
    todo = missing_shards(samples, relevance)
    finished = run.n - sum(map(len, todo.values()))
    report(finished, run.n, "attribute")

    def done(rows: int) -> None:
        nonlocal finished
        finished += rows
        report(finished, run.n, "attribute")

    for shard, blocks in stage.shards(todo):
        stage.write(shard, blocks, samples, relevance, done)
    return run
