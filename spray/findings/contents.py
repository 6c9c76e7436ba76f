"""Who shows what a strategy looks at? Members refined by what their images show in its region.

Relevance tells how much a place matters in an image, and that depends on all else in the image. What was added to some
images looks the same in all of them: where the images are at hand, a group is told by its content far better. As by
relevance (`refinement`) a mixture is started from the strategy, and taken only where those it finds are a mode of their
own. Where they are none, they may come by degrees, as a faint word on photos does: then those beyond the valley are
asked for the same (`separation`). Or they are alike in the midst of what the others show, as a grey line along photos
is (`sameness`). Where nothing of it tells them, the strategy stays as it was. No model is asked and no effect is looked
at: what is proved later is not fitted here. That the region is relevant to those who are found is asked for, too; that
they use it, the proof shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_dilation
from torch import Tensor

from spray.findings.discriminant import upper_mode
from spray.findings.refinement import reduced
from spray.findings.regions import TopRegion, overlap, pixel_mask
from spray.findings.robust_mixture import held_out, t_mixture
from spray.findings.sameness import same_content
from spray.findings.separation import Told, low_density_separation
from spray.findings.strategies import Strategy, merge
from spray.memory import enough_memory, in_batches
from stores.provenance import TUNING

ReadInputs = Callable[[Int[np.ndarray, " n"]], Float[Tensor, "n c h w"]]
"""Inputs by row number."""
Tell = Callable[[Float[np.ndarray, "m d"], Bool[np.ndarray, " m"], int], Told | None]


@dataclass(frozen=True)
class ContentRefinement:
    """Members by the images' content in the region, taken where they are a mode: by a mixture, a valley, or sameness.

    Args:
        margin: cells by which the region is grown; beside what is shared lies what tells it from the like.
        samples: so many for each dimension; of wider regions only the leading principal components are looked at.
        freedom: degrees of freedom of the mixture's t distributions: images with much in the region lie far out.
        mode: least share of those found above the density of the valley before them (``upper_mode``). Measured in
            Fashion-MNIST: tags, borders and texts 0.6 to 1.0; honest clusters 0.0 to 0.2.
        kept: least share of the strategy's members that are among them. Clusters are mixed where a plant is rare.
        overlap: least likeness (IoU) of the region that those found share to the one they were looked for in: else
            they have something in common that relevance does not see there.
        pieces: a cluster of more than half of the class is also tried by so many pieces of it, by k-means on its maps.
        each: members of such a cluster for each piece, at least: few images have something in common by chance.
        most: larger groups are left as they are: all of their images are read and, at the maps' size, held.
        rounds: of either way, at most.
    """

    margin: int = 3
    samples: int = 10
    freedom: float = 16.0
    mode: float = 0.5
    kept: float = 0.25
    overlap: float = 0.4
    pieces: int = 10
    each: int = 50
    most: int = 20_000
    rounds: int = 30
    batch: int = field(default=64, metadata=TUNING)

    def strategies(
        self,
        given: Sequence[Strategy],
        units: Float[np.ndarray, "m y x"],
        contents: Float[np.ndarray, "m c h w"],
        region: TopRegion,
        least_likeness: float,
        seed: int,
    ) -> list[Strategy]:
        """The strategies, refined where content shows a mode; and modes among the pieces of a cluster of most."""
        found = [self.refined(strategy, units, contents, region, seed) or strategy for strategy in given]
        for strategy in given:
            if int(strategy.members.sum()) >= max(len(units) / 2, self.pieces * self.each):
                pieces = self._pieces(strategy, units, region, least_likeness, seed)
                tried = [self.refined(piece, units, contents, region, seed) for piece in pieces]
                found += [piece for piece in tried if piece is not None]
        return found

    def refined(
        self,
        strategy: Strategy,
        units: Float[np.ndarray, "m y x"],
        contents: Float[np.ndarray, "m c h w"],
        region: TopRegion,
        seed: int,
    ) -> Strategy | None:
        """With the members that its region's content shows, from the strategy and then from those; None if no mode."""
        for tell in (self._by_mixture, self._by_valley, self._by_sameness):
            first = self._once(tell, strategy, strategy, units, contents, region, seed)
            if first is not None:
                return self._once(tell, first, strategy, units, contents, region, seed) or first
        return None

    def _once(
        self,
        tell: Tell,
        start: Strategy,
        strategy: Strategy,
        units: Float[np.ndarray, "m y x"],
        contents: Float[np.ndarray, "m c h w"],
        region: TopRegion,
        seed: int,
    ) -> Strategy | None:
        if start.region is None or strategy.region is None or not start.region.any():
            return None
        if 2 * start.members.sum() > len(units):
            return None
        cells = binary_dilation(start.region, iterations=self.margin) if self.margin else start.region
        cells = pixel_mask(cells, *contents.shape[2:])
        told = tell(contents[:, :, cells].reshape(len(contents), -1), start.members, seed)
        if told is None:
            return None
        members, mode = told
        kept = float(members[strategy.members].mean())
        if mode < self.mode or kept < self.kept or 2 * members.sum() > len(members):
            return None
        shared = region.shared(units[members], units[~members])
        if overlap(shared, strategy.region) < self.overlap:
            return None
        return replace(strategy, members=members, region=shared, mode=mode, by_content=True)

    def _by_mixture(
        self, features: Float[np.ndarray, "m d"], members: Bool[np.ndarray, " m"], seed: int
    ) -> Told | None:
        features = reduced(features, self.samples)
        fitted = t_mixture(features, members, self.freedom, self.rounds)
        log_odds = None if fitted is None else held_out(features, fitted, self.freedom, seed)
        return None if log_odds is None else (log_odds > 0, upper_mode(log_odds))

    def _by_valley(
        self, features: Float[np.ndarray, "m d"], members: Bool[np.ndarray, " m"], seed: int
    ) -> Told | None:
        return low_density_separation(reduced(features, self.samples), members, self.rounds, seed)

    def _by_sameness(
        self, features: Float[np.ndarray, "m d"], members: Bool[np.ndarray, " m"], seed: int
    ) -> Told | None:
        return same_content(features, members, self.rounds, seed)

    def _pieces(
        self,
        strategy: Strategy,
        units: Float[np.ndarray, "m y x"],
        region: TopRegion,
        least_likeness: float,
        seed: int,
    ) -> list[Strategy]:
        from sklearn.cluster import KMeans

        labels = np.full(len(units), -1)
        flat = units[strategy.members].reshape(int(strategy.members.sum()), -1)
        labels[strategy.members] = KMeans(self.pieces, n_init=1, random_state=seed).fit_predict(flat)
        return [
            replace(piece, clusters=strategy.clusters)
            for piece in merge(labels, units, region, least_likeness)
        ]


