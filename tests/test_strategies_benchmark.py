"""The strategies benchmark in small: a planted tag is flagged whole and pure, and the result is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "strategies.py"


def run(cache: Path, only: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of one case, and what all cases say together."""
    command = [sys.executable, str(SCRIPT), "--quick", "--json", "--only", only, "--cache", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (result,) = found["results"]
    return result, found["summary"]


def test_a_planted_tag_is_flagged_whole_and_pure_and_the_result_is_kept(tmp_path: Path) -> None:
    found, summary = run(tmp_path, "tag")
    assert found["counts"] and found["flip_tagged"] - found["flip_clean"] >= 0.1
    assert (found["flagged"], found["rank"]) == (1, 1)
    assert found["found"]["precision"] >= 0.98
    assert found["found"]["recall"] >= 0.95
    assert found["oracle"]["finding"]["recall"] >= 0.95
    assert summary["local, 5 % or more"] == {"cases": 1, "met": 1, "missed": []}
    assert summary["excluded"] == [] and summary["local, 1 %"]["cases"] == 0
    files = (tmp_path / "results").glob("*.json")
    (kept,) = (file for file in files if "-findings-" not in file.name)
    assert json.loads(kept.read_text()) == found


@pytest.mark.slow
def test_without_a_tag_nothing_is_flagged(tmp_path: Path) -> None:
    found, summary = run(tmp_path, "none")
    assert found["control"] and found["counts"]
    assert (summary["controls"], summary["controls with a flag"]) == (1, [])
    assert found["flagged"] == found["flagged_elsewhere"] == 0
