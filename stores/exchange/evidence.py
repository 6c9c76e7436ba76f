"""What interventions showed of findings, as columns of numbers and text for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stores.analysis import Finding
from stores.plain_json import plain_json

TOLD = (
    "where",
    "region_by",
    "candidate",
    "p_value",
    "q_value",
    "unmet",
    "pasted_on",
    "flip_rates",
    "channels",
)
"""Of the record of a finding."""
TOLD_OF_EFFECTS = (
    "measure",
    "mean",
    "net",
    "net_interval",
    "p_value",
    "images",
    "net_images",
    "way",
    "controls",
)
"""Of its removal and its transplant."""


def evidence_columns(findings: Sequence[Finding | None]) -> dict[str, list[Any]]:
    """Columns for some findings, one row each; ``evidence`` is the whole record, as JSON.

    Counts are integers. What a finding lacks is None in a column of counts, NaN in one of other numbers, empty in one
    of text and false in ``tested`` and ``confirmed``.
    """
    records = [{} if finding is None else finding.evidence for finding in findings]
    rows = [_figures(record) for record in records]
    columns: dict[str, list[Any]] = {
        "tested": ["removal" in record for record in records],
        "confirmed": [record.get("confirmed") is True for record in records],
    }
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        columns[name] = _filled(values)
    columns["evidence"] = [plain_json(record) if record else "" for record in records]
    return columns


def _figures(record: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Figures of one record by dotted name."""
    figures: dict[str, int | float | str] = {}
    for name in TOLD:
        _put(figures, name, record.get(name))
    for effect in ("removal", "transplant"):
        told: Mapping[str, Any] = record.get(effect) or {}
        for name in TOLD_OF_EFFECTS:
            _put(figures, f"{effect}.{name}", told.get(name))
    return figures


def _put(figures: dict[str, int | float | str], name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _put(figures, f"{name}.{key}", entry)
    elif name.endswith("_interval") and isinstance(value, list) and len(value) == 2:
        _put(figures, f"{name}.low", value[0])
        _put(figures, f"{name}.high", value[1])
    elif isinstance(value, list):
        figures[name] = "; ".join(map(str, value))
    elif isinstance(value, str) or _is_count(value):
        figures[name] = value
    elif value is not None:
        figures[name] = float(value)


def _filled(values: Sequence[int | float | str | None]) -> list[int | float | str | None]:
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return ["" if value is None else str(value) for value in values]
    if all(map(_is_count, known)):
        return list(values)
    return [float("nan") if value is None else float(value) for value in values]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
