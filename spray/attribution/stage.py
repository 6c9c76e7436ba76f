"""One model over one data set: relevance of a block of samples, and whole shards of them into the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import stores
from spray.attribution import pixels, revisions
from spray.attribution.circumstances import circumstances
from spray.attribution.display import Display
from spray.attribution.passes import Passes
from spray.attribution.quarantine import without_known_poison
from spray.attribution.records import (
    Columns,
    Layer,
    RelevanceRecord,
    SampleRecord,
    refuse_unknown_kinds,
)
from spray.attribution.step import Attribution
from spray.attribution.tables import Tables, stored_block, stored_display
from spray.attribution.targets import Target
from spray.blocks import Block, BlockReader, first_inputs, repeated
from spray.data import AuditData, data_digest
from spray.engine import Explanation
from spray.engine.errors import AttributionError, BadInput
from spray.memory import block_size, ran_out
from spray.models import model_digest
from stores import Column, Provenance, describe, made_from
from stores.ledger import Claim
from stores.provenance import Json

SHARD_BYTES = 128 * 2**20
SHARDS_AT_LEAST = 8
"""Small data sets are cut finer than their bytes ask for, so that an interruption loses little."""
PATIENCE, PAUSE = 60.0, 0.05
"""Seconds for which another stage that writes the very same samples is waited for, and between two looks."""
SAME_EVERYWHERE = 1e-6
"""Entries of a map that differ by no more than this part of its largest are one number."""
UNEXPLAINABLE = "the model's output for it is not finite, or is the zero that a unit start would divide by"
NO_DIFFERENCE = "its two classes are one, so there is no difference of logits"
NOT_FINITE = "its relevance is not finite"


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


@contextmanager
def _taken_by_the_model(sample: Float[Tensor, ...]) -> Iterator[None]:
    """What the model's own layers say of inputs that they cannot take, with the next move."""
    try:
        yield
    except RuntimeError as error:
        if ran_out(error):
            raise
        shape = " × ".join(map(str, sample.shape))
        raise AttributionError(
            f"The model cannot take the data set's samples, which are of shape {shape}: {error}. Prepare them as the "
            "model expects them. Of a folder of images, --mean and --std with one number give grey pictures and with "
            "three coloured ones, and --crop their size."
        ) from error


def _is_placeless(relevance: Float[Tensor, "c ..."]) -> bool:
    """Whether a map is one number at every place, and not zero."""
    places = relevance.sum(0) if relevance.ndim > 1 else relevance
    largest = float(places.abs().max())
    if places.numel() < 2 or not 0 < largest < float("inf"):
        return False
    return float(places.max() - places.min()) <= SAME_EVERYWHERE * largest


@dataclass(frozen=True)
class Result:
    """One computed block: the columns of all tables, and the rows that failed."""

    samples: Columns
    relevance: Mapping[Target, Mapping[str, np.ndarray]]
    unreadable: Mapping[int, str]
    refused: Mapping[Target, Mapping[int, str]]


@dataclass(frozen=True)
class Written:
    """What is told of a shard that was committed."""

    shard: int
    rows: int
    failed: int
    failures: Mapping[str, Sequence[int]]
    """Rows that failed in any table, by reason."""
    took: float
    """Seconds."""
    device: str
    batch: int
    """Samples per pass: the step's block, or less where memory ran out."""
    halved: bool


