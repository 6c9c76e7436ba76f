"""The errors of attribution: each says what came, what was expected, and the next move."""

# ruff: noqa: N818 - each is named after what is the matter

from __future__ import annotations


class AttributionError(Exception):
    """Relevance cannot be computed for this model and input."""


class UnsupportedOperation(AttributionError):
    """The model uses an operation that has no rule, or in a way for which there is none."""


class BadModel(AttributionError):
    """The model is not in a state that can be explained: training mode, NaN weights, half precision."""


class BadInput(AttributionError, ValueError):
    """The inputs, targets or layer names do not fit the model; ``rows`` are the offending samples, if any."""

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


def few(rows: tuple[int, ...]) -> str:
    """The first of many rows, for a message."""
    return ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
