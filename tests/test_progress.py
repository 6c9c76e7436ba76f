"""Progress: bars in a terminal, few plain lines elsewhere, and never a stranger's markup."""

import io
import os

import pytest
from rich.console import Console

from spray import progress as module
from spray.progress import Display, progress, silent


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_without_a_terminal(clock):
    text = io.StringIO()
    with progress(Console(file=text, width=80)) as report:
        for done in range(101):
            report(done, 100, "attribute [bold]")
            clock[0] += 0.2
        report(0, 2, "verify")
        report(2, 2, "verify")
    lines = text.getvalue().splitlines()
    assert lines[0] == "attribute [bold]: 0 of 100"
    assert lines[1] == "attribute [bold]: 25 of 100, 5/s, 15 s left"
    assert lines[-3:] == ["attribute [bold]: 100 of 100, 5/s", "verify: 0 of 2", "verify: 2 of 2"]
    assert len(lines) == 7


def test_a_resumed_stage_is_timed_from_where_it_went_on(clock):
    text = io.StringIO()
    with progress(Console(file=text, width=80)) as report:
        report(80, 100, "attribute")
        clock[0] += 10
        report(90, 100, "attribute")
    assert text.getvalue().splitlines() == ["attribute: 80 of 100", "attribute: 90 of 100, 1/s, 10 s left"]


def test_failures_are_told(clock):
    for terminal in (False, True):
        text = io.StringIO()
        with progress(Console(file=text, force_terminal=terminal, width=120)) as report:
            report(0, 10, "attribute", 0)
            clock[0] += 10
            report(10, 10, "attribute", 3)
        assert "3 failed" in text.getvalue()
        assert "0 failed" not in text.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_reader_that_goes_away_stops_the_display_and_nothing_else(clock, terminal):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as text:
        with progress(Display(file=text, force_terminal=terminal, width=80)) as report:
            for done in range(11):
                report(done, 10, "attribute")
                clock[0] += 10
        print("a warning of another part goes nowhere, too", file=text)
    assert done == 10


def test_bars_in_a_terminal():
    text = io.StringIO()
    with progress(Console(file=text, force_terminal=True, width=100)) as report:
        report(0, 10, "attribute")
        report(10, 10, "attribute")
        report(3, 3, "analysis")
    shown = text.getvalue()
    assert "attribute" in shown
    assert "10/10" in shown
    assert "3/3" in shown


def test_silence():
    assert silent(1, 2, "attribute") is None
