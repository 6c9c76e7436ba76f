"""Progress of long work: a bar in a terminal, one line every few seconds elsewhere, silence when asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]
"""``report(done, total, what)``: called by long work whenever a piece is done."""

SECONDS_BETWEEN_LINES = 5.0


def silent(done: int, total: int, what: str) -> None:
    """Report to nobody."""


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """A reporter that writes to ``console``: rich bars, one per ``what``, or plain lines without a terminal."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as bars:
        tasks = {}
        started: dict[str, tuple[float, int]] = {}

        def report(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, rate="")
                started[what] = (time.monotonic(), done)
            then, first = started[what]
            rate = (done - first) / max(time.monotonic() - then, 1e-9)
            bars.update(tasks[what], completed=done, total=total, rate=f"{rate:.0f}/s" if rate >= 1 else "")

        yield report


class _Lines:
    """One line per ``what`` at its start and end, and every few seconds between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last: dict[str, float] = {}
        self.started: dict[str, tuple[float, int]] = {}

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        then, first = self.started.setdefault(what, (now, done))
        if done < total and now - self.last.get(what, -SECONDS_BETWEEN_LINES) < SECONDS_BETWEEN_LINES:
            return
        self.last[what] = now
        rate = (done - first) / (now - then) if now > then else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        self.console.print(f"{what}: {done} of {total}{left}", highlight=False, markup=False)
