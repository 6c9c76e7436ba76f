"""Attribution on many processes: Dask distributed, or processes that share the work by number without any engine.

The store's ledger is the only truth: a task writes one shard and returns its number. A worker that dies loses the
shard in flight, which is done again; a shard that kills two workers is searched for the rows that do it, and these
become failed rows, by number, without being read again.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

import stores
from spray.attribution.stage import Attribution, Stage, missing_shards
from spray.data import AuditData, Sample, as_audit_data
from spray.engine.errors import AttributionError
from spray.progress import Report, silent
from stores import Run, StoreBusy, Table

POISON = "every process that worked on it died"
_PATIENCE = 2
"""A shard that killed this many workers is searched for the rows that do it."""


class Poisonous(Exception):  # noqa: N818 - named after what is the matter
    """A sample that is not read again, because every process that did died."""


@dataclass(frozen=True)
class Quarantine:
    """A data set of which some rows are not touched: reading one raises, so that it becomes a failed row."""

    data: AuditData
    rows: frozenset[int]

    @property
    def classes(self) -> Sequence[str]:
        """Those of the data set."""
        return self.data.classes

    @property
    def ids(self) -> Sequence[str]:
        """Those of the data set."""
        return self.data.ids

    @property
    def metadata(self) -> Mapping[str, type]:
        """That of the data set."""
        return self.data.metadata

    @property
    def mean(self) -> Sequence[float] | None:
        """That of the data set."""
        return self.data.mean

    @property
    def std(self) -> Sequence[float] | None:
        """That of the data set."""
        return self.data.std

    def sample(self, row: int) -> Sample:
        """Sample ``row``.

        Raises:
            Poisonous: the row is in quarantine.
        """
        if row in self.rows:
            raise Poisonous(POISON)
        return self.data.sample(row)


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

    Start ``of`` processes with shares 0, 1, …; each can be stopped and started again. A shard that another
    process has claimed is left to it.

    Raises:
        AttributionError: ``share`` is not below ``of``; otherwise as ``attribute_dataset``.
    """
    if not 0 <= share < of:
        raise AttributionError(f"share {share} of {of}: shares go from 0 to {of - 1}.")
    stage = Stage(
        model.to(device), as_audit_data(dataset), attribution or Attribution(), torch.device(device)
    )
    run, samples, relevance = stage.tables(out)
    mine = range(share, len(samples.shards), of)
    for shard in missing_shards(samples, relevance):
        if shard in mine:
            with contextlib.suppress(StoreBusy):
                _write_shard(stage, samples, relevance, shard)
        done = sum(
            len(samples.shards[number]) for number in mine if number not in missing_shards(samples, relevance)
        )
        report(done, sum(len(samples.shards[number]) for number in mine), "attribute")
    return run