def finest(size: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, int]:
    """The grid that contents are looked at in: the maps', or pixels where a cell is less than two of them wide.

    Cells of a pixel and a part overlap their neighbours, and average away what is one pixel thin.
    """
    height, width = (
        pixels if cells < pixels < 2 * cells else cells for pixels, cells in zip(size, grid, strict=True)
    )
    return height, width


def coarser(contents: Float[np.ndarray, "n c h w"], grid: tuple[int, int]) -> Float[np.ndarray, "n c y x"]:
    """The same by the cells of another grid."""
    if contents.shape[2:] == grid:
        return contents
    return np.asarray(torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(contents), grid).numpy())


def contents_of(
    read: ReadInputs, rows: Int[np.ndarray, " n"], grid: tuple[int, int], batch: int
) -> Float[np.ndarray, "n c y x"]:
    """What images show in each cell of the maps' grid: the mean of every channel there.

    Fewer are read at a time where memory runs out.

    Raises:
        SpaceError: even one image does not fit, or what all of them show does not.
    """

    def pooled(some: slice) -> Float[np.ndarray, "b c y x"]:
        images = read(rows[some]).float()
        return np.asarray(torch.nn.functional.adaptive_avg_pool2d(images, grid).numpy())

    with enough_memory("Memory does not suffice for one image. Prepare smaller images."):
        found = in_batches(len(rows), batch, pooled)[0]
    with enough_memory_for(f"what {len(rows)} images show"):
        return np.concatenate(found)


def enough_memory_for(what: str) -> AbstractContextManager[None]:
    """Say in words where memory runs out over the images of a whole class.

    Raises:
        SpaceError: it did.
    """
    return enough_memory(
        f"Memory does not suffice for {what}. Free some, or leave larger classes as their relevance shows them: "
        "Findings(contents=ContentRefinement(most=…))."
    )
