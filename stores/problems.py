"""What a check finds: one problem of a store, and what was done about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was committed.

    ``kind`` is "bytes" (a file is missing or altered), "commit" (a commit record is), "metadata" (a document
    of a table, analysis or array is), "verdict", "lease" (of an owner that died), "held" (by an owner on
    another machine), "litter" (temporary files of a writer that died), "incomplete" (nothing is wrong, but the stage
    that writes it has not come so far, or its commit was lost), "failed" (a sample that was there before a repair, and
    could not be made again) or "note" (nothing is wrong, and it is worth knowing).
    """

    unit: str
    kind: str
    detail: str
    rows: tuple[int, int] | None = None
    """First row and one past the last, of a table's shard."""
    repaired: bool = False
    """Whether something was done about it: set right, or where ``redo`` says so, taken back."""
    redo: bool = False
    """Whether the stage that wrote the unit has to write it again, once it is repaired; it redoes just that."""
    failed: tuple[int, ...] | None = None
    """Rows of a shard that had failed before, where its commit could be read."""

    def __str__(self) -> str:
        rows = f", rows {self.rows[0]} to {self.rows[1] - 1}" if self.rows else ""
        done = (" (taken back)" if self.redo else " (repaired)") if self.repaired else ""
        return f"{self.unit}{rows}: {self.detail}{done}"


class Done(Protocol):
    """The problem, repaired if that was asked for and can be done."""

    def __call__(self, problem: Problem, repair: Callable[[], object] = ...) -> Problem:
        """``repair`` sets it right."""
