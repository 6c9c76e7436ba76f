"""Attribution on the workers of Dask distributed.

The store's ledger is the only truth: a task writes one shard and returns its number. A worker that dies loses the
shard in flight, which is done again once its claim, whose owner may be on a machine that tells nothing, is released; a
shard that kills two workers is searched for the rows that do it, and these
become failed rows, by number, without being read again.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

import stores
from spray.attribution.circumstances import threads_as_begun
from spray.attribution.dataset import WHAT, tell
from spray.attribution.quarantine import Quarantine
from spray.attribution.retry import take_back_failed
from spray.attribution.stage import Stage, Written, prepared
from spray.attribution.step import Attribution
from spray.attribution.tables import Tables
from spray.data import AuditData, as_audit_data
from spray.engine.errors import AttributionError
from spray.journal import Journal, journal
from spray.memory import LARGEST_ELSEWHERE
from spray.progress import Report, silent
from stores import Run, StoreBusy
from stores.owners import Owner

_PATIENCE = 2
"""A shard that killed this many workers is searched for the rows that do it."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know, once. ``threads`` are torch's: on CPUs they change the last bits of sums."""

    key: str
    model: nn.Module
    data: AuditData
    out: str
    step: Attribution
    device: str
    threads: int
    sharing: int
    """So many workers may share one machine's memory."""
    retry_failed: bool = False


@dataclass(frozen=True)
class _Plan:
    """What a worker answers when it has prepared the store."""

    samples: int
    missing: Mapping[int, tuple[int, int]]
    """First row and one past the last of every shard to be done."""
    failed: int
    """Rows that have failed already, in other shards."""
    retried: Sequence[int]
    """Shards that were taken back, since samples of theirs that had failed can be read by now."""


def attribute_on(
    client: Any,
    model: nn.Module,
    dataset: object,
    out: str | Path,
    attribution: Attribution | None = None,
    *,
    device: str = "cpu",
    retry_failed: bool = False,
    report: Report = silent,
) -> Run:
    """As ``attribute_dataset``, on the workers of a ``distributed.Client``; the store comes out the same.

    The model and the data set travel to each worker once, also to workers that come later. Each worker has one shard in
    flight. Use one thread per worker, and one worker per GPU (``device="cuda"`` takes the worker's own number
    modulo the GPUs it sees).

    Raises:
        AttributionError: workers die whatever rows they work on; otherwise as ``attribute_dataset``.
    """
    where = str(out) if "://" in str(out) else str(Path(out).resolve())
    with threads_as_begun(where, torch.device(device)):
        threads = torch.get_num_threads()
    job = Job(
        uuid.uuid4().hex,
        model.to("cpu"),
        as_audit_data(dataset),
        where,
        attribution or Attribution(),
        device,
        threads,
        max(1, len(client.nthreads())),
        retry_failed,
    )
    try:
        with _carried(client, job):
            _Driver(client, job, report).run()
    except import_module("distributed").CancelledError as error:
        raise AttributionError(
            f"The Dask scheduler went away ({error}). What is committed is safe: start it again, and run the same "
            "command."
        ) from error
    return stores.open(where, "r+")


