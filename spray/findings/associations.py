"""Do a finding's members differ from the rest of their class in a metadata column? With correction for many tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from spray.findings.verification.significance import benjamini_hochberg
from stores.provenance import Json

EXPECTED_AT_LEAST = 5
"""Values so rare that fewer members than this are expected to have them count as one (Cochran 1954)."""
AT_LEAST = 5
"""Fewer known values on a side are no sample."""
CODES_AT_MOST = 20
"""Whole numbers of so few values may be codes (a hospital, a scanner) as well as amounts."""


@dataclass(frozen=True)
class Association:
    """One column's test. ``effect`` is Cramér's V for values, |rank-biserial correlation| for numbers: 0 to 1."""

    column: str
    test: str
    effect: float
    p_value: float

    def to_json(self) -> dict[str, Json]:
        """For the store."""
        return asdict(self)


def associations(columns: Mapping[str, np.ndarray], members: Bool[np.ndarray, " m"]) -> list[Association]:
    """One test for each column that has at least two values among enough samples on both sides.

    Text: χ² of the table of values by membership. Numbers: Mann and Whitney's U. Whole numbers of few values: both, of
    which the smaller p-value counts, twice (Bonferroni).
    """
    tested = (_tested(name, values, members) for name, values in columns.items())
    return [one for one in tested if one is not None]


def _tested(name: str, values: np.ndarray, members: Bool[np.ndarray, " m"]) -> Association | None:
    if values.dtype.kind not in "fiub":
        return _values(name, values, members)
    as_amounts = _numbers(name, values, members)
    if values.dtype.kind == "f" or len(np.unique(values)) > CODES_AT_MOST:
        return as_amounts
    both = [one for one in (as_amounts, _values(name, values, members)) if one is not None]
    if len(both) < 2:
        return next(iter(both), None)
    best = min(both, key=lambda one: one.p_value)
    return replace(best, p_value=min(2 * best.p_value, 1.0))


def corrected(found: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The associations of all findings with q-values over all columns and findings (Benjamini and Hochberg)."""
    q_values = iter(benjamini_hochberg([float(one["p_value"]) for many in found for one in many]))
    return [[{**one, "q_value": next(q_values)} for one in many] for many in found]


def _values(name: str, values: np.ndarray, members: Bool[np.ndarray, " m"]) -> Association | None:
    from scipy.stats import chi2_contingency

    known = np.array([str(value) != "" for value in values], bool)
    kinds, codes = np.unique(np.array([str(value) for value in values[known]]), return_inverse=True)
    inside = members[known]
    sizes = np.bincount(codes, minlength=len(kinds))
    smaller = min(int(inside.sum()), int((~inside).sum()))
    if smaller < AT_LEAST or len(kinds) < 2:
        return None
    rare = sizes * smaller / len(inside) < EXPECTED_AT_LEAST
    codes = np.unique(np.where(rare[codes], -1, codes), return_inverse=True)[1]
    if codes.max() == 0:
        return None
    table = np.array([np.bincount(codes[side], minlength=codes.max() + 1) for side in (inside, ~inside)])
    result = chi2_contingency(table, correction=False)
    effect = float(np.sqrt(result.statistic / table.sum()))  # one side has two rows: V = √(χ²/n)
    return Association(name, "chi-square", effect, float(result.pvalue))


def _numbers(name: str, values: np.ndarray, members: Bool[np.ndarray, " m"]) -> Association | None:
    from scipy.stats import mannwhitneyu

    numbers = values.astype(np.float64)
    known = np.isfinite(numbers)
    inside, outside = numbers[known & members], numbers[known & ~members]
    if min(len(inside), len(outside)) < AT_LEAST or np.ptp(numbers[known]) == 0:
        return None
    result = mannwhitneyu(inside, outside)
    effect = abs(2 * float(result.statistic) / (len(inside) * len(outside)) - 1)
    return Association(name, "Mann-Whitney U", effect, float(result.pvalue))