class Stage:
    """One model over one data set: what stays the same from block to block.

    ``step.block`` 0 takes the block of the store at ``out``, or finds one from the memory that is free;
    ``sharing`` processes share that.
    """

    def __init__(
        self,
        model: nn.Module,
        data: AuditData,
        step: Attribution,
        device: torch.device,
        out: str | Path,
        sharing: int = 1,
    ) -> None:
        refuse_unknown_kinds(data.metadata)
        data = without_known_poison(data, out)
        self.model, self.data, self.device, self.out = model, data, device, out
        if any(weight.dtype == torch.float64 for weight in model.parameters()):
            raise AttributionError(
                "The model computes in float64, an audit in float32: give it model.float()."
            )
        layers = [Layer.parse(name) for name in step.layers]
        self.passes = Passes(model, step, [layer.name for layer in layers], device)
        self.step = step if step.block else replace(step, block=self._block(sharing))
        self.passes.batch = self.step.block
        inputs = self._first_inputs(self.step.block)
        pixels.refuse_unsteady(data)
        # One probing block decides shapes, and any refusal comes before anything is written.
        with _taken_by_the_model(inputs[0]):
            self.filler, self.probe = self._probe(inputs)
        self._refuse_placeless(inputs)
        self.classes = next(iter(self.probe.values())).logits.shape[1]
        if data.classes and len(data.classes) != self.classes:
            raise AttributionError(
                f"The data set names {len(data.classes)} classes and the model has {self.classes} outputs. "
                "Give the names of the model's outputs, in order."
            )
        display = None if data.mean is not None and data.std is not None else stored_display(out)
        display = display or Display.of(inputs, data.mean, data.std)
        self.samples = SampleRecord(data, display, step.thumbnails, step.grid)
        self.relevance = RelevanceRecord(layers, step.grid, step.full)

    def _block(self, sharing: int) -> int:
        """The block of the store, if there is one, so that it goes on as it began; else what memory allows."""
        if (stored := stored_block(self.out)) is not None:
            return stored
        sample = self._first_inputs(1)[0]

        def pass_over(count: int) -> None:
            self.passes.batch = count
            self.passes.explain(repeated(sample, count))

        with _taken_by_the_model(sample):
            return block_size(pass_over, self.device, 4 * sample.numel(), len(self.data.ids), sharing)

    def _first_inputs(self, count: int) -> Float[Tensor, "n ..."]:
        try:
            return first_inputs(self.data, count)
        except ValueError as error:
            raise AttributionError(f"Nothing to attribute: {error}.") from error

    def _probe(self, inputs: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, ...], dict[Target, Explanation]]:
        """The first input that the model gives finite logits for, with its relevance."""
        *others, last = inputs[: pixels.COMPARED_SAMPLES]
        for filler in others:
            try:
                return filler, self.passes.explain(repeated(filler, self.step.block))
            except BadInput as error:
                if not error.rows:
                    raise
        return last, self.passes.explain(repeated(last, self.step.block))

    def _refuse_placeless(self, inputs: Float[Tensor, "n ..."]) -> None:
        """Refuse maps that are one number at every place: an audit of them finds nothing, whatever there is.

        One blank picture may have such a map; that all of several have is the composite's doing.

        Raises:
            AttributionError: so it is.
        """
        found = {target for target, made in self.probe.items() if _is_placeless(made.relevance[0])}
        for other in inputs[: pixels.COMPARED_SAMPLES] if found else ():
            with suppress(BadInput):
                made = self.passes.explain(repeated(other, self.step.block))
                found = {target for target in found if _is_placeless(made[target].relevance[0])}
        for target in found:
            raise AttributionError(
                f"{self.step.table_of(target)}: the relevance of every one of the first samples is one number at every "
                "place, so that no map would show where anything is. The flat rule, with which composites such as "
                "epsilon_plus_flat begin, shares evenly among all that an output of the first layer reads, and a fully "
                "connected first layer reads the whole input at once. For such a network take --composite "
                "epsilon_plus or gradient_x_input."
            )

    def tables(self) -> Tables:
        """The store and its tables, made or found again."""
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
        names = list(self.data.classes) or [str(index) for index in range(self.classes)]
        run = stores.create(self.out, classes=names, samples=len(self.data.ids), provenance=identity)
        sample_columns = self.samples.declaration(self.filler, self.classes)
        declared = {target: self.relevance.declaration(explained) for target, explained in self.probe.items()}
        columns = [*sample_columns, *chain.from_iterable(declared.values())]
        rows = run.rows_per_shard() or self._rows_per_shard(columns)
        samples = run.create_table("samples", sample_columns, rows_per_shard=rows, provenance=origin)
        pixels.refuse_changed(self.data, samples)
        with deterministic(self.device):
            pixels.refuse_another_model(self.model, self.data, samples, self.device)
        relevance = {}
        for target, columns in declared.items():
            made = Provenance((place, self.step.describe(target)), (origin.id,))
            name = self.step.table_of(target)
            revisions.refuse_other(run, name)
            relevance[target] = run.create_table(name, columns, rows_per_shard=rows, provenance=made)
        return Tables(run, samples, relevance)

    def shards(self, shards: Mapping[int, range]) -> Iterator[tuple[int, Iterator[Block]]]:
        """Each shard with its blocks, to be read before the next is asked for; reading ahead goes on across shards."""
        size = self.step.block
        cut = {
            n: [list(rows[at : at + size]) for at in range(0, len(rows), size)] for n, rows in shards.items()
        }
        reader = BlockReader(self.data, size, self.filler, self.classes, self.step.workers)
        stream = reader.read(
            [block for blocks in cut.values() for block in blocks], pin=self.device.type == "cuda"
        )
        for shard, blocks in cut.items():
            given = (next(stream) for _ in blocks)
            yield shard, given
            for _ in given:  # of a shard that was passed over: the next one's come after it
                pass

    def write(
        self,
        shard: int,
        blocks: Iterable[Block],
        tables: Tables,
        done: Callable[[int, int], None] = lambda rows, failed: None,
    ) -> Written | None:
        """Compute a shard and commit what is missing of it, under claims from the first block on.

        ``done`` is told the numbers of rows and of failed rows after each block. None where nothing was missing.

        Raises:
            stores.StoreBusy: another process works on this shard.
        """
        started = time.monotonic()
        self.passes.batch = self.step.block  # memory that ran out may be free again
        with ExitStack() as stack, deterministic(self.device):
            claims = {
                target: stack.enter_context(table.claim(shard)) for target, table in tables.relevance.items()
            }
            absent = {target: table for target, table in tables.relevance.items() if shard in table.missing()}
            if not absent and shard not in tables.samples.missing():
                return None
            results = []
            # For the samples alone one target's pass will do: it gives the logits.
            wanted = list(absent) or list(tables.relevance)[:1]
            rows = list(tables.samples.shards[shard])
            for block in blocks:
                if block.rows != rows[: len(block.rows)]:
                    raise AssertionError(f"shard {shard} has rows {rows[:1]}…, not {block.rows[:1]}…")
                rows = rows[len(block.rows) :]
                result = self.compute(block, wanted)
                results.append(result)
                done(len(block.rows), len(_failed([result])))
            others = self._commit(shard, results, tables, {target: claims[target] for target in absent})
            done(0, len(others))
        batch, told = self.passes.batch, [*results, Result({}, {}, others, {})]
        return Written(
            shard,
            len(tables.samples.shards[shard]),
            len(_failed(told)),
            _by_reason(told),
            round(time.monotonic() - started, 3),
            str(self.device),
            batch,
            batch < self.step.block,
        )

    def _commit(
        self, shard: int, results: Sequence[Result], tables: Tables, claims: Mapping[Target, Claim]
    ) -> dict[int, str]:
        """Write what was computed of a shard; returns the rows that could be used, and were not, with the reason."""
        facts, rows = self._facts(), tables.samples.shards[shard]
        unreadable = _merged([result.unreadable for result in results])
        columns = _joined([result.samples for result in results])
        digests, others = np.asarray(columns["digest"]), {}
        if not self._commit_samples(shard, columns, unreadable, tables, facts):
            others = pixels.unusable(tables.samples, shard, digests, unreadable)
            unreadable |= others
        made = facts | made_from.facts(digests, rows, unreadable)
        for target, claim in claims.items():
            refused = unreadable | _merged([result.refused[target] for result in results])
            columns = _joined([result.relevance[target] for result in results])
            tables.relevance[target].write(shard, columns, refused, claim=claim, facts=made)
        return others

    def _commit_samples(
        self,
        shard: int,
        columns: Columns,
        unreadable: Mapping[int, str],
        tables: Tables,
        facts: dict[str, Json],
    ) -> bool:
        """Write the samples of a shard, unless they are there; another stage that writes them now is waited for."""
        rows, waiting = tables.samples.shards[shard], time.monotonic() + PATIENCE
        while shard in tables.samples.missing():
            try:
                digests = np.asarray(columns["digest"])
                pixels.refuse_others(tables, shard, digests, unreadable)
                made = facts | made_from.facts(digests, rows, unreadable)
                tables.samples.write(shard, columns, unreadable, facts=made)
                return True
            except stores.StoreBusy:
                if time.monotonic() > waiting:
                    raise
                time.sleep(PAUSE)
        return False

    def _facts(self) -> dict[str, Json]:
        """What else may change a shard's last bits, for its commit."""
        facts = circumstances(self.device)
        return facts | ({"batch": self.passes.batch} if self.passes.batch < self.step.block else {})

    def compute(self, block: Block, wanted: Iterable[Target] = ()) -> Result:
        """Relevance, logits and checks of one block, as columns, with the rows that cannot be used.

        Of the targets that are ``wanted``, or of all.
        """
        count, inputs, failed = len(block.rows), block.inputs, dict(block.failed)
        while True:
            try:
                explained = self.passes.explain(inputs, block.labels, wanted)
                break
            except BadInput as error:
                # Rows that the engine refuses by number cost only themselves: the others are computed without them.
                culprits = {place: block.rows[place] for place in error.rows if place < count}
                if not culprits or failed.keys() >= set(culprits.values()):
                    raise
                failed |= dict.fromkeys(culprits.values(), UNEXPLAINABLE)
                inputs = inputs.clone()
                inputs[list(culprits)] = self.filler
        logits = next(iter(explained.values())).logits[:count].float().cpu()
        relevance = {
            target: self.relevance.columns(explanation, count) for target, explanation in explained.items()
        }
        refused = {
            target: {
                row: reason
                for row, reason in self._refused(block, target, explanation, relevance[target])
                if row not in failed
            }
            for target, explanation in explained.items()
        }
        return Result(self.samples.columns(block, logits), relevance, failed, refused)

    def _refused(
        self, block: Block, target: Target, explanation: Explanation, columns: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[int, str]]:
        """Rows of a block that have no relevance of one target, and why."""
        count = len(block.rows)
        finite: Bool[np.ndarray, " n"] = np.all(
            [np.isfinite(values).reshape(count, -1).all(1) for values in columns.values()], axis=0
        )
        undefined = self.passes.undefined(target, explanation, block.labels)[:count].tolist()
        for row, sound, one in zip(block.rows, finite, undefined, strict=True):
            if one or not sound:
                yield row, NO_DIFFERENCE if one else NOT_FINITE

    def _rows_per_shard(self, columns: Sequence[Column]) -> int:
        """Whole blocks: as many as the bytes allow, and as leave so many shards that an interruption loses little."""
        blocks = -(-len(self.data.ids) // self.step.block)
        each = -(-blocks // SHARDS_AT_LEAST)
        if -(-blocks // each) < SHARDS_AT_LEAST:
            each = blocks // SHARDS_AT_LEAST
        fitting = SHARD_BYTES // (self.step.block * max(1, sum(column.row_bytes for column in columns)))
        return max(1, min(each, fitting)) * self.step.block


def prepared(
    model: nn.Module,
    data: AuditData,
    step: Attribution,
    device: torch.device,
    out: str | Path,
    sharing: int = 1,
) -> tuple[Stage, Tables]:
    """A stage and the tables it writes, made or found again."""
    stage = Stage(model, data, step, device, out, sharing)
    try:
        return stage, stage.tables()
    except stores.StoreError:
        # Another process that found another block may have made the store meanwhile: go on with that one's.
        if step.block or stored_block(out) in (None, stage.step.block):
            raise
        stage = Stage(model, data, step, device, out, sharing)
        return stage, stage.tables()


def _failed(results: Sequence[Result]) -> set[int]:
    """Rows that failed in any table."""
    return {
        row for result in results for rows in (result.unreadable, *result.refused.values()) for row in rows
    }


def _by_reason(results: Sequence[Result]) -> dict[str, list[int]]:
    """Rows that failed in any table, ascending, by reason."""
    found: dict[str, set[int]] = {}
    for result in results:
        for refused in (result.unreadable, *result.refused.values()):
            for row, reason in refused.items():
                found.setdefault(reason, set()).add(row)
    return {reason: sorted(rows) for reason, rows in found.items()}


def _merged(parts: Sequence[Mapping[int, str]]) -> dict[int, str]:
    return {row: reason for part in parts for row, reason in part.items()}


def _joined(blocks: Sequence[Mapping[str, np.ndarray | list[str]]]) -> Columns:
    """Columns of consecutive blocks, one after the other."""
    joined: Columns = {}
    for name, first in blocks[0].items():
        if isinstance(first, np.ndarray):
            joined[name] = np.concatenate([np.asarray(block[name]) for block in blocks])
        else:
            joined[name] = [text for block in blocks for text in block[name]]
    return joined
