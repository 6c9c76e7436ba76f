"""The commands. Each imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import contextlib
import errno
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from spray.cli.options import (
    LocalPath,
    analysis_options,
    attribution_options,
    data_options,
    device_option,
    json_option,
    model_options,
    quiet_option,
    settings,
    verify_options,
)
from spray.cli.output import (
    printable,
    reporting,
    show_analysis,
    show_audit,
    show_demo,
    show_json,
    show_run,
    warn,
)
from spray.cli.problems import show_problems
from spray.config import report_beside
from spray.invocation import COMMAND

FAILED, INTERRUPTED = 1, 130
OURS = frozenset({"spray", "stores", "reports"})


class Group(click.Group):
    """Lists commands in the order of an audit, and turns known errors into one message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands as they were defined."""
        return list(self.commands)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """The command's context; remembers the line as it was given."""
        COMMAND.set(shlex.join([Path(info_name or "spray").name, *args]))
        return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors that are for the user are shown without a traceback."""
        try:
            with _stopped_in_good_order():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # Readers ahead end with what holds them; at the end of the process their end would be taken for a crash.
            traceback.clear_frames(stop.__traceback__)
            click.echo(
                "Interrupted. What is committed is kept: the same command goes on from there.\n"
                f"  {printable(COMMAND.get())}",
                err=True,
            )
            sys.exit(stop.code if isinstance(stop, Terminated) else INTERRUPTED)
        except Exception as error:
            if not _for_the_user(error):
                raise
            click.echo(f"Error: {printable(_in_words(error))}", err=True)
            if isinstance(error, MemoryError) or _is_full(error):
                click.echo(f"  {printable(COMMAND.get())}", err=True)
            sys.exit(FAILED)
        finally:
            COMMAND.set(None)


ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What batch systems send before they take the machine away, and a terminal that is lost."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextlib.contextmanager
def _stopped_in_good_order() -> Iterator[None]:
    """A request to end is answered like Ctrl-C, so that no claim is left behind for other machines to wonder at."""

    def end(number: int, frame: object) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup sets it
    before = {number: signal.signal(number, end) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _for_the_user(error: Exception) -> bool:
    """Whether an error is no defect: of our own types, a refusal that our code raised, or the machine's."""
    if type(error).__module__.partition(".")[0] in OURS or isinstance(error, OSError | MemoryError):
        return True
    # A lookup that failed unexpectedly names a bare key; a refusal is a sentence.
    if not (isinstance(error, ValueError) or (isinstance(error, KeyError) and " " in str(error.args[0]))):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return _package(frame.f_globals) in OURS


def _in_words(error: Exception) -> object:
    """What is told of an error; of a machine that is too small what to do about it, before the command is repeated."""
    if isinstance(error, MemoryError):
        told = f" ({error})" if str(error) else ""
        return (
            f"Memory ran out{told}. What is committed is kept: free some, or take fewer workers, smaller groups or "
            "smaller images, then go on with"
        )
    if _is_full(error):
        assert isinstance(error, OSError)
        place = f" of {error.filename}" if error.filename else ""
        return (
            f"The disk{place} is full ({error.strerror}). What is there is whole: free some space, then run the same "
            "command again"
        )
    return error.args[0] if isinstance(error, KeyError) else error


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _package(names: Mapping[str, Any]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spray-audit")
def main() -> None:
    """Find, rank and prove the shortcuts that an image classifier takes, over a whole data set.

    \b
    Examples:
      spray demo                                   a planted shortcut, found (two minutes)
      spray audit --model model.py:load --data images/ --out run.zarr
      spray audit audit.toml                       the same from a file
      spray info run.zarr                          what a store holds

    Every stage goes on where it was interrupted. Exit codes: 0 done; 1 refused or failed, with one message that says
    what to change; 2 no such command or option; 3 (check) incomplete; 130 interrupted.
    """


@main.command()
@click.option(
    "--out", type=LocalPath(file_okay=False, path_type=Path), default=Path("demo"), show_default=True
)
@click.option("--seed", type=int, default=0, show_default=True)
@quiet_option
@json_option
def demo(out: Path, seed: int, quiet: bool, as_json: bool) -> None:
    """Plant a tag in a fifth of the shirts of Fashion-MNIST, train on it, and let the audit find it.

    \b
    Writes OUT/report.html (open it in a browser), OUT/audit.zarr, OUT/control.zarr (the same images, a model
    trained without tags) and OUT/summary.json.
    """
    from spray.demo.run import Demo

    with reporting(quiet) as report:
        summary = Demo(seed=seed).run(out, report)
    if as_json:
        show_json(summary)
        return
    show_demo(summary, out)


@main.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path), required=False)
@model_options
@data_options
@attribution_options
@analysis_options
@verify_options
@device_option
@click.option("--out", help="The store.  [default: audit.zarr]")
@click.option(
    "--report", "report_path", help="The report; an older one there is replaced.  [default: report.html]"
)
@quiet_option
@json_option
def audit(config: Path | None, quiet: bool, as_json: bool, **flags: Any) -> None:
    """All stages: attribute, analyze, verify, report. Resumes where it was interrupted.

    \b
    Examples:
      spray audit --model torchvision:resnet18 --weights resnet18.pt --data photos/ --classes names.txt
      spray audit audit.toml --device cuda
    """
    from spray.workflow import run_config

    chosen = settings(config, flags)
    with reporting(quiet) as report:
        done = run_config(chosen, report)
        report(0, 1, "report")
        page = done.report(chosen.report)
        report(1, 1, "report")
    show_audit(done, as_json, page)


