"""From images with a planted shortcut to the finding that names it, and to none where the model does not use it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spray
from spray.analysis import Analysis
from spray.attribution import Attribution
from spray.data import as_audit_data
from spray.findings import Findings
from spray.findings.verification import Verification

SIZE, PER_CLASS, TAGGED = 16, 120, 36
TAG = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])


def images(seed=3):
    """Bars under noise, lying, standing or slanting; those of the first ``TAGGED`` lying ones cannot be seen."""
    generator = torch.Generator().manual_seed(seed)
    count = 3 * PER_CLASS
    labels = torch.arange(3).repeat_interleave(PER_CLASS)
    pictures = torch.rand(count, 1, SIZE, SIZE, generator=generator) * 0.5
    places = torch.randint(3, SIZE - 6, (count, 2), generator=generator)
    for row in range(TAGGED, count):
        (y, x), (down, right) = places[row].tolist(), ((0, 1), (1, 0), (1, 1))[int(labels[row])]
        for at in range(5):
            pictures[row, 0, y + at * down, x + at * right] += 0.35
    return pictures, labels


def tagged(pictures):
    marked = pictures.clone()
    marked[:TAGGED, 0, -3:, -3:] = TAG
    return marked


def trained(pictures, labels):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * 16, 3),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(25):
        optimizer.zero_grad()
        F.cross_entropy(model(pictures - 0.3), labels).backward()
        optimizer.step()
    return model.eval()


def audit(model, pictures, labels, out):
    pairs = list(zip(pictures - 0.3, labels.tolist(), strict=True))
    data = as_audit_data(pairs, classes=("lying", "standing", "slanting"), mean=(0.3,), std=(1.0,))
    return spray.audit(
        model,
        data,
        out,
        attribution=Attribution(block=120),
        analysis=Analysis(picture="none"),
        findings=Findings(verification=Verification(members=60)),
    )


@pytest.fixture(scope="module")
def planted():
    pictures, labels = images()
    return tagged(pictures), labels


def test_a_planted_shortcut_is_the_first_finding_and_the_only_one_flagged(planted, tmp_path):
    pictures, labels = planted
    model = trained(pictures, labels)
    with torch.no_grad():  # a plant counts only once the model uses it
        others = pictures[PER_CLASS:].clone()
        before = (model(others - 0.3).argmax(1) == 0).float().mean()
        others[:, 0, -3:, -3:] = TAG
        after = (model(others - 0.3).argmax(1) == 0).float().mean()
    assert after - before > 0.3
    found = audit(model, pictures, labels, tmp_path / "a.zarr")
    first = found.findings[0]
    assert found.run.classes[first.group] == "lying"
    assert first.flagged
    assert {finding.group for finding in found.flagged} == {0}
    rows = np.unique(np.concatenate([finding.rows for finding in found.flagged]))
    assert np.mean(rows < TAGGED) >= 0.95
    assert np.isin(np.arange(TAGGED), rows).mean() >= 0.9
    assert first.region[-3:, -3:].mean() > 0.5
    assert "right" in first.summary
    page = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "lying" in page


def test_a_model_that_never_saw_the_tag_gives_no_flag(planted, tmp_path):
    pictures, labels = planted
    model = trained(*images())
    assert audit(model, pictures, labels, tmp_path / "a.zarr").flagged == []
