"""Samples that end the process that reads them: they are not read again, neither in this run nor in a later one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stores
from spray.data import AuditData, Sample, known_label

POISON = "every process that worked on it died"
"""How the reasons of such samples end."""


class Poisonous(Exception):  # noqa: N818 - named after what is the matter
    """A sample that is not read again, because every process that did died."""


@dataclass(frozen=True)
class Quarantine:
    """A data set of which some rows are not touched: reading one raises, so that it becomes a failed row."""

    data: AuditData
    rows: frozenset[int]

    @property
    def classes(self) -> Sequence[str]:
        """Those of the data set."""
        return self.data.classes

    @property
    def ids(self) -> Sequence[str]:
        """Those of the data set."""
        return self.data.ids

    @property
    def metadata(self) -> Mapping[str, type]:
        """That of the data set."""
        return self.data.metadata

    @property
    def mean(self) -> Sequence[float] | None:
        """That of the data set."""
        return self.data.mean

    @property
    def std(self) -> Sequence[float] | None:
        """That of the data set."""
        return self.data.std

    @property
    def labels(self) -> Mapping[int, int]:
        """Labels of the rows that are not touched, as far as the data set tells them without reading a sample."""
        return {row: known_label(self.data, row) for row in self.rows}

    def sample(self, row: int) -> Sample:
        """Sample ``row``.

        Raises:
            Poisonous: the row is in quarantine.
        """
        if row in self.rows:
            raise Poisonous(POISON)
        return self.data.sample(row)


def without_known_poison(data: AuditData, out: str | Path) -> AuditData:
    """The data set without the samples that the store at ``out`` knows as such."""
    try:
        samples = stores.open(out).table_at("samples")
    except stores.NotAStore:
        return data
    failures = {} if samples is None else samples.failures
    rows = frozenset(row for row, reason in failures.items() if reason.endswith(POISON))
    return Quarantine(data, rows) if rows else data
