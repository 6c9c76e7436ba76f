"""The groups of a stored run, its classes by label or prediction, and their features gathered shard by shard."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from spray.analysis.features import Representation
from stores import Run
from stores.analysis import ALL_CLASSES

GroupBy = Literal["label", "prediction", "all"]


def choose_table(run: Run, relevance: str | None) -> str:
    """The full name of a relevance table: the given one, with or without "relevance/", or the only one.

    Raises:
        ValueError: there is none, more than one to choose from, or none of this name.
    """
    names = [name.removeprefix("relevance/") for name in run.tables() if name.startswith("relevance/")]
    if relevance is None and len(names) == 1:
        return f"relevance/{names[0]}"
    asked = None if relevance is None else relevance.removeprefix("relevance/")
    if asked in names:
        return f"relevance/{asked}"
    if not names:
        raise ValueError(
            f"{run.path} has no relevance yet; run the attribution stage first: spray attribute."
        )
    wish = "several relevance tables" if asked is None else f"no relevance {asked!r}"
    raise ValueError(f"{run.path} has {wish}; name one of {', '.join(names)}.")


def choose_groups(
    run: Run, group_by: GroupBy, groups: Sequence[int | str] | None = None
) -> dict[int, Int[np.ndarray, " m"]]:
    """Row numbers of each group, ascending; empty for classes without samples.

    Args:
        run: an open run with its table of samples.
        group_by: "label", "prediction", or "all" for one joint group (``ALL_CLASSES``).
        groups: classes by index or name; all of them if left out.

    Raises:
        ValueError: an unknown way to group, or a class that the run does not have.
    """
    if group_by == "all":
        if groups is not None:
            raise ValueError("a joint analysis (group_by='all') has one group; leave out groups.")
        return {ALL_CLASSES: np.arange(run.n)}
    if group_by not in ("label", "prediction"):
        raise ValueError(f"unknown group_by {group_by!r}: choose 'label', 'prediction' or 'all'.")
    wanted = range(len(run.classes)) if groups is None else [_class_index(run, name) for name in groups]
    column = np.asarray(run.samples.read(group_by))
    return {index: np.flatnonzero(column == index) for index in dict.fromkeys(wanted)}


def _class_index(run: Run, name: int | str) -> int:
    if isinstance(name, str):
        if run.classes.count(name) == 1:
            return run.classes.index(name)
        known = f"its classes are {', '.join(run.classes[:20])}{', …' if len(run.classes) > 20 else ''}"
        raise ValueError(f"{run.path} has {run.classes.count(name)} classes named {name!r}; {known}.")
    if not 0 <= int(name) < len(run.classes):
        raise ValueError(f"{run.path} has no class {name}; its {len(run.classes)} classes count from 0.")
    return int(name)


@contextmanager
def gathered_features(
    run: Run,
    table: str,
    column: str,
    representation: Representation,
    groups: Mapping[int, Int[np.ndarray, " m"]],
) -> Iterator[dict[int, Float[np.ndarray, "m d"]]]:
    """The features of each group, from one pass over the shards.

    They lie in a scratch file, group after group, and are read through memory maps: neither this process nor
    those it starts ever hold more than the group they work on. The file is deleted on leaving.
    """
    rows = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *groups.values()]))
    place = np.full(run.n, -1)
    order = np.concatenate([np.zeros(0, dtype=np.int64), *groups.values()])
    place[order] = np.arange(len(order))
    with tempfile.TemporaryDirectory(prefix="spray-") as folder:
        scratch: np.memmap[tuple[int, int], np.dtype[np.float32]] | None = None
        for at, maps in run.table(table).iterate(column, rows):
            features = representation.transform(maps)
            if scratch is None:
                shape = (len(order), features.shape[1])
                scratch = np.memmap(Path(folder) / "features", np.float32, "w+", shape=shape)
            scratch[place[at]] = features
        ends = np.cumsum([len(members) for members in groups.values()])
        empty = np.zeros((0, 1), dtype=np.float32)
        try:
            yield {
                group: empty if scratch is None else scratch[end - len(members) : end]
                for (group, members), end in zip(groups.items(), ends, strict=True)
            }
        finally:
            del scratch
