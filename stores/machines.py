"""On what kinds of machines a table was computed: equal inputs may differ there in their last bits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stores.differences import difference
from stores.provenance import canonical_json

if TYPE_CHECKING:
    from stores.tables import Table

KIND = ("processor", "threads", "device", "libraries")
"""Facts of commits that say what computed a shard; early releases left some of them out."""
TOLD = 8
"""So many runs of numbers are named."""


def facts_by_shard(table: Table) -> dict[int, dict[str, Any]]:
    """What the commits of a table say beside their rows, by shard; of those that are there."""
    return {shard: table.facts(shard) for shard in table.committed}


def kinds(table: Table) -> list[tuple[Mapping[str, Any], list[int]]]:
    """What computed the committed shards of a table, and which shards, the most frequent first."""
    found: dict[str, tuple[Mapping[str, Any], list[int]]] = {}
    for shard, facts in facts_by_shard(table).items():
        kind = {name: facts[name] for name in KIND if name in facts}
        found.setdefault(canonical_json(kind), (kind, []))[1].append(shard)
    return sorted((entry for entry in found.values() if entry[0]), key=lambda entry: -len(entry[1]))


def batches(table: Table) -> dict[int, int]:
    """The batch of each shard that was computed in smaller pieces since memory ran out."""
    return {shard: facts["batch"] for shard, facts in facts_by_shard(table).items() if "batch" in facts}


def halved(table: Table) -> str:
    """A sentence about a table with such shards; "" of any other."""
    if not (found := batches(table)):
        return ""
    sizes = ", ".join(map(str, sorted(set(found.values()))))
    return f"ran out of memory in {len(found)} shards, which were computed in batches of {sizes}"


def mixture(table: Table, *, details: bool = True) -> str:
    """A sentence about a table that was computed on several kinds of machines; "" of any other."""
    usual, *others = kinds(table) or [({}, [])]
    if not others:
        return ""
    told = "; ".join(
        f"shards {numbers_in_words(shards)} differ in {difference(usual[0], kind)}" for kind, shards in others
    )
    told = f": {told}" if details else ""
    return f"was computed on {1 + len(others)} kinds of machines; equal inputs may differ in their last bits{told}"


def circumstances_of(table: Table, *, details: bool = True) -> list[str]:
    """Both sentences, as far as they apply, with what differs between the machines or without."""
    return [told for told in (mixture(table, details=details), halved(table)) if told]


def numbers_in_words(numbers: list[int]) -> str:
    """Ascending numbers in words: "0, 2 to 5, 9"."""
    cuts = [at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1]
    runs = [(numbers[low], numbers[high - 1]) for low, high in pairwise([0, *cuts, len(numbers)])]
    told = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:TOLD]]
    return ", ".join([*told, *(["…"] if len(runs) > TOLD else [])])
