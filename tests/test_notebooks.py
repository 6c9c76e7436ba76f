"""Every notebook runs from top to bottom, and shows what it says."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parents[1].joinpath("notebooks").glob("*.ipynb"))
CLAIMS: dict[str, list[tuple[str, float, float]]] = {
    "01_quickstart": [
        (r"findings=\d+, flagged=(\d+)", 1, 1),
        (r"called shirt: (\d+)% of other clothes", 0, 20),
        (r"(\d+)% with the tag on", 50, 100),
        (r"purity (\d+)%", 95, 100),
        (r"recall (\d+)%", 95, 100),
        (r"audit\.html: ([\d.]+) MiB", 1, 25),
    ],
    "02_your_own_model": [
        (r"largest difference of any output: (\S+)", 0, 0.01),
        (r"(\d+) of its \d+ members carry the name", 150, 210),
        (r"audit\.html: ([\d.]+) MiB", 1, 25),
    ],
    "03_investigate_a_cluster": [
        (r"findings=\d+, flagged=(\d+)", 1, 2),  # most coats, too, as the notebook says
        (r"(\d+) strategies among", 2, 9),
        (r"archive B: +(\d+)% of the members", 95, 100),
        (r"shirts, (\d+)% of them members", 80, 100),
        (r"audit\.html: ([\d.]+) MiB", 1, 25),
    ],
    "04_validate_a_finding": [
        (r"removal +([+-][\d.]+) on", 0.2, 1),
        (r"transplant +([+-][\d.]+) on", 0.4, 1),
        (r"removed: +P\(coat\) [\d.]+ -> ([\d.]+)", 0, 0.8),
        (r"control: P\(coat\) [\d.]+ -> ([\d.]+)", 0.9, 1),
        (r"verdicts, (\d+) conflicts", 0, 0),
        (r"with (\d+) verdicts", 3, 3),
    ],
    "05_large_stores": [
        (r"(\d+) of 5000 pictures were read", 1, 4999),
        (r"the page: ([\d.]+) MiB, without any sample", 0.1, 5),
    ],
}
"""What the stories rest on: a figure that is printed, and between which values they still hold."""


def shows(notebook: Any, name: str) -> None:
    """Fails unless a notebook has a picture, and every figure that its story rests on."""
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    told = "\n".join(output.get("text", "") or output["data"].get("text/plain", "") for output in outputs)
    for pattern, low, high in CLAIMS[name]:
        found = re.search(pattern, told)
        assert found, f"{pattern} is nowhere in {told}"
        assert low <= float(found[1]) <= high, found[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shows(notebook, path.stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_of_a_run_shows_its_pictures_and_what_it_says(path: Path) -> None:
    shows(nbformat.read(path, as_version=4), path.stem)
