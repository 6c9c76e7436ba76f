"""The pixels of a store: what is added later has to be made from those that its samples were made from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from spray.attribution.tables import Tables
from spray.blocks import channels_last, pixel_digests, readable
from spray.data import AuditData, input_digest
from spray.engine.errors import AttributionError
from spray.models import answers_apart
from stores import Table, made_from

COMPARED_SAMPLES = 8
"""So many samples are looked at before the work begins: are their pixels always, and still, the same?"""
CHANGED = "its pixels are not those that the sample in the store was made from"
SAME_LOGITS = 1e-3
"""Relative difference up to which logits are the same: other threads and drivers round otherwise."""
OTHER_PIXELS = (
    "The store was made from other pixels under the same ids: the images or their preprocessing have changed. What is "
    "committed was not changed: give the images of then, or write to a new store."
)


def refuse_unsteady(data: AuditData) -> None:
    """Refuse data that change from visit to visit.

    Raises:
        AttributionError: so they do.
    """
    rows = range(min(COMPARED_SAMPLES, len(data.ids)))
    if pixel_digests(data, rows) != pixel_digests(data, rows):
        raise AttributionError(
            "The data set gives other pixels each time it is asked for the same sample. Give it the "
            "preprocessing of evaluation, without random augmentation."
        )


def refuse_changed(data: AuditData, samples: Table) -> None:
    """Refuse to go on with a store whose ids are the same but whose pixels are not, as its first samples tell.

    Raises:
        AttributionError: they have changed.
    """
    ok = samples.ok
    rows = [row for shard in samples.committed[:1] for row in samples.shards[shard] if ok[row]][
        :COMPARED_SAMPLES
    ]
    known = dict(zip(rows, samples.read(made_from.COLUMN, rows).tolist(), strict=True))
    if any(digest != known[row] for row, digest in pixel_digests(data, rows).items()):
        raise AttributionError(OTHER_PIXELS)


def refuse_another_model(model: nn.Module, data: AuditData, samples: Table, device: torch.device) -> None:
    """Refuse to go on with another model of the same class and weights, as the logits of the first samples tell.

    Those of them that can be read, and whose pixels are still the same. Whether an activation, a stride or a version of
    a library is another does not show in the weights.

    Raises:
        AttributionError: the logits are others.
    """
    rows = np.flatnonzero(samples.ok)[:COMPARED_SAMPLES].tolist()
    then = dict(zip(rows, samples.read(made_from.COLUMN, rows).tolist(), strict=True))
    read = [(row, item) for row in rows if not isinstance(item := readable(data, row), str)]
    found = [(row, item) for row, item in read if input_digest(item.input) == then[row]]
    if not found:
        return
    inputs = channels_last(torch.stack([item.input.float() for _, item in found])).to(device)
    difference = answers_apart(model, inputs, samples.read("logits", [row for row, _ in found]))
    if not difference <= SAME_LOGITS:
        raise AttributionError(
            "The store was made by a model that gives other logits for the same samples, though its class and its "
            f"weights are the same (relative difference {difference:.2g}). What is committed was not changed: give the "
            "model of then, or write to a new store."
        )


def unusable(
    samples: Table, shard: int, digests: Int[np.ndarray, " n"], failed: Mapping[int, str]
) -> dict[int, str]:
    """Rows that get no relevance beside a committed shard of the samples, and why; ``failed`` ones aside.

    Raises:
        AttributionError: the pixels of all of them have changed, which no accident does.
    """
    rows, before = samples.shards[shard], samples.failed_in(shard)
    known = samples.read(made_from.COLUMN, rows)
    compared = [row for row in rows if row not in before and row not in failed]
    changed = [row for row in compared if digests[row - rows.start] != known[row - rows.start]]
    if len(changed) == len(compared) > 1:
        raise AttributionError(OTHER_PIXELS)
    return {row: reason for row, reason in before.items() if row not in failed} | dict.fromkeys(
        changed, CHANGED
    )


def refuse_others(
    tables: Tables, shard: int, digests: Int[np.ndarray, " n"], failed: Mapping[int, str]
) -> None:
    """Samples that are written again have to be those that the relevance beside them was made of.

    Raises:
        AttributionError: they are others. Stores of early releases do not tell.
    """
    rows = tables.samples.shards[shard]
    for table in tables.relevance.values():
        if shard in table.missing() or made_from.FACT not in table.facts(shard):
            continue
        if not made_from.fits(table.facts(shard), table.failed_in(shard), digests, rows, failed):
            raise AttributionError(OTHER_PIXELS)