def attribute_on(
    client: Any,
    model: nn.Module,
    dataset: object,
    out: str | Path,
    attribution: Attribution | None = None,
    *,
    device: str = "cpu",
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
    job = Job(
        uuid.uuid4().hex,
        model.to("cpu"),
        as_audit_data(dataset),
        where,
        attribution or Attribution(),
        device,
        torch.get_num_threads(),
    )
    with _carried(client, job):
        _Driver(client, job, report).run()
    return stores.open(where, "r+")


class _Driver:
    """Hands out shards, a bounded number at a time, and finds out which rows kill workers."""

    def __init__(self, client: Any, job: Job, report: Report) -> None:
        self.client, self.job, self.report = client, job, report
        self.poison: frozenset[int] = frozenset()

    def run(self) -> None:
        """Until every shard is committed."""
        count, todo = self._prepared()
        done = count - sum(map(len, todo.values()))
        self.report(done, count, "attribute")
        deaths = dict.fromkeys(todo, 0)
        queue = deque(todo)
        for shard, died in self._each(queue, lambda shard: (_do_shard, shard)):
            if not died:
                done += len(todo[shard])
                self.report(done, count, "attribute")
                continue
            deaths[shard] += 1
            if deaths[shard] > 2 * _PATIENCE:
                raise AttributionError(self._hopeless(todo[shard]))
            if deaths[shard] >= _PATIENCE:
                self.poison |= self._culprits(list(todo[shard]), _do_rows)
            queue.append(shard)

    def _prepared(self) -> tuple[int, dict[int, range]]:
        """Number of samples, and the rows of each shard that is missing. A worker reads the first samples."""
        for _ in range(2 * _PATIENCE):
            answer, died = self._one(_prepare)
            if not died:
                count, shards = answer
                return count, {shard: range(low, high) for shard, (low, high) in shards.items()}
            first = min(len(self.job.data.ids), max(self.job.step.block, 8))
            self.poison |= self._culprits(list(range(first)), _read_rows)
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

    def _each(
        self, queue: deque[int], task_of: Callable[[int], tuple[Any, ...]]
    ) -> Iterator[tuple[int, bool]]:
        """Every item of a queue that may grow meanwhile, with whether its task killed its worker."""
        as_completed = import_module("distributed").as_completed
        completed = as_completed()
        running: dict[Any, int] = {}
        try:
            while queue or running:
                while queue and len(running) < max(1, len(self.client.nthreads())):
                    item = queue.popleft()
                    future = self._submit(*task_of(item))
                    running[future] = item
                    completed.add(future)
                future = next(completed)
                item, error = running.pop(future), future.exception()
                if error is not None and not self._killed(error):
                    raise error
                yield item, error is not None
        finally:
            for future in running:
                future.cancel()

    def _submit(self, task: Callable[..., Any], *arguments: Any) -> Any:
        return self.client.submit(task, self.job.key, self.poison, *arguments, pure=False, retries=0)

    def _killed(self, error: BaseException) -> bool:
        return isinstance(error, import_module("distributed").KilledWorker)

    def _hopeless(self, rows: range) -> str:
        return (
            f"Workers keep dying on samples {rows.start} to {rows.stop - 1}, and on none of these alone. What is "
            "committed is safe. Give the workers more memory or take a smaller block, and run it again."
        )


_jobs: dict[str, Job] = {}
_stages: dict[tuple[str, frozenset[int]], tuple[Stage, Table, Table]] = {}
"""What this worker process knows: a model is loaded once, and again only for another quarantine."""


@contextlib.contextmanager
def _carried(client: Any, job: Job) -> Iterator[None]:
    """The job is known to every worker, those that come later (or come back) included."""

    class Carry(import_module("distributed").WorkerPlugin):  # type: ignore[misc]
        name = f"spray-{job.key}"

        def __init__(self, carried: Job) -> None:
            self.job = carried

        def setup(self, worker: Any) -> None:
            import_module("spray.attribution.cluster")._jobs[self.job.key] = self.job

        def teardown(self, worker: Any) -> None:
            import_module("spray.attribution.cluster")._jobs.pop(self.job.key, None)

    client.register_plugin(Carry(job))
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone, and its workers with it
            client.unregister_worker_plugin(Carry.name)


def _prepare(key: str, poison: frozenset[int]) -> tuple[int, dict[int, tuple[int, int]]]:
    _, samples, relevance = _stage(key, poison)
    shards = missing_shards(samples, relevance)
    return samples.n, {shard: (rows.start, rows.stop) for shard, rows in shards.items()}


def _do_shard(key: str, poison: frozenset[int], shard: int) -> int:
    stage, samples, relevance = _stage(key, poison)
    _write_shard(stage, samples, relevance, shard)
    return shard


def _do_rows(key: str, poison: frozenset[int], rows: tuple[int, ...]) -> None:
    """Compute some rows and forget them: only to see whether the process lives."""
    stage, _, _ = _stage(key, poison)
    for _, blocks in stage.shards({0: range(rows[0], rows[-1] + 1)}):
        for block in blocks:
            stage.compute(block)


def _read_rows(key: str, poison: frozenset[int], rows: tuple[int, ...]) -> None:
    """Read some rows and forget them."""
    data = Quarantine(_jobs[key].data, poison)
    for row in rows:
        with contextlib.suppress(Exception):  # an error is no death
            data.sample(row)


def _stage(key: str, poison: frozenset[int]) -> tuple[Stage, Table, Table]:
    if (key, poison) not in _stages:
        job = _jobs[key]
        torch.set_num_threads(job.threads)
        device = _device(job.device)
        data = Quarantine(job.data, poison) if poison else job.data
        stage = Stage(job.model.to(device), data, job.step, device)
        _, samples, relevance = stage.tables(job.out)
        _stages.clear()
        _stages[key, poison] = stage, samples, relevance
    return _stages[key, poison]


def _device(name: str) -> torch.device:
    """The device of this worker: of several GPUs the one with the worker's number."""
    if name != "cuda":
        return torch.device(name)
    worker = import_module("distributed").get_worker().name
    number = int(worker) if str(worker).isdecimal() else 0
    return torch.device("cuda", number % torch.cuda.device_count())


def _write_shard(stage: Stage, samples: Table, relevance: Table, shard: int) -> None:
    for number, blocks in stage.shards({shard: samples.shards[shard]}):
        stage.write(number, blocks, samples, relevance)


@contextlib.contextmanager
def cluster(spec: str) -> Iterator[Any]:
    """A client for "local:4" (that many processes here), "tcp://host:port", or "slurm:profile.toml".

    A SLURM profile has ``jobs`` and a table ``[cluster]`` with the arguments of ``dask_jobqueue.SLURMCluster``.

    Raises:
        AttributionError: the text is none of these, or a package is missing.
    """
    try:
        distributed, dask = import_module("distributed"), import_module("dask")
    except ImportError as error:
        raise AttributionError("Clusters need Dask: pip install 'spray-audit[cluster]'.") from error
    kind, _, rest = spec.partition(":")
    options = {
        # A task that kills its worker is not handed to three more workers first: the shard is searched at once.
        "distributed.scheduler.allowed-failures": 0,
        # A worker that comes back slowly (importing torch takes its time) is not given up for lost.
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    with dask.config.set(options), contextlib.ExitStack() as stack:
        if kind == "local" and rest.isdecimal() and int(rest) > 0:
            made = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=int(rest), threads_per_worker=1, processes=True, dashboard_address=None
                )
            )
            yield stack.enter_context(distributed.Client(made))
        elif kind == "slurm" and rest:
            yield stack.enter_context(distributed.Client(stack.enter_context(_slurm(Path(rest)))))
        elif kind in ("tcp", "tls") and rest:
            yield stack.enter_context(distributed.Client(spec))
        else:
            raise AttributionError(
                f"cluster is '{spec}'; expected local:NUMBER, tcp://HOST:PORT or slurm:PROFILE.toml."
            )


def _slurm(profile: Path) -> Any:
    import tomllib

    try:
        content = tomllib.loads(profile.read_text(encoding="utf-8"))
        made = import_module("dask_jobqueue").SLURMCluster(**content.get("cluster", {}))
    except ImportError as error:
        raise AttributionError("SLURM needs dask-jobqueue: pip install 'spray-audit[cluster]'.") from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise AttributionError(f"The profile {profile} cannot be read: {error}") from error
    made.scale(jobs=int(content.get("jobs", 1)))
    return made
