"""Stores of every released format version stay readable, exactly."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from store_tools import contents

import stores
from stores.encoding import COMPRESSIONS
from stores.schema import READABLE, VERSION

GOLDEN = Path(__file__).parent / "golden"
OPTIONS = {"samples": 12, "classes": 2, "size": 12, "failures": 1}
HOSTILE = {"names": ["</script>", "名\udcff"], "ids": [f"../{row}/\\\udc80.png" for row in range(12)]}


def make(path: Path) -> stores.Run:
    """The run that each version's archive holds; made anew with ``python tests/test_store_golden.py``."""
    run = stores.synthetic.make(path, **OPTIONS, **HOSTILE)
    run.add_verdict(
        stores.Verdict(
            "sample", "", "../3", "valid", "ünot", "me", "2026-01-01T00:00:00Z", ("../3/\\\udc80.png",)
        )
    )
    return run


@pytest.mark.parametrize("version", sorted(READABLE))
def test_a_golden_store_is_read_as_it_was_written(tmp_path: Path, version: int) -> None:
    with zipfile.ZipFile(GOLDEN / f"store_v{version}.zip") as archive:
        archive.extractall(tmp_path / "golden")
    assert stores.check(tmp_path / "golden") == []
    old, new = stores.open(tmp_path / "golden"), make(tmp_path / "new")
    assert (old.classes, old.n, old.provenance, old.tables()) == (
        new.classes,
        new.n,
        new.provenance,
        new.tables(),
    )
    for name in new.tables():
        one, other = old.table(name), new.table(name)
        assert one.columns == other.columns and one.failures == other.failures and len(one.failures) == 1
        for column in one.columns:
            left, right = one.read(column), other.read(column)
            if left.dtype.kind == "f":  # other processors round sums in another order
                np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)
            else:
                assert left.tolist() == right.tolist()
    assert old.verdicts() == new.verdicts()
    assert [finding.name for finding in old.analysis().findings()]
    assert old.analysis().groups == [0, 1] and old.analysis().read(0).vectors.shape[0] == 6


@pytest.mark.parametrize("version", sorted(READABLE))
def test_a_golden_store_goes_on_as_it_began(tmp_path: Path, version: int) -> None:
    """Its maps are compressed as they were then, and a shard that is done again has the bytes of the first time."""
    with zipfile.ZipFile(GOLDEN / f"store_v{version}.zip") as archive:
        archive.extractall(tmp_path)
    before = contents(tmp_path)
    run = stores.open(tmp_path, "r+")
    old = run.table(stores.synthetic.RELEVANCE)
    read = {name: old.read(name) for name in old.columns}
    commit = f"ledger/commits/{old.key}/0.json"
    (tmp_path / commit).unlink()
    for key in before:
        if key.startswith(old.key) and "/c/0" in key:
            (tmp_path / key).unlink()
    columns = list(old.columns.values())
    again = run.create_table(old.name, columns, rows_per_shard=old.rows_per_shard, provenance=old.provenance)
    again.write(0, read, old.failures, facts=old.facts(0))
    after = contents(tmp_path)
    said, says = (json.loads(files.pop(commit))["spray"] for files in (before, after))
    assert after == before and stores.check(tmp_path) == []
    assert says["files"] == said["files"] and says["content"].keys() - said["content"].keys() <= {"seals"}


def test_a_compression_of_a_later_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setitem(COMPRESSIONS, "brotli", COMPRESSIONS["lz4"])
        later.setattr("stores.run.COMPRESSION", "brotli")
        make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(stores.UnknownVersion, match="compressed by 'brotli'; this reader knows zstd, lz4"):
        stores.open(tmp_path).table(stores.synthetic.RELEVANCE)
    with pytest.raises(stores.UnknownVersion, match="upgrade"):
        stores.check(tmp_path, repair=True)
    assert contents(tmp_path) == before


def test_there_is_a_golden_store_of_this_version() -> None:
    assert (GOLDEN / f"store_v{VERSION}.zip").exists()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        GOLDEN.mkdir(exist_ok=True)
        with zipfile.ZipFile(GOLDEN / f"store_v{VERSION}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for key, data in sorted(contents(Path(folder)).items()):
                archive.writestr(zipfile.ZipInfo(key, (2026, 1, 1, 0, 0, 0)), data)
