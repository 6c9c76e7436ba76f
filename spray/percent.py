"""Shares as people read them."""

from __future__ import annotations


def share(value: float | None) -> str:
    """A share as percentage; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"
