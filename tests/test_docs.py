"""What the manuals of verification and analysis say is what the code does."""

from pathlib import Path

import stores
from spray.analysis import Analysis
from spray.analysis.clustering import CLUSTERINGS, HDBSCAN
from spray.analysis.features import REPRESENTATIONS
from spray.analysis.graph import NearestNeighbours
from spray.findings.scores import ASSOCIATION, SCORES
from spray.findings.suspicion import Ranking
from spray.findings.verification import Requirements, Verification
from spray.findings.verification.evidence import (
    APART,
    COMPARED,
    COMPARED_AT_LEAST,
    NECESSITY,
    SIGNIFICANCE,
    SUFFICIENCY,
)

DOCS = Path(__file__).parents[1] / "docs"
MANUAL = (DOCS / "verification.md").read_text(encoding="utf-8")
ANALYSIS = (DOCS / "analysis.md").read_text(encoding="utf-8")


def row(name: str, manual: str = MANUAL) -> str:
    """A table's row by the name that it begins with."""
    [found] = [line for line in manual.splitlines() if line.startswith(f"| {name} |")]
    return found


def test_every_score_is_explained() -> None:
    assert all(f"`{name}`" in MANUAL for name in (*SCORES, ASSOCIATION))


def test_requirements_are_told_with_their_defaults() -> None:
    asked = Requirements()
    assert f"at least {asked.necessity}" in row(NECESSITY) and f"at least {asked.sufficiency}" in row(
        SUFFICIENCY
    )
    assert f"at least {asked.score}, of a region that moves {asked.moving}" in row("size of the effect")
    spread = Verification().spread
    assert f"({spread.effect} standard deviations, half A)" in MANUAL
    assert f"({max(it.share for it in Verification().regions):.0%})".replace("%", " %") in MANUAL
    assert spread.share == 0.25 and "up to a quarter of the picture" in MANUAL
    assert row(SIGNIFICANCE).count(f"at most {asked.alpha}") == 2
    assert asked.fills == 2 and "two at least" in row("agreement of fills")
    assert COMPARED_AT_LEAST == 5 and "at least five others" in row(COMPARED)
    assert f"at least {asked.mode:.0%}".replace("%", " %") in row(APART)
    assert asked.hosts == 0.5 and "more than half" in row("independence of the host")


def test_suspicion_is_told_with_its_numbers() -> None:
    rank = Ranking()
    assert f"{rank.prior_weight} · √(separation · agreement)" in MANUAL
    assert f"a separability of {rank.separation}," in MANUAL and rank.flags_per_class == 3
    assert "and `mode`, the share of the tested members" in MANUAL
    assert rank.apart({"separation": 0.0, "mode": 0.7}) == 0.7


def test_every_representation_and_clustering_is_explained() -> None:
    assert all(f"`{name}`" in ANALYSIS for name in (*REPRESENTATIONS, *CLUSTERINGS))


def test_defaults_of_the_analysis_are_told() -> None:
    step, density = Analysis(), HDBSCAN()
    assert row("neighbours", ANALYSIS).endswith(f"| {step.neighbours.k} |")
    assert row("spectrum", ANALYSIS).endswith(f"| {step.eigenvectors} |")
    names = ", ".join(f"`{clustering.name}`" for clustering in step.clusterings)
    assert row("clusters", ANALYSIS).endswith(f"| {names} |")
    assert (
        f"up to {step.stability.draws} resamples of {step.stability.share:.0%}".replace("%", " %") in ANALYSIS
    )
    told = f"({density.dimensions} eigenvectors, at least {density.min_cluster_size} samples, {density.min_samples} to"
    assert told in ANALYSIS
    assert f"At most {step.eigenvectors - 1} strategies" in ANALYSIS
    assert NearestNeighbours().is_exact(30_000) and not NearestNeighbours().is_exact(30_001)


def test_the_example_of_the_analysis_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    stores.synthetic.make("run.zarr", samples=120, classes=2)
    exec(compile(ANALYSIS.split("```python")[1].split("```")[0], "docs/analysis.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
