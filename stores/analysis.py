"""What the spectral analysis of one class is: plain arrays, written by compute and read by reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from stores.provenance import Json

ALL_CLASSES = -1
"""The group index of a joint analysis over all classes."""


@dataclass(frozen=True)
class Clustering:
    """Labels of one clustering; −1 is noise. ``outlier`` is higher for stranger samples, where there is one."""

    labels: Int[np.ndarray, " m"]
    outlier: Float[np.ndarray, " m"] | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from stores.shown import clustering_html

        return clustering_html(self)


@dataclass(frozen=True)
class GroupAnalysis:
    """The spectral analysis of one group of samples: a class, or all of them (``ALL_CLASSES``).

    ``status`` is "ok", or says in a word why there is nothing to cluster: "empty" (no sample), "single"
    (one usable sample), "identical" (all maps equal). Arrays over the ``m`` analysed samples follow ``rows``.
    All-zero maps carry no strategy and non-finite ones no information: both are set apart by row.
    """

    group: int
    status: str
    rows: Int[np.ndarray, " m"]
    """Row numbers in the store, ascending, of the samples that were analysed."""
    zero_rows: Int[np.ndarray, " z"]
    invalid_rows: Int[np.ndarray, " f"]
    eigenvalues: Float[np.ndarray, " k"]
    """Smallest eigenvalues of the normalised Laplacian, ascending, in [0, 2]."""
    vectors: Float[np.ndarray, "m k"]
    """The eigenvectors that belong to them, not row-normalised."""
    components: int
    """Number of connected components of the graph (the multiplicity of eigenvalue 0)."""
    strategies: int
    """Suggested number of strategies: the eigengap's k, or 1 where the gap is no larger than the null's; no fewer than
    there are components of 20 samples or more."""
    eigengap: Mapping[str, Json]
    """``k``, ``gap``, ``runners_up`` [{k, gap}], ``null`` {quantile, gap, p_value, draws}."""
    clusterings: Mapping[str, Clustering]
    """By name ("kmeans", "hdbscan", …)."""
    pictures: Mapping[str, Float[np.ndarray, "m 2"]]
    """2-D embeddings by name ("umap", "tsne"), for looking only."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Further numbers worth telling (neighbour recall, stability, seconds are not among them)."""

    def _repr_html_(self) -> str:
        from stores.shown import group_html

        return group_html(self)


@dataclass(frozen=True, eq=False)
class Finding:
    """Clusters of one class that share a relevant region, merged: a candidate strategy, with its evidence.

    ``score`` and ``flagged`` are the machine's suspicion; the human's verdict is stored elsewhere.
    """

    name: str
    """Unique in its analysis and stable for the same input, such as "c6.f0"."""
    group: int
    clustering: str
    clusters: tuple[int, ...]
    rows: Int[np.ndarray, " m"]
    """Row numbers of the members, ascending."""
    score: float
    flagged: bool
    parts: Mapping[str, float | None]
    """Every part of the score by name; None where it could not be computed (and ``notes`` says why)."""
    region: Bool[np.ndarray, "y x"] | None
    """The shared relevant region at the resolution of the pooled maps."""
    mean_map: Float[np.ndarray, "y x"] | None
    """Mean normalised relevance of the members, at the same resolution."""
    evidence: Mapping[str, Json] = field(default_factory=dict)
    """Interventions: removal and transplant effects, controls, sample sizes, intervals."""
    summary: str = ""
    """The finding in plain, hedged words."""
    notes: tuple[str, ...] = ()
    pictures: Mapping[str, UInt8[np.ndarray, "n y x rgb"]] = field(default_factory=dict)
    """Samples before and after interventions: "members" and the same "removed", "hosts" and the same "pasted"."""

    def _repr_html_(self) -> str:
        from stores.shown import finding_html

        return finding_html(self)


class FindingList(list[Finding]):
    """Findings in their order; shows itself in a notebook as a table."""

    def _repr_html_(self) -> str:
        from stores.shown import findings_html

        return findings_html(self)


def is_tested(finding: Finding) -> bool:
    """Whether an intervention was run on it: without one nothing can be flagged."""
    return any(isinstance(finding.evidence.get(name), Mapping) for name in ("removal", "transplant"))
