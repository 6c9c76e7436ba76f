"""Fills and transplants touch the region only, and put there what they say."""

import numpy as np
import pytest
import torch

from spray.findings.verification.fills import (
    FILLS,
    BlurFill,
    Fill,
    HarmonicFill,
    LocalMeanFill,
    NeighbourFill,
    jittered,
    shorter_side,
    transplant,
)


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    others = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    mask[..., 2:5, 3:6] = True
    return images, mask, others


@pytest.mark.parametrize("name", sorted(FILLS))
def test_every_fill_changes_the_region_and_nothing_else(name: str, case: tuple[torch.Tensor, ...]) -> None:
    images, mask, others = case
    before = images.clone()
    filled = FILLS[name].apply(images, mask, others, torch.Generator().manual_seed(3))
    outside = ~mask.expand_as(images)
    assert torch.equal(filled[outside], images[outside])
    assert not torch.isclose(filled[~outside], images[~outside]).all()
    assert torch.equal(images, before)
    assert torch.isfinite(filled).all()


@pytest.mark.parametrize("name", sorted(FILLS))
def test_masks_of_their_own_and_the_same_seed(name: str, case: tuple[torch.Tensor, ...]) -> None:
    images, mask, others = case
    masks = torch.stack([mask[0].roll(shift, -1) for shift in range(5)])
    once = FILLS[name].apply(images, masks, others, torch.Generator().manual_seed(3))
    again = FILLS[name].apply(images, masks, others, torch.Generator().manual_seed(3))
    assert torch.equal(once, again)
    assert torch.equal(once[~masks.expand_as(images)], images[~masks.expand_as(images)])


def test_neighbour_takes_the_other_image(case: tuple[torch.Tensor, ...]) -> None:
    images, mask, others = case
    filled = NeighbourFill().apply(images, mask, others, torch.Generator())
    assert torch.equal(filled[mask.expand_as(images)], others[mask.expand_as(images)])


def test_local_mean_is_the_mean_of_the_ring() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[..., 2:7, 2:7] = torch.arange(25.0).view(5, 5)
    image[..., 3:6, 3:6] = 100
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[..., 3:6, 3:6] = True
    ring = [v for i, v in enumerate(range(25)) if i not in (6, 7, 8, 11, 12, 13, 16, 17, 18)]
    filled = LocalMeanFill(reach=0.1).apply(image, mask, image, torch.Generator())
    assert filled[..., 3:6, 3:6].unique().item() == pytest.approx(sum(ring) / len(ring))


@pytest.mark.parametrize("fill", [LocalMeanFill(), HarmonicFill()])
def test_a_region_that_is_everything_is_filled_by_the_image_mean(fill: Fill) -> None:
    image = torch.rand(1, 2, 4, 4)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    filled = fill.apply(image, mask, image, torch.Generator())
    assert torch.allclose(filled, image.mean((2, 3), keepdim=True).expand_as(image))


def test_harmonic_continues_a_ramp_without_a_trace() -> None:
    ramp = torch.arange(12.0)[:, None] + 2 * torch.arange(12.0)[None]
    marked = ramp.clone()[None, None]
    marked[..., 3:7, 4:9] = 50
    mask = marked == 50
    filled = HarmonicFill().apply(marked, mask, marked, torch.Generator())
    assert torch.allclose(filled[0, 0], ramp, atol=1e-5)


def test_harmonic_is_what_relaxation_ends_at(case: tuple[torch.Tensor, ...]) -> None:
    images, _, others = case
    masks = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.4
    masks[0, :, :, :2] = True  # along the picture's border nothing flows out
    filled = HarmonicFill().apply(images, masks, others, torch.Generator())
    found = images.double()
    for _ in range(2000):
        padded = torch.nn.functional.pad(found, (1, 1, 1, 1), mode="replicate")
        around = (
            padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        )
        found = torch.where(masks, around / 4, found)
    assert torch.allclose(filled.double(), found, atol=1e-5)


def test_harmonic_fills_nothing_where_there_is_nothing(case: tuple[torch.Tensor, ...]) -> None:
    images, mask, others = case
    generator = torch.Generator()
    assert torch.equal(HarmonicFill().apply(images, torch.zeros_like(mask), others, generator), images)
    assert len(HarmonicFill().apply(images[:0], mask[:0], others[:0], generator)) == 0


def test_transplant_in_place(case: tuple[torch.Tensor, ...]) -> None:
    hosts, mask, donors = case
    pasted = transplant(hosts, donors, mask)
    inside = mask.expand_as(hosts)
    assert torch.equal(pasted[inside], donors[inside])
    assert torch.equal(pasted[~inside], hosts[~inside])


def test_a_moved_transplant_stays_whole_and_never_lies_in_its_place() -> None:
    hosts, donors = torch.zeros(40, 1, 12, 12), torch.ones(40, 1, 12, 12)
    for corner in (0, 5, 9):
        mask = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
        mask[..., corner : corner + 3, corner : corner + 3] = True
        pasted = jittered(hosts, donors, mask, 2, np.random.default_rng(0))
        assert (pasted.sum((1, 2, 3)) == 9).all()
        assert (pasted != mask.float()).flatten(1).any(1).all()
        for image in pasted[:, 0]:
            y, x = torch.nonzero(image).min(0).values.tolist()
            assert abs(y - corner) <= 2 and abs(x - corner) <= 2 and image[y : y + 3, x : x + 3].all()
    everything = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    assert torch.equal(jittered(hosts, donors, everything, 2, np.random.default_rng(0)), donors)
    assert torch.equal(jittered(hosts, donors, ~everything, 2, np.random.default_rng(0)), hosts)


def test_a_signal_is_blurred_and_looked_around_by_shares_of_its_length() -> None:
    """A signal is a picture one pixel high: its own length is what counts, not the 1."""
    assert shorter_side(torch.zeros(2, 3, 1, 1000)) == 1000 and shorter_side(torch.zeros(2, 3, 60, 80)) == 60
    assert shorter_side(torch.zeros(1, 1, 1, 1)) == 1
    pulse, mask = torch.zeros(1, 1, 1, 1000), torch.zeros(1, 1, 1, 1000, dtype=torch.bool)
    pulse[..., 400:430] = 1
    mask[..., 400:430] = True
    generator = torch.Generator().manual_seed(0)
    assert BlurFill().apply(pulse, mask, pulse, generator).max() < 0.2
    pulse[..., :400], pulse[..., 430:] = 0.3, 0.5
    filled = LocalMeanFill().apply(pulse, mask, pulse, generator)
    assert filled[..., 400:430].allclose(torch.tensor(0.4))
    assert (filled[..., 400:430] == filled[..., 400:401]).all()
