"""Relevance and samples of the same rows are made from the same pixels, or that is told."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit_tools import Images, contents, tiny_model

import stores
from spray.attribution import Attribution, attribute_dataset
from stores import made_from
from stores.ledger import Commit

STEP = Attribution("epsilon_plus", block=4, grid=4, thumbnails=8)
SECOND = replace(STEP, composite="gradient")
MAPS, OTHERS = "relevance/epsilon_plus", "relevance/gradient"


def attribute(out: Path, *, inverted: bool = False, step: Attribution = STEP) -> stores.Run:
    data = Images(items={6: OSError("torn")})
    if inverted:
        data.images = 1 - data.images
    return attribute_dataset(tiny_model(), data, out, step)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores of the same ids and other pixels."""
    folder = tmp_path_factory.mktemp("made")
    attribute(folder / "one.zarr")
    attribute(folder / "other.zarr", inverted=True)
    return folder


@pytest.fixture
def stores_of(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """One to damage, and the other."""
    shutil.copytree(made / "one.zarr", tmp_path / "one.zarr")
    return tmp_path / "one.zarr", made / "other.zarr"


def plant(source: Path, target: Path, table: str, shard: int) -> None:
    """Lay a shard and its commit over those of another store."""
    commit = f"ledger/commits/{table}/{shard}.json"
    for key in [*Commit.from_bytes((source / commit).read_bytes(), "").files, commit]:
        (target / key).write_bytes((source / key).read_bytes())


def forget_the_unused(path: Path, table: str, shard: int) -> None:
    """Make a commit one of an early release, which did not say which rows were left out."""
    file = path / f"ledger/commits/{table}/{shard}.json"
    commit = Commit.from_bytes(file.read_bytes(), "")
    facts = {key: value for key, value in commit.content["facts"].items() if key != made_from.UNUSED}
    file.write_bytes(replace(commit, content={**commit.content, "facts": facts}).to_bytes())


def told(path: Path, repair: bool = False) -> list[str]:
    return [
        problem.unit for problem in stores.check(path, repair=repair) if "different pixels" in problem.detail
    ]


@pytest.mark.parametrize("shard", [1, 2], ids=["with a failed row", "all sound"])
@pytest.mark.parametrize("early", [False, True])
def test_relevance_of_other_pixels_is_told_and_redone(
    stores_of: tuple[Path, Path], early: bool, shard: int
) -> None:
    mine, other = stores_of
    before = contents(mine)
    plant(other, mine, MAPS, shard)
    if early:
        forget_the_unused(mine, MAPS, shard)
    else:
        with pytest.raises(stores.Damaged, match="made from other pixels"):
            stores.open(mine).table(MAPS).read("sum")
    assert told(mine) == [f"{MAPS}/{shard}", f"samples/{shard}"]
    assert told(mine, repair=True) == [f"{MAPS}/{shard}", f"samples/{shard}"]
    attribute(mine)
    assert contents(mine) == before and stores.check(mine) == []


def test_samples_of_other_pixels_are_told_and_redone(stores_of: tuple[Path, Path]) -> None:
    mine, other = stores_of
    before = contents(mine)
    plant(other, mine, "samples", 3)
    told(mine, repair=True)
    attribute(mine)
    assert contents(mine) == before


def test_where_other_relevance_agrees_with_the_samples_only_the_strange_one_is_taken_back(
    stores_of: tuple[Path, Path],
) -> None:
    mine, other = stores_of
    attribute(mine, step=SECOND)
    plant(other, mine, MAPS, 0)
    assert told(mine, repair=True) == [f"{MAPS}/0"]
    assert stores.open(mine).samples.complete and stores.open(mine).table(OTHERS).complete


def test_what_an_early_commit_does_not_tell_is_not_held_against_it() -> None:
    digests, rows = np.arange(4), range(8, 12)
    stated = {made_from.FACT: made_from.facts(digests, rows, [9])[made_from.FACT]}
    assert made_from.fits(stated, [9], digests, rows, [9])
    assert made_from.fits(
        stated, [9, 11], digests, rows, [9]
    )  # row 11 was read, and its relevance not finite
    assert made_from.fits(stated, [9, 10, 11], digests, rows, [10]) is None
    assert made_from.fits(stated, [9], digests + 1, rows, [9]) is False
    assert made_from.fits({}, [], digests, rows, []) is None
