"""What two audits have in common: computed by ``spray.comparison``, shown by ``reports.compare``, plain data here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from stores.provenance import Json

Change = Literal["kept", "moved", "vanished", "appeared", "unseen"]
CHANGES: Mapping[Change, str] = {
    "vanished": "only in the first audit",
    "appeared": "only in the second audit",
    "moved": "the same samples or the same shape of relevance, at another place",
    "kept": "in both",
    "unseen": "of a class that the other audit did not analyse",
}


@dataclass(frozen=True)
class Side:
    """One of the two audits."""

    store: str
    name: str
    analysis: str
    relevance: str
    samples: int
    findings: int
    flagged: int
    accuracy: float | None
    """Over all labelled samples."""


@dataclass(frozen=True)
class Strategy:
    """A finding as it is compared."""

    name: str
    samples: int
    score: float
    flagged: bool
    necessity: float | None
    sufficiency: float | None
    accuracy: float | None
    summary: str
    rows: tuple[int, ...] = dataclasses.field(repr=False)
    """Of the members in their own store."""
    region: Bool[np.ndarray, "y x"] | None = dataclasses.field(repr=False, compare=False)
    mean_map: Float[np.ndarray, "y x"] | None = dataclasses.field(repr=False, compare=False)


@dataclass(frozen=True)
class Pair:
    """A strategy of either audit, or of both where they correspond."""

    class_name: str
    """With both names, "three → drei", where the same samples have another one in the second audit."""
    change: Change
    left: Strategy | None
    right: Strategy | None
    jaccard: float | None = None
    """Common members over all members, of the samples that both audits have."""
    overlap: float | None = None
    """Intersection over union of the two regions."""
    likeness: float | None = None
    """Cosine of the two mean maps, each less the mean of its class; as they are where both are their whole class."""
    shift: tuple[int, int] | None = None
    """Cells (down, right) from the first place to the second, where only a move makes the maps alike."""
    elsewhere: float | None = None
    """Accuracy of the same samples in the audit that has no such strategy, where it has the samples."""

    @property
    def score(self) -> float:
        """The higher of the two suspicions."""
        return max(side.score for side in (self.left, self.right) if side is not None)

    @property
    def flagged(self) -> bool:
        """Whether either audit flags it."""
        return any(side.flagged for side in (self.left, self.right) if side is not None)


@dataclass(frozen=True)
class ClassSide:
    """A class in one audit."""

    samples: int
    accuracy: float | None
    findings: int
    flagged: int
    suspicion: float | None
    """The highest of its findings."""
    strategies: int
    """As the eigengap suggests."""


@dataclass(frozen=True)
class ClassChange:
    """A class in both audits; None where one does not have it."""

    class_name: str
    left: ClassSide | None
    right: ClassSide | None
    adjusted_rand: float | None
    """Of the two clusterings over common samples; None where there are none."""


@dataclass(frozen=True)
class Comparison:
    """Two audits side by side. Pairs and classes come with the highest suspicion first."""

    left: Side
    right: Side
    by: Literal["members", "maps"]
    shared: int
    """Samples, the same pixels under the same id, that both stores have."""
    pairs: tuple[Pair, ...]
    classes: tuple[ClassChange, ...]
    notes: tuple[str, ...] = ()

    def count(self, change: Change) -> int:
        """How many strategies changed like that."""
        return sum(pair.change == change for pair in self.pairs)

    def counts(self) -> str:
        """How many strategies changed like that, in words; "unseen" only where there are any."""
        told = [(self.count(change), change) for change in CHANGES]
        return ", ".join(f"{count} {change}" for count, change in told if count or change != "unseen")

    def to_json(self) -> dict[str, Json]:
        """Everything but the arrays and the rows of the members."""
        return {
            "format": "spray-comparison",
            "version": 1,
            "left": dataclasses.asdict(self.left),
            "right": dataclasses.asdict(self.right),
            "by": self.by,
            "shared": self.shared,
            "changes": {change: self.count(change) for change in CHANGES},
            "strategies": self.rows(),
            "classes": [dataclasses.asdict(entry) for entry in self.classes],
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat record for each pair, for a table."""
        names = ("name", "samples", "score", "flagged", "necessity", "sufficiency", "accuracy", "summary")
        records = []
        for pair in self.pairs:
            record: dict[str, Any] = {"class": pair.class_name, "change": pair.change}
            for side, strategy in (("left", pair.left), ("right", pair.right)):
                record |= {f"{side}_{name}": getattr(strategy, name, None) for name in names}
            record |= {name: getattr(pair, name) for name in ("jaccard", "overlap", "likeness", "elsewhere")}
            down, right = pair.shift or (None, None)
            records.append(record | {"shift_down": down, "shift_right": right})
        return records

    def columns(self) -> dict[str, list[Any]]:
        """The same as columns of a sheet, with empty cells where a side has nothing."""
        records = self.rows()
        names = list(records[0]) if records else ["class", "change"]
        return {name: ["" if record[name] is None else record[name] for record in records] for name in names}