class _Driver:
    """Hands out shards, a bounded number at a time, and finds out which rows kill workers."""

    def __init__(self, client: Any, job: Job, report: Report) -> None:
        self.client, self.job, self.report = client, job, report
        self.poison: frozenset[int] = frozenset()

    def run(self) -> None:
        """Until every shard is committed."""
        workers = len(self.client.nthreads())
        with journal(self.job.out, WHAT, device=self.job.device, workers=workers) as log:
            plan = self._prepared(log)
            todo = {shard: range(low, high) for shard, (low, high) in plan.missing.items()}
            rows = sum(map(len, todo.values()))
            log("plan", shards=len(todo), rows=rows, resumed=rows < plan.samples, retried=plan.retried)
            self._shards(plan, todo, log)

    def _shards(self, plan: _Plan, todo: Mapping[int, range], log: Journal) -> None:
        done, failed = plan.samples - sum(map(len, todo.values())), plan.failed
        self.report(done, plan.samples, WHAT, failed)
        deaths = dict.fromkeys(todo, 0)
        queue = deque(todo)
        for shard, written, died in self._each(queue):
            if not died:
                if written is None:  # by a worker that died before it could say so, or by somebody else
                    log("shard", shard=shard, rows=len(todo[shard]), committed="before")
                tell(log, written)
                done += len(todo[shard])
                failed += written.failed if written else 0
                self.report(done, plan.samples, WHAT, failed)
                continue
            deaths[shard] += 1
            log("worker died", shard=shard, times=deaths[shard])
            if deaths[shard] > 2 * _PATIENCE:
                raise AttributionError(self._hopeless(todo[shard]))
            if deaths[shard] >= _PATIENCE:
                poison = self._culprits(list(todo[shard]), _do_rows)
                self.poison |= poison
                log("quarantine", shard=shard, rows=sorted(poison))
            queue.append(shard)

    def _prepared(self, log: Journal) -> _Plan:
        """What there is to do. A worker reads the first samples."""
        for _ in range(2 * _PATIENCE):
            plan, died = self._one(_prepare)
            if not died:
                assert isinstance(plan, _Plan)
                return plan
            first = min(len(self.job.data.ids), max(self.job.step.block or LARGEST_ELSEWHERE, 8))
            poison = self._culprits(list(range(first)), _read_rows)
            self.poison |= poison
            log("worker died", quarantine=sorted(poison))
        raise AttributionError(self._hopeless(range(first)))

    def _culprits(
        self, rows: Sequence[int], task: Callable[..., Any], guilty: bool = False
    ) -> frozenset[int]:
        """Which of these rows kill a worker on their own, by bisection; ``guilty`` says that together they do."""
        if not guilty and not self._one(task, tuple(rows))[1]:
            return frozenset()
        if len(rows) == 1:
            return frozenset(rows)
        half = len(rows) // 2
        found = self._culprits(rows[:half], task)
        # Where the first half is innocent the second is not, unless it takes both; that shows when it is one row.
        return found | self._culprits(rows[half:], task, guilty=not found and half > 1)

    def _one(self, task: Callable[..., Any], *arguments: Any) -> tuple[Any, bool]:
        """What a task returned, and whether it killed its worker."""
        future = self._submit(task, *arguments)
        error = future.exception()
        if error is None:
            return future.result(), False
        if not self._killed(error):
            raise error
        return None, True

    def _each(self, queue: deque[int]) -> Iterator[tuple[int, Written | None, bool]]:
        """Every shard of a queue that may grow meanwhile, what was written, and whether its task killed its worker."""
        as_completed = import_module("distributed").as_completed
        completed = as_completed()
        running: dict[Any, int] = {}
        try:
            while queue or running:
                while queue and len(running) < max(1, len(self.client.nthreads())):
                    shard = queue.popleft()
                    future = self._submit(_do_shard, shard)
                    running[future] = shard
                    completed.add(future)
                future = next(completed)
                shard, error = running.pop(future), future.exception()
                if error is not None:
                    # A scheduler that tries again by itself lets the next worker find the claim of the dead one.
                    if not self._killed(error) and not isinstance(error, StoreBusy):
                        raise error
                    self._release(shard)
                yield shard, future.result() if error is None else None, error is not None
        finally:
            for future in running:
                future.cancel()

    def _release(self, shard: int) -> None:
        """Remove what workers of this job claim of a shard whose task has ended: none that lives holds it any more.

        Raises:
            stores.StoreBusy: somebody else is writing it.
        """
        run = stores.open(self.job.out, "r+")
        owners = {Owner.from_mark(mark) for _, mark in self.client.get_events(_topic(self.job.key))}
        for table in (run.table(name) for name in run.tables()):
            if shard in table.missing():
                for owner in owners:
                    table.release(shard, owner)
                with table.claim(shard):
                    pass

    def _submit(self, task: Callable[..., Any], *arguments: Any) -> Any:
        return self.client.submit(task, self.job.key, self.poison, *arguments, pure=False, retries=0)

    def _killed(self, error: BaseException) -> bool:
        return isinstance(error, import_module("distributed").KilledWorker)

    def _hopeless(self, rows: range) -> str:
        return (
            f"Workers keep dying on samples {rows.start} to {rows.stop - 1}, and on none of these alone. What is "
            "committed is safe. Give the workers more memory or take a smaller block, and run it again."
        )


def _topic(key: str) -> str:
    """Name of a job's plugin, and of the scheduler's list of its workers."""
    return f"spray-{key}"


