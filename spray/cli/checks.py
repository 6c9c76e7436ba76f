"""What the engine checked of every sample, summed up: is the relevance that came out what was put in?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from stores import Run, Table

OUTLYING = 10
"""A sample is an outlier where Σ|R| / |ΣR| is so many times the median: its relevance may have blown up."""
MOSTLY_ABSORBED = 0.9
"""Maps of the rest show what hardly counts."""
UNACCOUNTED = 0.01
"""Share of the relevance put in beyond which what is found nowhere is more than rounding."""


def checks(run: Run, table: Table) -> dict[str, float]:
    """Counts and medians over the samples that did not fail; empty where a table has no such columns.

    ``unaccounted`` counts samples of which more than 1 % of what was put in is neither at the input nor absorbed.
    """
    import numpy as np

    if not {"start", "sum", "absolute"} <= table.columns.keys() or not table.ok.any():
        return {}
    rows = np.flatnonzero(table.ok)
    start, total, absolute = (table.read(name, rows) for name in ("start", "sum", "absolute"))
    spread = absolute / np.maximum(np.abs(total), np.finfo(np.float64).tiny)
    found = {
        "median_spread": float(np.median(spread)),
        "outliers": int((spread > OUTLYING * np.median(spread)).sum()),
    }
    signs = _signs(run, table, rows, start)
    if not np.isnan(signs).all():
        found["negative_starts"] = int((signs < 0).sum())
    started = np.flatnonzero(np.nan_to_num(start))
    if "absorbed" in table.columns and len(started):
        share = table.read("absorbed", rows)[started] / start[started]
        found["median_absorbed"] = float(np.median(share))
    if "unaccounted" in table.columns and len(started):
        share = np.abs(table.read("unaccounted", rows)[started] / start[started])
        found |= {
            "unaccounted": int((share > UNACCOUNTED).sum()),
            "median_unaccounted": float(np.median(share)),
            "largest_unaccounted": float(share.max()),
        }
    return found


def in_words(found: Mapping[str, float]) -> str:
    """The same in words."""
    parts = [
        f"{found['negative_starts']:,} samples start from a negative logit"
        if "negative_starts" in found
        else "where relevance started is not known",
        f"Σ|R| / |ΣR| {found['median_spread']:.3g} (median), {found['outliers']:,} outliers",
    ]
    if "median_absorbed" in found:
        parts.append(
            f"{_percent(found['median_absorbed'])} of the relevance absorbed by biases and ε (median)"
        )
        if found["median_absorbed"] > MOSTLY_ABSORBED:
            parts.append("hardly any reaches the input: try --composite epsilon_plus_flat_no_bias")
    if "unaccounted" in found:
        amounts = f"median {_percent(found['median_unaccounted'])}, largest {_percent(found['largest_unaccounted'])}"
        parts.append(
            f"relevance in and out differ by more than {_percent(UNACCOUNTED)} in {found['unaccounted']:,} samples "
            f"({amounts})"
        )
        if found["median_unaccounted"] > UNACCOUNTED:
            parts.append(
                "this composite does not conserve relevance here: do not read its maps as shares of the logit"
            )
    return "; ".join(parts)


def _signs(run: Run, table: Table, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """What is negative where a map's signs are turned around; starts of 1 hide it, the target's logit shows it."""
    import numpy as np

    if not any(_of_one(step) for step in table.provenance.steps):
        return start
    logits = run.samples.read("logits", rows)
    return np.asarray(logits[np.arange(len(rows)), table.read("target", rows)])


def _of_one(step: Mapping[str, Any]) -> bool:
    start = step.get("start")
    return start == "unit" or (isinstance(start, Mapping) and start.get("name") == "unit")


def _percent(share: float) -> str:
    """Two digits, more only before the point: .2g would write 120 % as 1.2e+02."""
    percent = 100 * share
    return f"{percent:.0f} %" if abs(percent) >= 99 else f"{percent:.2g} %"
