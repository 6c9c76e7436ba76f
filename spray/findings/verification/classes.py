"""What an intervention is told about a class: the relevance of its samples, and who may be members or hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spray.findings.channels import unit_vectors
from spray.findings.regions import grown, unit_maps
from spray.findings.verification.judge import PROBABILITY

AROUND = 2
"""Cells around a region by which a sample's relevance there is told: what is at its rim belongs to it, too."""

ReadInputs = Callable[[Int[np.ndarray, " n"]], Float[Tensor, "n ..."]]
"""Inputs by row number."""


class Locator(Protocol):
    """Finds relevant regions, of one map or shared by several."""

    def of(self, contrast: Float[np.ndarray, ...], cells: int | None = None) -> Bool[np.ndarray, ...]:
        """The region of one map, of so many cells if given."""
        ...

    def shared(
        self, members: Float[np.ndarray, "m ..."], rest: Float[np.ndarray, "r ..."]
    ) -> Bool[np.ndarray, ...]:
        """Where members have relevance that the rest lacks."""
        ...


@dataclass(frozen=True)
class Candidate:
    """Rows that may share a strategy, in a class of rows that else follow others; ``region``, where it is known.

    ``mode``: which share of them was found to be a mode of its own by what their images show, held out; 0 if not asked.
    """

    rows: Int[np.ndarray, " m"]
    region: Bool[np.ndarray, ...] = field(default_factory=lambda: np.zeros(0, bool))
    mode: float = 0.0


@dataclass(frozen=True)
class ClassMaps:
    """Relevance of the samples of one class by place, or by channel of a layer, and which samples may serve as hosts.

    Attributes:
        target: the class whose score is read.
        hosts: rows that are not of the class; those that are a candidate's members are none of its hosts.
        host_labels: their labels, −1 where unknown.
        layer: the module of the channels; empty for relevance by place.
        measure: the column of ``Readings`` that decides.
        contents: what the images of the rows show in each cell of the maps; None where nobody looked.
    """

    target: int
    rows: Int[np.ndarray, " n"]
    maps: Float[np.ndarray, "n ..."]
    hosts: Int[np.ndarray, " h"]
    host_labels: Int[np.ndarray, " h"]
    layer: str = ""
    measure: int = PROBABILITY
    contents: Float[np.ndarray, "n c y x"] | None = None

    def of(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m ..."]:
        """Unit maps of some rows of the class."""
        maps = self.maps[np.searchsorted(self.rows, rows)]
        return unit_vectors(maps) if self.layer else unit_maps(maps)

    def around(self, region: Bool[np.ndarray, ...]) -> Float[np.ndarray, "n d"]:
        """Of all rows, the relevance in a region of the unit maps and, where it has places, a little around it."""
        inside: Float[np.ndarray, "n d"] = self.of(self.rows)[
            :, region if self.layer else grown(region, AROUND)
        ]
        return inside