_jobs: dict[str, Job] = {}
_stages: dict[tuple[str, frozenset[int]], tuple[Stage, Tables]] = {}
"""What this worker process knows: a model is loaded once, and again only for another quarantine."""


@contextlib.contextmanager
def _carried(client: Any, job: Job) -> Iterator[None]:
    """The job is known to every worker, those that come later (or come back) included."""

    class Carry(import_module("distributed").WorkerPlugin):  # type: ignore[misc]
        name = _topic(job.key)

        def __init__(self, carried: Job) -> None:
            self.job = carried

        async def setup(self, worker: Any) -> None:
            import_module("spray.attribution.cluster")._jobs[self.job.key] = self.job
            # The scheduler remembers who the worker is: after its death nobody can ask it.
            await worker.scheduler.log_event(topic=self.name, msg=Owner.me().mark)

        def teardown(self, worker: Any) -> None:
            import_module("spray.attribution.cluster")._jobs.pop(self.job.key, None)

    for attempt in range(1, 2 * _PATIENCE + 1):
        try:
            with _told_once():
                client.register_plugin(Carry(job))
            break
        except OSError as error:
            # A worker died before it could answer; the one in its place is told as it comes.
            if attempt == 2 * _PATIENCE:
                raise AttributionError(
                    f"Workers keep dying as they are told about the model and the data ({error}). Nothing was written. "
                    "Give the workers more memory, or fewer of them to a machine, and run it again."
                ) from error
        except Exception as error:
            if "pickle" not in f"{type(error).__name__}: {error}".lower():
                raise
            raise AttributionError(
                f"The model and the data set have to travel to the workers, and one of them cannot ({error}). Open "
                "files, databases and locks where a sample is read, in __getitem__, and not in __init__; without "
                "--cluster nothing has to travel."
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone, and its workers with it
            client.unregister_worker_plugin(Carry.name)


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """What cannot be pickled is told by the error; Dask also logs its way through three picklers."""
    log = logging.getLogger("distributed.protocol.pickle")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _prepare(key: str, poison: frozenset[int]) -> _Plan:
    stage, tables = _stage(key, poison)
    retried = take_back_failed(stage, tables) if _jobs[key].retry_failed else []
    missing = {shard: (rows.start, rows.stop) for shard, rows in tables.missing().items()}
    failed = sum(not any(low <= row < high for low, high in missing.values()) for row in tables.failures())
    return _Plan(tables.run.n, missing, failed, retried)


def _do_shard(key: str, poison: frozenset[int], shard: int) -> Written | None:
    stage, tables = _stage(key, poison)
    written = None
    for number, blocks in stage.shards({shard: tables.samples.shards[shard]}):
        written = stage.write(number, blocks, tables)
    return written


def _do_rows(key: str, poison: frozenset[int], rows: tuple[int, ...]) -> None:
    """Compute some rows and forget them: only to see whether the process lives."""
    stage, _ = _stage(key, poison)
    for _, blocks in stage.shards({0: range(rows[0], rows[-1] + 1)}):
        for block in blocks:
            stage.compute(block)


def _read_rows(key: str, poison: frozenset[int], rows: tuple[int, ...]) -> None:
    """Read some rows and forget them."""
    data = Quarantine(_jobs[key].data, poison)
    for row in rows:
        with contextlib.suppress(Exception):  # an error is no death
            data.sample(row)


def _stage(key: str, poison: frozenset[int]) -> tuple[Stage, Tables]:
    if (key, poison) not in _stages:
        job = _jobs[key]
        torch.set_num_threads(job.threads)
        device = _device(job.device)
        sharing = job.sharing if device.type == "cpu" else 1
        data = Quarantine(job.data, poison) if poison else job.data
        # A daemon may have no children: it reads its samples itself, as all workers do side by side.
        step = replace(job.step, workers=0) if multiprocessing.current_process().daemon else job.step
        made = prepared(job.model.to(device), data, step, device, job.out, sharing)
        _stages.clear()
        _stages[key, poison] = made
    return _stages[key, poison]


def _device(name: str) -> torch.device:
    """The device of this worker: of several GPUs the one with the worker's number."""
    if name != "cuda":
        return torch.device(name)
    worker = import_module("distributed").get_worker().name
    number = int(worker) if str(worker).isdecimal() else 0
    return torch.device("cuda", number % torch.cuda.device_count())
