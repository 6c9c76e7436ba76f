"""The step: how the findings of a class are tested by intervention, all parameters of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import nn

from spray.findings.channels import TopChannels
from spray.findings.regions import TopRegion
from spray.findings.verification.classes import ClassMaps, Locator
from spray.findings.verification.fills import Fill, HarmonicFill, NeighbourFill
from spray.findings.verification.judge import Judge
from spray.findings.verification.sites import LayerSite, PixelSite, Site
from spray.findings.verification.spread import ContentRegion
from stores.provenance import TUNING

MEMBERS_AT_LEAST = 10
"""Fewer members, or hosts, give halves too small for a region or an effect."""
TESTED_AT_LEAST = 5
"""Of fewer no sign-flip test reaches 0.05: 2⁻⁴ is more."""
SCREEN_PASSES, TEST_PASSES = 11, 50
"""Images that pass through the model per sample, about: to choose sample sizes by budget."""


@dataclass(frozen=True)
class Verification:
    """Removal and transplant of shared regions, against relevance-matched controls.

    Args:
        members: at most so many members and others, at least 5, are intervened on per candidate, on half B.
        hosts_each: so many hosts for each of them on half B: what a transplant does depends on the host as much as on
            what is pasted, and few members are to be averaged over more of them.
        screened: at most so many members, others and hosts per finding on half A, where candidates are chosen.
        budget: about so many images pass through the model per class; sample sizes are lowered to fit. 0: no limit.
        fills: ways of removing pixels; all have to agree, since each alone can make an artefact of its own.
        regions: how regions are taken from relevance by place: half A chooses among them, the small ones first. What is
            small is rarely both necessary and sufficient in honest strategies; a frame or a text needs more, cut close.
        spread: the region of members that were told by content, where none of the relevant ones is of any use: it may
            lie beside what is relevant, and a pattern all over the picture needs more cells.
        channels: as ``regions``, for relevance by channel.
        screen: a finding becomes a candidate where neither effect on half A falls short of the matched control's, in
            log-odds, by more than chance, and √(removal · transplant) reaches this before controls.
        jitter: how far beside its place the content is also pasted, as a share of the shorter side.
        permutations: at most so many in each test.
    """

    members: int = 100
    hosts_each: int = 3
    screened: int = 40
    budget: int = 0
    fills: tuple[Fill, ...] = (NeighbourFill(), HarmonicFill())
    regions: tuple[TopRegion, ...] = (TopRegion(share=0.03), TopRegion(share=0.05, smooth=1))
    spread: ContentRegion = field(default_factory=ContentRegion)
    channels: tuple[TopChannels, ...] = (
        TopChannels(share=0.03),
        TopChannels(share=0.1),
        TopChannels(share=0.3),
    )
    screen: float = 0.03
    jitter: float = 0.1
    permutations: int = 9999
    seed: int = 0
    batch: int = field(default=256, metadata=TUNING)

    def __post_init__(self) -> None:
        counts = (
            self.members,
            self.hosts_each,
            self.screened,
            len(self.fills),
            len(self.regions),
            len(self.channels),
        )
        if min(counts) < 1:
            raise ValueError(
                f"members is {self.members}, hosts_each {self.hosts_each}, screened {self.screened}, and there are "
                f"{len(self.fills)} fills, {len(self.regions)} regions and {len(self.channels)} channels; a "
                "verification needs at least one of each."
            )
        if self.members < TESTED_AT_LEAST:
            raise ValueError(
                f"members is {self.members}; of fewer than {TESTED_AT_LEAST} nothing can be confirmed (no sign-flip "
                f"test of them reaches 0.05). Take {TESTED_AT_LEAST} at the least, better 20."
            )
        if self.budget < 0:
            raise ValueError(f"budget is {self.budget}, expected a number of images, or 0 for no limit.")

    def site(self, model: nn.Module, maps: ClassMaps, device: torch.device) -> Site:
        """Where the interventions of a class take place.

        Raises:
            SiteError: the model has no such layer.
        """
        judge = Judge(model, maps.target, device, self.batch)
        return LayerSite(judge, maps.layer, maps.maps.shape[1]) if maps.layer else PixelSite(judge)

    def locators(self, maps: ClassMaps) -> Sequence[Locator]:
        """How regions are taken from these maps."""
        return self.channels if maps.layer else self.regions

    def is_large(self, region: Bool[np.ndarray, "y x"]) -> bool:
        """Whether a region is larger than relevance by place may make it."""
        return float(region.mean()) > max(locate.share for locate in self.regions)

    def own_regions(
        self, maps: ClassMaps, rows: Int[np.ndarray, " m"], cells: int | None = None
    ) -> Bool[np.ndarray, "m ..."]:
        """Each sample's own most relevant region, of so many cells if given."""
        units = maps.of(rows)
        locate = self.locators(maps)[0]
        return np.array([locate.of(unit, cells) for unit in units], bool).reshape(units.shape)

    def matched_regions(
        self, maps: ClassMaps, rows: Int[np.ndarray, " m"], cells: int
    ) -> Bool[np.ndarray, "#m ..."]:
        """What is most relevant in samples without the finding, as large: by place in each, by channel in all of them.

        Channels mean the same in every image, so that a set shared by the others is what a shared set is compared with.
        """
        if not maps.layer or not len(rows):
            return self.own_regions(maps, rows, cells)
        return self.locators(maps)[0].of(maps.of(rows).mean(0), cells)[None]

    def fills_of(self, site: Site) -> tuple[Fill, ...]:
        """The ways of removing at a site: the user's for pixels, the site's own for channels."""
        return self.fills if isinstance(site, PixelSite) else site.fills

    def sizes(self, findings: int, candidates: int) -> tuple[int, int]:
        """Samples per finding on half A and per candidate on half B: each half gets half of the budget."""
        if not self.budget:
            return self.screened, self.members
        screened = self.budget // 2 // (SCREEN_PASSES * max(findings, 1))
        tested = self.budget // 2 // (TEST_PASSES * max(candidates, 1))
        least = MEMBERS_AT_LEAST
        return min(self.screened, max(least, screened)), min(self.members, max(least, tested))
