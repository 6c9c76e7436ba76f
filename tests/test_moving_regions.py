"""A tag that lies somewhere else in every image: no shared place, and yet the model reads nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from spray.analysis import Analysis, analyze
from spray.attribution import Attribution, attribute_dataset
from spray.findings import Findings, find
from spray.findings.regions import TopRegion
from spray.findings.verification import Candidate, ClassMaps, Requirements, Verification, completed, verify
from stores import Clustering, Provenance

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


class BrightestSquare(nn.Module):
    """The same as a network of layers: an average over 3×3 pixels, its maximum, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.average, self.most = nn.Conv2d(1, 1, TAG, bias=False), nn.AdaptiveMaxPool2d(1)
        self.scale = nn.Linear(1, 2)
        with torch.no_grad():
            self.average.weight.fill_(1 / TAG**2)
            self.scale.weight.copy_(torch.tensor([[0.0], [20.0]]))
            self.scale.bias.copy_(torch.tensor([0.0, -10.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.scale(self.most(self.average(x)).flatten(1))
        return logits


def test_what_moves_has_no_region_in_the_store(tmp_path: Path) -> None:
    """A place that is nobody's would be drawn, exported as a mask, and corrected."""
    data, _ = case(80, 280)
    data[80:160, :, 5:11, 5:11] += 0.3
    dataset = TensorDataset(data, (torch.arange(360) < 160).long())
    model = BrightestSquare().eval()
    run = attribute_dataset(model, dataset, tmp_path / "run.zarr", Attribution(composite="gradient_x_input"))
    analysed = analyze(run, Analysis(picture="none"))
    whole = analysed.read(1)
    clusters = {"hdbscan": Clustering((whole.rows >= 80).astype(np.int64))}
    told = [replace(whole, clusterings=clusters)]
    handle = run.write_analysis(Provenance(({"name": "told"},)), told, facts=analysed.facts)
    found = find(run, handle, Findings(verification=STEP, refinement=None), model=model, dataset=dataset)
    moving = [one for one in found if one.evidence.get("where") == "moving"]
    assert moving and all(one.region is None for one in moving)
    assert "no fixed place" in moving[0].summary
