"""The synthetic run: whole, the same bytes for the same arguments, and with the planted tag where it should be."""

from pathlib import Path

import numpy as np
import pytest

import stores


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    stores.synthetic.make(tmp_path / "a", samples=90, seed=3)
    stores.synthetic.make(tmp_path / "b", samples=90, seed=3)
    stores.synthetic.make(tmp_path / "c", samples=90, seed=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_making_it_again_changes_nothing(tmp_path: Path) -> None:
    stores.synthetic.make(tmp_path / "run", samples=60)
    before = contents(tmp_path / "run")
    stores.synthetic.make(tmp_path / "run", samples=60)
    assert contents(tmp_path / "run") == before
    with pytest.raises(stores.StoreError, match="another run"):
        stores.synthetic.make(tmp_path / "run", samples=60, seed=1)


def test_the_tagged_finding_ranks_first_and_its_relevance_lies_in_the_corner(tmp_path: Path) -> None:
    run = stores.synthetic.make(tmp_path / "run", channels=3)
    first, second = run.analysis().findings()[:2]
    assert (first.group, first.flagged, second.flagged) == (2, True, False)
    assert first.region is not None
    y, x = np.nonzero(first.region)
    assert y.max() < 5 and x.min() > 8
    maps = run.table(stores.synthetic.RELEVANCE).read("input.place", first.rows)
    inside = maps[:, first.region].sum(axis=1) / np.abs(maps).sum(axis=(1, 2))
    assert inside.min() > 0.3


def test_nothing_planted_nothing_flagged(tmp_path: Path) -> None:
    run = stores.synthetic.make(tmp_path / "run", planted=False)
    assert not any(finding.flagged for finding in run.analysis().findings())


def test_hostile_names_and_failures(tmp_path: Path) -> None:
    names = ["</script><script>alert(1)</script>", "../../etc/passwd", "名\udcff\x00"]
    ids = [f"/abs/<b>{row}\\\udc80" for row in range(60)]
    run = stores.synthetic.make(tmp_path / "run", samples=60, names=names, ids=ids, failures=4)
    run = stores.open(run.path)
    assert list(run.classes) == names
    assert run.samples.read("id").tolist() == ids
    assert len(run.samples.failures) == 4
    assert not set(run.samples.failures) & {
        row for group in range(3) for row in run.analysis().read(group).rows
    }
    assert stores.check(run.path) == []