@main.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path), required=False)
@model_options
@data_options
@attribution_options
@device_option
@click.option("--out", help="The store.  [default: audit.zarr]")
@click.option("--cluster", "cluster_spec", help="local:NUMBER, tcp://HOST:PORT or slurm:PROFILE.toml (Dask).")
@click.option("--shards", "share", help="i::n: only every n-th shard from i on, beside other processes.")
@click.option(
    "--retry-failed", is_flag=True, help="Compute shards anew whose failed samples can be read by now."
)
@quiet_option
@json_option
def attribute(
    config: Path | None,
    cluster_spec: str | None,
    share: str | None,
    retry_failed: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compute and store the relevance of every sample.

    A sample that cannot be read is a failed row, and stays one: where it was the disk's fault, --retry-failed computes
    its shard anew, of the samples or of this composite's relevance. Analyses made before keep to the samples they
    were made of.

    \b
    Examples:
      spray attribute --model model.py:load --data images/ --out run.zarr --layer layer4
      spray attribute audit.toml --cluster local:4
      spray attribute audit.toml --shards 0::2 & spray attribute audit.toml --shards 1::2
      spray attribute audit.toml --retry-failed
    """
    from spray.workflow import attribute_config

    with reporting(quiet) as report:
        run = attribute_config(
            settings(config, flags),
            cluster_spec=cluster_spec,
            share=share,
            retry_failed=retry_failed,
            report=report,
        )
    show_run(run, as_json)


@main.command()
@click.argument("store", type=str)
@click.option("--relevance", help="Relevance table, where there are several.")
@analysis_options
@device_option
@quiet_option
@json_option
def analyze(store: str, relevance: str | None, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Group the stored relevance of every class into strategies, and rank them (untested).

    \b
    Example:
      spray analyze run.zarr --column layer4.channel
    """
    import stores
    from spray import analysis, findings
    from spray.analysis.groups import choose_table
    from spray.workflow import Audit, analysis_step, choose_device, findings_step, group_by_of, suited_to

    given = settings(None, flags)
    chosen = given.analysis
    run = stores.open(store, "r+")
    table = choose_table(run, relevance)
    with reporting(quiet) as report:
        handle = analysis.analyze(
            run,
            suited_to(run, table, chosen.column, analysis_step(chosen)),
            relevance=table,
            column=chosen.column,
            group_by=group_by_of(chosen.group_by),
            device=str(choose_device(given.device)),
            progress=report,
        )
        if not handle.searched:
            findings.find(run, handle, findings_step(given.verify), report=report)
    show_analysis(Audit(run, handle), as_json)


@main.command()
@click.argument("store", type=str)
@click.option("--analysis", "analysis_id", help="Id of an analysis; the newest if left out.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="The audit.toml of the audit."
)
@model_options
@data_options
@verify_options
@click.option("--clustering", help="Whose clusters become findings.  [default: hdbscan, if it was analysed]")
@device_option
@quiet_option
@json_option
def verify(
    store: str, analysis_id: str | None, config: Path | None, quiet: bool, as_json: bool, **flags: Any
) -> None:
    """Test the findings by intervention: remove each shared region, transplant it, compare with controls.

    \b
    Examples:
      spray verify run.zarr --model model.py:load --data images/
      spray verify run.zarr --config audit.toml --rank separation=1,confidence=0.5
    """
    import stores
    from spray.findings import find
    from spray.workflow import Audit, choose_device, findings_step, load_data, model_of

    chosen = settings(config, flags)
    run = stores.open(store, "r+")
    handle = run.analysis(analysis_id)
    with reporting(quiet) as report:
        find(
            run,
            handle,
            findings_step(chosen.verify),
            model=model_of(chosen.model),
            dataset=load_data(chosen.data),
            device=choose_device(chosen.device),
            report=report,
        )
    show_audit(Audit(run, handle), as_json)


@main.command()
@click.argument("store", type=str)
@click.option(
    "--out",
    type=LocalPath(dir_okay=False, path_type=Path),
    help="The page; beside the store if left out. An older report there is replaced.",
)
@click.option("--analysis", "analysis_id", help="Id of an analysis; the newest tested one if left out.")
@click.option("--title", help="Title of the report.")
@click.option(
    "--carrier",
    type=click.Choice(["auto", "file", "folder"]),
    default="auto",
    show_default=True,
    help="One file, or a folder for large runs.",
)
@json_option
def report(
    store: str, out: Path | None, analysis_id: str | None, title: str | None, carrier: Any, as_json: bool
) -> None:
    """Write the report: HTML that needs no network and no server.

    \b
    Example:
      spray report run.zarr --out report.html
    """
    import reports
    import stores
    from stores.circumstances import circumstances

    written = reports.write(
        store, out or report_beside(store), analysis=analysis_id, title=title, carrier=carrier
    )
    run = stores.open(store)
    warn(circumstances(run, run.shown_analysis(analysis_id)))
    if as_json:
        show_json({"report": str(written.path), "bytes": written.bytes, "carrier": written.carrier})
    else:
        click.echo(f"{written.path} ({written.bytes / 2**20:.1f} MiB): {written.reason}")


@main.command()
@click.argument("store", type=str)
@json_option
def info(store: str, as_json: bool) -> None:
    """What a store holds: samples, failures, relevance, analyses, findings, verdicts.

    \b
    Example:
      spray info run.zarr --json
    """
    import stores

    show_run(stores.open(store), as_json)


@main.command()
@click.argument("store", type=str)
@click.option(
    "--repair", is_flag=True, help="Take back what is damaged; with a model and data, redo just that at once."
)
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="The audit.toml of the audit."
)
@model_options
@data_options
@attribution_options
@analysis_options
@device_option
@quiet_option
@json_option
def check(store: str, repair: bool, config: Path | None, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Compare every committed byte of a store with its checksum, and name what is not written.

    Exit codes: 0 sound and complete; 1 something is damaged; 3 nothing is (any more), but parts are to be written.

    --repair takes back the shards, groups and findings that are damaged; everything else stays as it is. The command
    that wrote them redoes just those; so does --repair itself where it is told the model, the data and the settings.

    \b
    Examples:
      spray check run.zarr
      spray check run.zarr --repair --config audit.toml
    """
    import stores

    chosen = settings(config, flags)
    with reporting(quiet or as_json) as report:
        problems = stores.check(store, repair=repair, report=report)
    left: list[str] | None = None
    if repair and any(it.redo for it in problems) and chosen.model.spec and chosen.data.spec:
        from spray.repair import redo

        with reporting(quiet) as report:
            left, failed = redo(store, chosen, problems, report)
            problems += failed
    sys.exit(show_problems(store, problems, repair, left, as_json))
