"""One model over one data set: relevance of a block of samples, and whole shards of them into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import stores
from spray.attribution.display import Display
from spray.attribution.records import Columns, Layer, RelevanceRecord, SampleRecord
from spray.blocks import Block, BlockReader, first_inputs, pixel_digests, repeated
from spray.data import AuditData, data_digest
from spray.engine import Explainer, Explanation, Start
from spray.engine.composites import Method
from spray.engine.errors import AttributionError, BadInput
from spray.models import model_digest
from stores import Column, Provenance, Run, Table, describe
from stores.provenance import TUNING, Json

SHARD_BYTES = 128 * 2**20
SHARDS_AT_LEAST = 8
"""Small data sets are cut finer than their bytes ask for, so that an interruption loses little."""
UNEXPLAINABLE = "the model's output for it is not finite, or is the zero that a unit start would divide by"
COMPARED_SAMPLES = 8
"""So many samples are looked at before the work begins: are their pixels always, and still, the same?"""


@dataclass(frozen=True)
class Attribution:
    """What is computed and kept for each sample; all fields but ``workers`` stand in the store's provenance."""

    composite: str | Method = "epsilon_plus_flat"
    target: str | int = "label"
    """"label" (the prediction, where the label is unknown), "prediction", or one class index for all samples."""
    start: Start = "logit"
    layers: tuple[str, ...] = ()
    """Modules whose output's relevance is kept too, by channel and by place. Outputs (n, token, channel) are known
    by their three axes; ``NAME@last`` says that a four-axis output has its channels last (Swin)."""
    grid: int = 28
    """Pooled maps have at most this many cells a side."""
    full: bool = False
    """Keep full-size input maps as well."""
    thumbnails: int = 64
    """Longest side of the pictures kept for the report; 0 keeps none."""
    block: int = 128
    """Samples per forward pass, padded at the end: one block size, one result, whatever is interrupted."""
    workers: int = field(default=0, metadata=TUNING)

    def __post_init__(self) -> None:
        if isinstance(self.target, str) and self.target not in ("label", "prediction"):
            raise BadInput(f"target is '{self.target}'; choose label, prediction, or a class index.")
        if self.grid < 1 or self.block < 1 or self.thumbnails < 0 or self.workers < 0:
            raise BadInput(
                f"grid is {self.grid}, block {self.block}, thumbnails {self.thumbnails}, workers {self.workers}; "
                "grid and block are at least 1, thumbnails and workers at least 0."
            )
        if len(set(self.layers)) < len(self.layers):
            raise BadInput(f"layers are {', '.join(self.layers)}; name each once.")

    @property
    def table(self) -> str:
        """Name of the relevance table in the store."""
        composite = self.composite if isinstance(self.composite, str) else self.composite.name
        return f"relevance/{composite}" + ("" if self.target == "label" else f".{self.target}")


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On CUDA: deterministic kernels, no benchmark mode and no TF32, so that the same inputs give the same bytes."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = False, True, False, False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


@dataclass(frozen=True)
class Result:
    """One computed block: the columns of both tables, and the rows that failed."""

    samples: Columns
    relevance: Columns
    unreadable: Mapping[int, str]
    refused: Mapping[int, str]


