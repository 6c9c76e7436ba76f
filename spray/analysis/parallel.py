"""Groups analysed side by side in processes of their own, results as they come; one thread in each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Result = TypeVar("Result")

WORTHWHILE = 20_000
"""Samples, over all groups, from which starting processes (a second or two of imports each) pays."""

_limited: ContextVar[bool] = ContextVar("limited", default=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the linear algebra inside: sums depend on how many there are, and the bytes of a result must not.

    Nor would more be faster: what is left to share beside sparse products is too small. May be nested, which then
    costs nothing.
    """
    if _limited.get():
        yield
        return
    token = _limited.set(True)
    try:
        with _libraries(len(sys.modules)).limit(limits=1):
            yield
    finally:
        _limited.reset(token)


def unvalidated() -> AbstractContextManager[None]:
    """Parameters and points are ours inside, and scikit-learn need not look at them, of which there are many."""
    from sklearn import config_context

    context: AbstractContextManager[None] = config_context(assume_finite=True, skip_parameter_validation=True)
    return context


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """Those of this process that have threads. Looking for them takes milliseconds: again only after imports."""
    return ThreadpoolController()


def worthwhile_workers(groups: Mapping[int, Sized], workers: int | None) -> int:
    """How many processes to use: as asked, or one per core where groups are many and large enough."""
    if workers is not None:
        if workers < 1:
            raise ValueError(f"at least one worker is needed; got workers={workers}.")
        return min(workers, max(len(groups), 1))
    if len(groups) < 2 or sum(map(len, groups.values())) < WORTHWHILE:
        return 1
    from joblib import cpu_count

    return min(int(cpu_count()), len(groups))


def in_processes(
    work: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[Result]:
    """``work(*job)`` for every job, in the order they finish; here in this process with one worker.

    Processes start afresh, without a copy of this one's threads and without its main module, so that
    scripts need no guard around their main part. They end with the last result, or with the first error,
    which is raised.
    """
    if workers == 1:
        for job in jobs:
            yield work(*job)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", max_nbytes=None)
        yield from parallel(delayed(work)(*job) for job in jobs)
    finally:
        get_reusable_executor().shutdown(wait=True)
