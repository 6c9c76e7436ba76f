"""JSON for other programs: only what the standard has."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def plain_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON in ASCII; NaN and infinities, which JSON has no words for, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
