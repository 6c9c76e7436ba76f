"""The same results on a CUDA device: relevance within float32, a whole audit, the same bytes twice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import spray
from spray.analysis import Analysis
from spray.analysis.exact import exact_neighbours
from spray.analysis.graph import NearestNeighbours
from spray.analysis.spectral import spectrum
from spray.attribution import Attribution
from spray.data import as_audit_data
from spray.demo import fashion
from spray.demo.network import small_cnn, train

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def case() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    data = fashion.load()
    rows = torch.nonzero(data.labels < 3)[:600, 0]
    images, labels = data.images[rows], data.labels[rows]
    return train(small_cnn(classes=3), images, labels, epochs=2), images, labels


@pytest.mark.parametrize(
    "composite", ["epsilon_plus_flat", "epsilon_plus", "lrp_epsilon", "gradient_x_input"]
)
def test_relevance_agrees_with_the_cpu(
    case: tuple[torch.nn.Module, torch.Tensor, torch.Tensor], composite: str
) -> None:
    model, images, labels = case
    there = spray.attribute(model.cuda(), images[:64].cuda(), labels[:64].cuda(), composite).cpu()
    here = spray.attribute(model.cpu(), images[:64], labels[:64], composite)
    assert torch.linalg.norm(there - here) <= 1e-3 * torch.linalg.norm(here)


def test_a_whole_audit_twice_gives_the_same_maps(
    case: tuple[torch.nn.Module, torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    model, images, labels = case
    data = as_audit_data(TensorDataset(images, labels), classes=fashion.CLASSES[:3])
    maps = []
    for name in ("a", "b"):
        audit = spray.audit(
            model,
            data,
            tmp_path / f"{name}.zarr",
            attribution=Attribution(block=100),
            analysis=Analysis(picture="none"),
            device="cuda",
        )
        assert audit.findings
        maps.append(audit.run.table("relevance/epsilon_plus_flat").read("input.place"))
    assert np.array_equal(*maps)


def test_exact_neighbours_are_those_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    features = np.random.default_rng(0).standard_normal((3000, 40)).astype(np.float32)
    here, there = exact_neighbours(features, 10), exact_neighbours(features, 10, device="cuda")
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])


def test_the_spectrum_of_a_large_graph_agrees_with_the_cpu(
    case: tuple[torch.nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    features = np.random.default_rng(0).standard_normal((60_000, 4)).astype(np.float32)
    graph = NearestNeighbours(device="cuda").affinity(features)
    here, there = (spectrum(graph, 8, tolerance=1e-6, device=device) for device in ("cpu", "cuda"))
    assert np.allclose(here.values, there.values, atol=1e-9)
