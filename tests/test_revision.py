"""The engine's numbers are those of its revision, and no store mixes two revisions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_tools import Images, contents, tiny_model
from torch import Tensor, nn

import stores
from spray.attribution import Attribution, attribute_dataset
from spray.engine import AttributionError, UnsupportedOperation, attribute, revision
from spray.engine.composites import COMPOSITES

NUMBERS = Path(__file__).parent / "golden/engine.json"
STEP = Attribution("epsilon_plus", block=4, grid=4, thumbnails=8)


class Branches(nn.Module):
    """What most networks are made of: convolutions, normalisation, a shortcut, pooling, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)
        )
        with torch.no_grad():
            self.stem[1].running_mean.uniform_(-0.2, 0.2)
            self.stem[1].running_var.uniform_(0.5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = self.stem(inputs)
        return self.head(torch.relu(self.branch(stem) + stem))


class Tokens(nn.Module):
    """Patches, attention, normalisation of layers, GELU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(2, 8, 2, stride=2)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.block(self.patches(inputs).flatten(2).transpose(1, 2)).mean(1))


def numbers(name: str) -> list[float]:
    """Relevance of one input by channel and quarter, and of what size it is, for each of the two networks."""
    inputs = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = []
    for model in (Branches().eval(), Tokens().eval()):
        try:
            relevance = attribute(model, inputs, composite=name)[0].double()
        except UnsupportedOperation:
            continue
        quarters = relevance.unfold(1, 4, 4).unfold(2, 4, 4).sum((3, 4))
        found += [*quarters.flatten().tolist(), relevance.abs().sum().item()]
    return [float(f"{value:.7g}") for value in found]


def written() -> str:
    """The file of this revision."""
    found = {name: numbers(name) for name in sorted(COMPOSITES)}
    return json.dumps({"revision": revision.REVISION, "numbers": found}, indent=1) + "\n"


@pytest.mark.parametrize("name", sorted(COMPOSITES))
def test_numbers_change_only_with_the_revision(name: str) -> None:
    """Where they change on purpose: raise ``REVISION``, then ``python tests/test_revision.py`` writes the file anew."""
    stored = json.loads(NUMBERS.read_text())
    assert stored["revision"] == revision.REVISION
    then, now = stored["numbers"][name], numbers(name)
    assert len(now) == len(then)
    np.testing.assert_allclose(now, then, rtol=0, atol=2e-4 * np.abs(then).max())


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A store of this revision that is not complete."""
    run = attribute_dataset(tiny_model(), Images(), tmp_path / "run.zarr", STEP)
    run.table("relevance/epsilon_plus").take_back(2)
    return tmp_path / "run.zarr"


@pytest.mark.parametrize("left", [4, 0], ids=["some shards", "no shard"])
def test_what_one_revision_began_no_other_completes(
    begun: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    table = stores.open(begun, "r+").table("relevance/epsilon_plus")
    for shard in [*range(2), *range(3, 5)][left:]:
        table.take_back(shard)
    before = contents(begun)
    monkeypatch.setattr(revision, "REVISION", 2)
    with pytest.raises(
        AttributionError, match=r"begun by revision 1 .*this is revision 2.*or write to a new store"
    ):
        attribute_dataset(tiny_model(), Images(), begun, STEP)
    assert contents(begun) == before


def test_another_composite_joins_under_its_own_revision(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "REVISION", 2)
    other = replace(STEP, composite="gradient")
    run = attribute_dataset(tiny_model(), Images(), begun, other)
    assert run.table("relevance/gradient").provenance.steps[-1]["engine"] == 2
    monkeypatch.setattr(revision, "REVISION", 1)
    with pytest.raises(
        AttributionError, match=r"revision 2 of SpRAy's engine \(spray-audit [0-9.]+\).*pip install"
    ):
        attribute_dataset(tiny_model(), Images(), begun, other)
    attribute_dataset(tiny_model(), Images(), begun, STEP)
    assert stores.check(begun) == []


if __name__ == "__main__":
    NUMBERS.write_text(written())
