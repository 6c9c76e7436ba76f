"""A tag that lies somewhere else in every image: no shared place, and yet the model reads nothing else."""

import numpy as np
import torch
from torch import Tensor, nn

from spray.findings.regions import TopRegion
from spray.findings.verification import Candidate, ClassMaps, Requirements, Verification, completed, verify

SIDE, TAG = 16, 3
CPU = torch.device("cpu")
STEP = Verification(
    members=40, screened=30, regions=(TopRegion(share=TAG**2 / SIDE**2, smooth=1),), permutations=999
)


class AnyBrightSquare(nn.Module):
    """Class 1 wherever a 3×3 square is bright."""

    def forward(self, x: Tensor) -> Tensor:
        brightest = nn.functional.avg_pool2d(x, TAG, stride=1).amax((1, 2, 3)) - 0.5
        return torch.stack([0 * brightest, 20 * brightest], dim=1)


def case(tagged: int, others: int) -> tuple[Tensor, np.ndarray]:
    """Dim images, the first of which have a bright square somewhere, and maps that lie on it (elsewhere: on noise)."""
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.random((others + tagged, 1, SIDE, SIDE), np.float32)) * 0.3
    maps = rng.random((others + tagged, SIDE, SIDE)) * 0.1
    for row in range(tagged):
        y, x = rng.integers(0, SIDE - TAG, 2)
        data[row, :, y : y + TAG, x : x + TAG] = 1
        maps[row, y : y + TAG, x : x + TAG] = 1
    return data, maps


def test_each_members_own_region_proves_what_no_shared_place_could() -> None:
    data, maps = case(80, 280)
    read = lambda rows: data[torch.from_numpy(rows)]  # noqa: E731
    rows = np.arange(160)
    class_maps = ClassMaps(1, rows, maps[rows], np.arange(160, 360), np.zeros(200, np.int64))
    candidate = Candidate(np.arange(60), maps[:60].mean(0) > 0.2)
    (evidence,) = verify(STEP, AnyBrightSquare(), read, class_maps, [candidate], CPU)
    assert evidence is not None and evidence.where == "moving"
    assert Requirements().unmet(evidence) == ()
    assert evidence.moved is not None and evidence.moved.mean > 0.5  # it works beside its place, too
    found = completed(STEP, AnyBrightSquare(), read, class_maps, candidate, CPU, moving=True)
    assert found.tolist() == list(range(80))


def test_noise_has_no_region_that_moves() -> None:
    data, maps = case(80, 280)
    blind = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 2))
    class_maps = ClassMaps(1, np.arange(160), maps[:160], np.arange(160, 360), np.zeros(200, np.int64))
    candidate = Candidate(np.arange(60), maps[:60].mean(0) > 0.2)
    (evidence,) = verify(STEP, blind, lambda rows: data[torch.from_numpy(rows)], class_maps, [candidate], CPU)
    assert evidence is not None and not evidence.candidate