class Stage:
    """One model over one data set: what stays the same from block to block."""

    def __init__(self, model: nn.Module, data: AuditData, step: Attribution, device: torch.device) -> None:
        self.model, self.data, self.step, self.device = model, data, step, device
        layers = [Layer.parse(name) for name in step.layers]
        self.explainer = Explainer(model, step.composite, [layer.name for layer in layers])
        if any(weight.dtype == torch.float64 for weight in model.parameters()):
            raise AttributionError(
                "The model computes in float64, an audit in float32: give it model.float()."
            )
        try:
            inputs = first_inputs(data, step.block)
        except ValueError as error:
            raise AttributionError(f"Nothing to attribute: {error}.") from error
        self._check_steady()
        # One probing block decides shapes, and any refusal comes before anything is written.
        self.filler, self.probe = self._probe(inputs)
        self.classes = self.probe.logits.shape[1]
        if data.classes and len(data.classes) != self.classes:
            raise AttributionError(
                f"The data set names {len(data.classes)} classes and the model has {self.classes} outputs. "
                "Give the names of the model's outputs, in order."
            )
        self.samples = SampleRecord(data, Display.of(inputs, data.mean, data.std), step.thumbnails)
        self.relevance = RelevanceRecord(layers, step.grid, step.full)

    def _check_steady(self) -> None:
        rows = range(min(COMPARED_SAMPLES, len(self.data.ids)))
        if pixel_digests(self.data, rows) != pixel_digests(self.data, rows):
            raise AttributionError(
                "The data set gives other pixels each time it is asked for the same sample. Give it the "
                "preprocessing of evaluation, without random augmentation."
            )

    def _probe(self, inputs: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, ...], Explanation]:
        """The first input that the model gives finite logits for, with its relevance."""
        *others, last = inputs[:COMPARED_SAMPLES]
        for filler in others:
            try:
                return filler, self._explain(repeated(filler, self.step.block), None)
            except BadInput as error:
                if not error.rows:
                    raise
        return last, self._explain(repeated(last, self.step.block), None)

    def tables(self, out: str | Path) -> tuple[Run, Table, Table]:
        """The store and its two tables, made or found again."""
        identity: dict[str, Json] = {"model": model_digest(self.model), "data": data_digest(self.data)}
        place: dict[str, Json] = {
            "name": "compute",
            "device": self.device.type,
            "dtype": str(self.filler.dtype),
            "memory": "channels last",
            "torch": torch.__version__,
            "block": self.step.block,
            "input_shape": list(self.filler.shape),
        }
        shown: dict[str, Json] = {
            "name": "samples",
            "display": describe(self.samples.display),
            "thumbnails": self.step.thumbnails,
        }
        origin = Provenance(({"name": "inputs", **identity}, place, shown))
        made = Provenance((place, describe(self.step)), (origin.id,))
        names = list(self.data.classes) or [str(index) for index in range(self.classes)]
        run = stores.create(out, classes=names, samples=len(self.data.ids), provenance=identity)
        sample_columns = self.samples.declaration(self.filler, self.classes)
        relevance_columns = self.relevance.declaration(self.probe)
        if "samples" in run.tables():
            rows = max(map(len, run.samples.shards))
        else:
            rows = self._rows_per_shard([*sample_columns, *relevance_columns])
        samples = run.create_table("samples", sample_columns, rows_per_shard=rows, provenance=origin)
        self._check_same_pixels(samples)
        table = run.create_table(self.step.table, relevance_columns, rows_per_shard=rows, provenance=made)
        return run, samples, table

    def _check_same_pixels(self, samples: Table) -> None:
        """Refuse to go on with a store whose ids are the same but whose pixels are not."""
        committed = [rows for shard, rows in enumerate(samples.shards) if shard not in set(samples.missing())]
        ok = samples.ok
        rows = [row for row in (committed[0] if committed else ()) if ok[row]][:COMPARED_SAMPLES]
        known = dict(zip(rows, samples.read("digest", rows).tolist(), strict=True))
        if pixel_digests(self.data, rows) != known:
            raise AttributionError(
                "The store was made from other pixels under the same ids: the images or their preprocessing "
                "have changed. Nothing was changed: write to a new store."
            )

    def shards(self, shards: Mapping[int, range]) -> Iterator[tuple[int, Iterator[Block]]]:
        """Each shard with its blocks; reading ahead goes on across shards."""
        size = self.step.block
        cut = {
            n: [list(rows[at : at + size]) for at in range(0, len(rows), size)] for n, rows in shards.items()
        }
        reader = BlockReader(self.data, size, self.filler, self.classes, self.step.workers)
        stream = reader.read(
            [block for blocks in cut.values() for block in blocks], pin=self.device.type == "cuda"
        )
        for shard, blocks in cut.items():
            yield shard, (next(stream) for _ in blocks)

    def write(
        self,
        shard: int,
        blocks: Iterable[Block],
        samples: Table,
        relevance: Table,
        done: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """Compute a shard and commit what is missing of it, under a claim from the first block on.

        ``done`` is told the number of rows after each block.

        Raises:
            stores.StoreBusy: another process works on this shard.
        """
        with relevance.claim(shard) as claim, deterministic(self.device):
            absent = [table for table in (samples, relevance) if shard in table.missing()]
            if not absent:
                return
            results = []
            for block in blocks:
                results.append(self.compute(block))
                done(len(block.rows))
            unreadable = _merged([result.unreadable for result in results])
            facts = {"threads": torch.get_num_threads()} if self.device.type == "cpu" else {}
            if samples in absent:
                samples.write(shard, _joined([result.samples for result in results]), unreadable, facts=facts)
            if relevance in absent:
                refused = unreadable | _merged([result.refused for result in results])
                columns = _joined([result.relevance for result in results])
                relevance.write(shard, columns, refused, claim=claim, facts=facts)

    def compute(self, block: Block) -> Result:
        """Relevance, logits and checks of one block, as columns, with the rows that cannot be used."""
        count, inputs, failed = len(block.rows), block.inputs, dict(block.failed)
        while True:
            try:
                explanation = self._explain(inputs, block.labels)
                break
            except BadInput as error:
                # Rows that the engine refuses by number cost only themselves: the others are computed without them.
                culprits = {place: block.rows[place] for place in error.rows if place < count}
                if not culprits or failed.keys() >= set(culprits.values()):
                    raise
                failed |= dict.fromkeys(culprits.values(), UNEXPLAINABLE)
                inputs = inputs.clone()
                inputs[list(culprits)] = self.filler
        logits = explanation.logits[:count].float().cpu()
        relevance = self.relevance.columns(explanation, count)
        finite = np.all(
            [np.isfinite(values).reshape(count, -1).all(1) for values in relevance.values()], axis=0
        )
        refused = {
            row: "its relevance is not finite"
            for row, sound in zip(block.rows, finite, strict=True)
            if not sound and row not in failed
        }
        return Result(self.samples.columns(block, logits), dict(relevance), failed, refused)

    def _explain(self, inputs: Float[Tensor, "b ..."], labels: Int[Tensor, " rows"] | None) -> Explanation:
        inputs = inputs.to(self.device, non_blocking=True)
        target = self.step.target
        if isinstance(target, int):
            return self.explainer.explain(inputs, target, self.step.start)
        if target == "prediction" or labels is None:
            return self.explainer.explain(inputs, None, self.step.start)
        targets = torch.zeros(len(inputs), dtype=torch.int64)
        targets[: len(labels)] = labels
        if (labels < 0).any():
            with torch.no_grad():
                targets = torch.where(targets < 0, self.model(inputs).argmax(1).cpu(), targets)
        return self.explainer.explain(inputs, targets.to(self.device), self.step.start)

    def _rows_per_shard(self, columns: Sequence[Column]) -> int:
        row_bytes = sum(column.row_bytes for column in columns)
        rows = min(SHARD_BYTES // max(row_bytes, 1), -(-len(self.data.ids) // SHARDS_AT_LEAST))
        return max(1, rows // self.step.block) * self.step.block


def missing_shards(samples: Table, relevance: Table) -> dict[int, range]:
    """Shards that either table lacks, with their rows."""
    return {shard: samples.shards[shard] for shard in sorted({*samples.missing(), *relevance.missing()})}


def _merged(parts: Sequence[Mapping[int, str]]) -> dict[int, str]:
    return {row: reason for part in parts for row, reason in part.items()}


def _joined(blocks: Sequence[Columns]) -> Columns:
    """Columns of consecutive blocks, one after the other."""
    joined: Columns = {}
    for name, first in blocks[0].items():
        if isinstance(first, np.ndarray):
            joined[name] = np.concatenate([np.asarray(block[name]) for block in blocks])
        else:
            joined[name] = [text for block in blocks for text in block[name]]
    return joined
