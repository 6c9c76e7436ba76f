"""The command line that the work was started with, where there is one: for the log, and to say how to go on."""

from __future__ import annotations

from contextvars import ContextVar

COMMAND: ContextVar[str | None] = ContextVar("command", default=None)
