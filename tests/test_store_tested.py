"""Findings of one class, kept while others are tested, and the pictures that findings carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_tools import PROVENANCE, new_run

import stores


def finding(name: str, **pictures: np.ndarray) -> stores.Finding:
    return stores.Finding(
        name,
        1,
        "hdbscan",
        (0,),
        np.array([2, 5]),
        0.4,
        False,
        {},
        np.eye(3, dtype=bool),
        None,
        pictures=pictures,
    )


def test_pictures_come_back_by_name_and_are_optional(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shots = {
        name: rng.integers(0, 256, (n, 4, 3, 1), np.uint8) for name, n in (("removed", 2), ("members", 2))
    }
    other = rng.integers(0, 256, (1, 2, 2, 3), np.uint8)
    listed = [finding("a", **shots), finding("b"), finding("c", hosts=other)]
    handle = new_run(tmp_path / "run.zarr").create_analysis(PROVENANCE, facts={})
    handle.write_findings(listed, PROVENANCE)
    first, second, third = handle.findings()
    assert set(first.pictures) == set(shots) and second.pictures == {}
    for name, picture in shots.items():
        assert np.array_equal(first.pictures[name], picture)
    assert np.array_equal(third.pictures["hosts"], other) and third.pictures["hosts"].dtype == np.uint8
    assert np.array_equal(third.region, np.eye(3, dtype=bool))


def test_findings_of_a_class_are_kept_by_how_they_were_tested(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run.zarr")
    handle = run.create_analysis(PROVENANCE, facts={})
    other = stores.Provenance(({"name": "tested otherwise"},), ())
    assert handle.tested(1, PROVENANCE) is None
    handle.write_tested(1, [finding("a")], PROVENANCE)
    kept = stores.open(run.path).analysis(handle.id).tested(1, PROVENANCE)
    assert kept is not None and [it.name for it in kept] == ["a"]
    assert handle.tested(0, PROVENANCE) is None and handle.tested(1, other) is None
    assert handle.findings() == [] and handle.groups == []
    assert stores.check(run.path) == []
    with pytest.raises(stores.StoreError, match="other content"):
        handle.write_tested(1, [finding("b")], PROVENANCE)
    with pytest.raises(stores.StoreError, match="reading"):
        stores.open(run.path).analysis(handle.id).write_tested(0, [], PROVENANCE)


def test_the_synthetic_run_has_pictures_of_every_finding(tmp_path: Path) -> None:
    run = stores.synthetic.make(tmp_path / "run.zarr", samples=90, size=16, channels=3)
    for found in run.analysis().findings():
        assert set(found.pictures) == {"members", "removed", "hosts", "pasted"}
        for before, after in (("members", "removed"), ("hosts", "pasted")):
            assert found.pictures[before].shape[1:] == (16, 16, 3)
            assert (found.pictures[before] != found.pictures[after]).any()
