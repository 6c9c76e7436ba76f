"""Clusters of Dask workers: processes here, a scheduler that runs already, or jobs of SLURM."""

from __future__ import annotations

import contextlib
import tomllib
import traceback
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from spray.engine.errors import AttributionError

DEFAULTS: Mapping[str, Any] = {
    "processes": 1,
    "cores": 1,
    "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
}
"""Unless the profile says otherwise: one process with one thread in each job (one per GPU), and no web page that any
user of the machine could open."""
COUNTS = ("processes", "cores")
CALM = """
import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
told = "Compute Failed"
logging.getLogger("distributed.worker").addFilter(lambda record: not record.getMessage().startswith(told))
"""
"""What workers on this machine run first: a terminal sends Ctrl-C to all, and who hands out the work answers; errors
are told once, by him."""


@contextlib.contextmanager
def cluster(spec: str) -> Iterator[Any]:
    """A client for "local:4" (that many processes here), "tcp://host:port", or "slurm:profile.toml".

    Raises:
        AttributionError: the text is none of these, a package is missing, or the profile cannot be followed.
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
                    n_workers=int(rest),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    scheduler_kwargs=DEFAULTS["scheduler_options"],
                    preload=[CALM],
                )
            )
            yield stack.enter_context(distributed.Client(made))
        elif kind == "slurm" and rest:
            made, jobs = slurm(Path(rest))
            stack.enter_context(made)
            made.scale(jobs=jobs)
            client = stack.enter_context(distributed.Client(made))
            client.wait_for_workers(1)  # jobs may wait in the queue for hours
            yield client
        elif kind in ("tcp", "tls") and rest:
            try:
                client = distributed.Client(spec)
            except OSError as error:
                raise AttributionError(f"No Dask scheduler answers at {spec}: {error}") from error
            yield stack.enter_context(client)
        else:
            raise AttributionError(
                f"cluster is '{spec}'; expected local:NUMBER, tcp://HOST:PORT or slurm:PROFILE.toml."
            )


def slurm(profile: Path) -> tuple[Any, int]:
    """A ``dask_jobqueue.SLURMCluster`` with no job submitted yet, and how many jobs the profile asks for.

    The profile is TOML: ``jobs`` (a number, 1 if left out) and a table ``[cluster]`` with arguments of
    ``SLURMCluster``. ``made.job_script()`` shows what would be submitted. ::

        jobs = 4
        [cluster]
        queue = "gpu"
        memory = "32GB"
        walltime = "12:00:00"
        job_extra_directives = ["--gres=gpu:1"]

    Raises:
        AttributionError: dask-jobqueue is missing; the profile cannot be read, or an entry of it not be followed.
    """
    jobs, arguments = _read(profile)
    try:
        made = import_module("dask_jobqueue").SLURMCluster(**{**DEFAULTS, **arguments})
    except ImportError as error:
        raise AttributionError("SLURM needs dask-jobqueue: pip install 'spray-audit[cluster]'.") from error
    except (TypeError, ValueError, RuntimeError) as error:
        refusal = f"{profile}: dask_jobqueue.SLURMCluster refuses the entries of [cluster]: {error}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it complains that it was never finished
            traceback.clear_frames(error.__traceback__)
    else:
        return made, jobs
    raise AttributionError(refusal)


def _read(profile: Path) -> tuple[int, Mapping[str, Any]]:
    try:
        content = tomllib.loads(profile.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AttributionError(f"The profile {profile} cannot be read: {error}") from error
    jobs, arguments = content.get("jobs", 1), content.get("cluster")
    if unknown := sorted(content.keys() - {"jobs", "cluster"}):
        raise AttributionError(f"{profile}: unknown entry '{unknown[0]}'. Known here: cluster, jobs.")
    if type(jobs) is not int or jobs < 1:
        raise AttributionError(f"{profile}: jobs is {jobs!r}, expected a number from 1 on.")
    if not isinstance(arguments, dict) or "memory" not in arguments:
        raise AttributionError(
            f'{profile}: expected a table [cluster] with at least memory, such as memory = "32GB"; other entries are '
            "the arguments of dask_jobqueue.SLURMCluster: queue, account, walltime, job_extra_directives, …"
        )
    if wrong := [name for name in COUNTS if type(arguments.get(name, 1)) is not int]:
        raise AttributionError(f"{profile}: {wrong[0]} is {arguments[wrong[0]]!r}, expected a number.")
    return jobs, arguments
