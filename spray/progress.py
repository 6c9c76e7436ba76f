"""Progress of long work: a bar in a terminal, one line every few seconds elsewhere, silence when asked."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 5.0


class Report(Protocol):
    """``report(done, total, what)``: called by long work whenever a piece is done; ``failed`` pieces count as done."""

    def __call__(self, done: int, total: int, what: str, failed: int = 0) -> None:
        """Arguments are positional."""


def silent(done: int, total: int, what: str, failed: int = 0) -> None:
    """Report to nobody."""


class Display(Console):
    """A console for progress: where its reader goes away (``| head``, a dropped log), the work goes on unseen."""

    def on_broken_pipe(self) -> None:
        """Drop what is still told, here and by others through the same file, in place of ending the process."""
        self.quiet = True
        with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """A reporter that writes to ``console``: rich bars, one per ``what``, or plain lines without a terminal."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    rates = _Rates()
    with Progress(*columns, console=console, transient=False) as bars:
        tasks = {}

        def report(done: int, total: int, what: str, failed: int = 0) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, rate="", failed="")
            rate = rates.of(done, what)
            bars.update(
                tasks[what], completed=done, total=total, rate=_per_second(rate), failed=_failures(failed)
            )

        yield report


class _Rates:
    """Pieces per second of each kind of work, since it began or went on."""

    def __init__(self) -> None:
        self.started: dict[str, tuple[float, int]] = {}

    def of(self, done: int, what: str) -> float:
        now = time.monotonic()
        then, first = self.started.setdefault(what, (now, done))
        return (done - first) / (now - then) if now > then else 0.0


class _Lines:
    """One line per ``what`` at its start and end, and every few seconds between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: dict[str, float] = {}
        self.rates = _Rates()

    def __call__(self, done: int, total: int, what: str, failed: int = 0) -> None:
        now, rate = time.monotonic(), self.rates.of(done, what)
        if done < total and now - self.last.get(what, -SECONDS_BETWEEN_LINES) < SECONDS_BETWEEN_LINES:
            return
        self.last[what] = now
        parts = [f"{what}: {done} of {total}", _per_second(rate)]
        if rate > 0 and done < total:
            parts.append(f"{(total - done) / rate:.0f} s left")
        parts.append(_failures(failed))
        self.console.print(", ".join(part for part in parts if part), highlight=False, markup=False)


def _per_second(rate: float) -> str:
    return f"{rate:.3g}/s" if 0 < rate < 100 else f"{rate:.0f}/s" if rate else ""


def _failures(count: int) -> str:
    return f"{count} failed" if count else ""
