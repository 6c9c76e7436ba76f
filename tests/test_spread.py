"""A pattern all over the picture has no small region: what members show and others do not is tested instead."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from spray.findings.verification import Candidate, ClassMaps, Evidence, Requirements, Verification, verify
from spray.findings.verification.spread import ContentRegion
from spray.findings.words import summary
from stores import Finding

SIDE, STRIPED, PLAIN, HOSTS = 16, 60, 140, 160
CPU = torch.device("cpu")
STEP = Verification(members=40, screened=30, permutations=999)
STRIPES = np.arange(SIDE) % 4 == 1
EVERYWHERE = np.tile(STRIPES, (SIDE, 1))
MARK = np.zeros((SIDE, SIDE), bool)
MARK[2:5, 3:7] = True


class Pattern(nn.Module):
    """Class 1 by how much brighter the cells of a pattern are than all others."""

    def __init__(self, cells: np.ndarray = EVERYWHERE) -> None:
        super().__init__()
        self.on = torch.from_numpy(cells)

    def forward(self, x: Tensor) -> Tensor:
        apart = x[:, 0, self.on].mean(1) - x[:, 0, ~self.on].mean(1)
        return torch.stack([0 * apart, 40 * (apart - 0.15)], dim=1)


def pictures(cells: np.ndarray = EVERYWHERE) -> Tensor:
    x = torch.rand(STRIPED + PLAIN + HOSTS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.3
    x[:STRIPED] += 0.3 * torch.from_numpy(cells)
    return x


def reader(data: Tensor) -> Callable[[np.ndarray], Tensor]:
    return lambda some: data[torch.from_numpy(some)]


def prove(mode: float, step: Verification = STEP, cells: np.ndarray = EVERYWHERE) -> Evidence:
    """Striped members of class 1 beside plain ones; relevance says nothing but noise. ``mode``: told by content."""
    data = pictures(cells)
    rows = np.arange(STRIPED + PLAIN)
    maps = np.random.default_rng(0).gamma(2, 0.2, (len(rows), SIDE, SIDE))
    hosts = np.arange(len(rows), len(data))
    known = ClassMaps(1, rows, maps, hosts, hosts % 5 + 2, contents=data[: len(rows)].numpy())
    (found,) = verify(step, Pattern(cells), reader(data), known, [Candidate(rows[:STRIPED], mode=mode)], CPU)
    assert found is not None
    return found


def test_a_pattern_all_over_the_picture_is_proven_where_content_tells_its_members() -> None:
    found = prove(mode=0.9)
    assert found.where == "spread" and Requirements().unmet(found) == ()
    assert found.by_content and found.to_json(Requirements())["region_by"] == "content"
    assert found.region.sum() == SIDE**2 // 4 and found.region[:, STRIPES].all()
    assert found.rows.tolist() == list(range(STRIPED))
    # Beside what everything else is compared with, as large: nothing is asked less for a larger region.
    assert set(found.removal.controls) == {"matched", "random", "other findings", "same place"}
    assert set(found.transplant.controls) == {"matched", "random", "same place"}
    assert found.removal.net > 0.3 and found.transplant.net > 0.3


def test_members_that_content_does_not_tell_have_no_larger_region() -> None:
    found = prove(mode=0.0)
    assert found.where != "spread" and not found.candidate


def test_a_large_region_has_to_do_as_much_as_one_that_moves() -> None:
    found, asked = prove(mode=0.9), Requirements()
    weaker = replace(asked, moving=found.score + 0.01)
    assert weaker.unmet(found) == ("size of the effect",)
    assert weaker.unmet(replace(found, where="fixed")) == ()


def test_one_that_is_no_larger_than_others_is_tested_as_these() -> None:
    found = prove(mode=0.9, cells=MARK)
    assert found.where == "fixed" and found.by_content and Requirements().unmet(found) == ()
    np.testing.assert_array_equal(found.region, MARK)
    assert "same place" not in found.transplant.controls
    large = np.zeros((20, 20), bool)
    large[:1] = True
    assert not STEP.is_large(large)
    large[1, 0] = True
    assert STEP.is_large(large)


def test_what_differs_and_is_not_used_is_no_candidate() -> None:
    class Blind(Pattern):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0 + x.mean((1, 2, 3))[:, None] * torch.tensor([0.0, 1.0])

    data = pictures()
    rows = np.arange(STRIPED + PLAIN)
    known = ClassMaps(
        1,
        rows,
        np.random.default_rng(0).gamma(2, 0.2, (len(rows), SIDE, SIDE)),
        np.arange(len(rows), len(data)),
        np.full(HOSTS, -1),
        contents=data[: len(rows)].numpy(),
    )
    (found,) = verify(STEP, Blind(), reader(data), known, [Candidate(rows[:STRIPED], mode=0.9)], CPU)
    assert found is not None and not found.candidate


def test_the_region_is_where_contents_differ_by_a_large_effect() -> None:
    rng = np.random.default_rng(0)
    members, rest = rng.normal(0, 1, (60, 2, 6, 6)), rng.normal(0, 1, (200, 2, 6, 6))
    assert not ContentRegion().shared(members, rest).any()
    members[:, 1, 2, 3] += 2  # in one channel
    members[:, 0, 0, 0] += 1.5
    found = ContentRegion().shared(members, rest)
    assert sorted(zip(*map(list, np.nonzero(found)), strict=True)) == [(0, 0), (2, 3)]
    assert np.argwhere(ContentRegion(share=1 / 36).shared(members, rest)).tolist() == [[2, 3]]
    np.testing.assert_array_equal(ContentRegion().shared(100 * members, 100 * rest), found)


def test_without_others_or_differences_there_is_no_region() -> None:
    black = np.zeros((20, 1, 4, 4))
    assert not ContentRegion().shared(black, black).any()
    assert not ContentRegion().shared(black + 1, black[:0]).any()
    assert not ContentRegion().shared(black[:0], black).any()
    assert ContentRegion().shared(black + 1, black).sum() == 4  # all of it differs; a quarter is taken


def test_words_say_that_it_is_all_over_the_picture() -> None:
    region = np.zeros((SIDE, SIDE), bool)
    region[:, STRIPES] = True
    found = prove(mode=0.9)
    finding = Finding(
        "c1.f0",
        1,
        "hdbscan",
        (0,),
        np.arange(STRIPED),
        score=0.3,
        flagged=True,
        parts={"concentration": 0.9},
        region=region,
        mean_map=None,
        evidence={**found.to_json(Requirements()), "q_value": 0.001, "confirmed": True},
    )
    said = summary(finding, STRIPED + PLAIN, "coat")
    assert "it lies all over the picture" in said and "in 25.0 % of the area" in said
    assert "centre" not in said and "Confirmed" in said
