"""The step: how the clusters of an analysis become ranked findings, all parameters of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spray.findings.contents import ContentRefinement
from spray.findings.refinement import Refinement
from spray.findings.regions import TopRegion
from spray.findings.strategies import NOISE
from spray.findings.suspicion import Rank, Ranking
from spray.findings.verification import Requirements, Verification
from stores import AnalysisHandle, GroupAnalysis

AUTO, PREFERRED, SECOND = "auto", "hdbscan", "kmeans"
"""The name of no clustering but of the choice among those that there are; the one it prefers; and where that makes one
cluster of what the eigengap shows to be several, the one whose number of clusters is the eigengap's."""


@dataclass(frozen=True)
class Findings:
    """How clusters become ranked findings.

    Args:
        clustering: whose clusters are taken; "auto": HDBSCAN's, or where it was not analysed those of the first.
        otherwise: whose clusters are taken in a class that is one cluster by these, and several strategies by an
            eigengap beyond the null's; none if empty. "auto" takes k-means'.
        merge_likeness: clusters of a class whose contrasts to the rest of it are alike by this cosine are pieces of
            one strategy.
        refinement: how its members are told from the rest of the class by their relevance in its region; None leaves
            them as they were clustered.
        contents: how they are told by what their images show there, where these are at hand; None: by relevance only.
        same: strategies whose members are alike by this Jaccard index are one.
        ranking: in what order; ``Weighted`` sums of scores or an ``OwnRank`` may take the place of the combined one.
        requirements: what a finding must show to be confirmed.
    """

    clustering: str = AUTO
    otherwise: str = ""
    merge_likeness: float = 0.7
    region: TopRegion = field(default_factory=TopRegion)
    refinement: Refinement | None = field(default_factory=Refinement)
    contents: ContentRefinement | None = field(default_factory=ContentRefinement)
    same: float = 0.5
    verification: Verification = field(default_factory=Verification)
    requirements: Requirements = field(default_factory=Requirements)
    ranking: Rank = field(default_factory=Ranking)
    seed: int = 0

    def of(self, analysis: AnalysisHandle) -> Findings:
        """The same with a clustering that the analysis has.

        Raises:
            ValueError: it has none of that name.
        """
        groups = analysis.groups
        names = list(analysis.read(groups[0]).clusterings) if groups else [PREFERRED]
        if self.clustering == AUTO:
            chosen = PREFERRED if PREFERRED in names else names[0]
            return replace(self, clustering=chosen, otherwise=SECOND if SECOND in names else "")
        if self.clustering not in names:
            raise ValueError(
                f"Findings are to be the clusters of '{self.clustering}', and this analysis has {', '.join(names)}. "
                f"Name one of these, or analyse again with it (spray analyze --clustering {self.clustering})."
            )
        return self

    def clustering_of(self, result: GroupAnalysis) -> str:
        """Whose clusters are taken in one group."""
        first, second = (result.clusterings.get(name) for name in (self.clustering, self.otherwise))
        if first is None or second is None or result.strategies < 2:
            return self.clustering
        return self.otherwise if len(set(first.labels.tolist()) - {NOISE}) < 2 else self.clustering
