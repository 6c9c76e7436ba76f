"""What a shard was made from: a digest of its inputs, which relevance and samples of the same rows have to share."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from stores.ledger import Commit
from stores.provenance import Json

COLUMN = "digest"
"""Of the samples: one number for the input of each row."""
FACT, UNUSED = "pixels", "unused"
"""What commits call the digest of a shard's inputs, and the rows whose inputs are not in it."""


def facts(digests: Int[np.ndarray, " n"], rows: range, unused: Iterable[int]) -> dict[str, Json]:
    """What the commit of a shard with these rows says of the inputs that it was made of."""
    without = sorted(unused)
    return {FACT: _digest(digests, rows, without), UNUSED: [*without]}


def fits(
    stated: Mapping[str, Any],
    own: Collection[int],
    digests: Int[np.ndarray, " n"],
    rows: range,
    failed: Collection[int],
) -> bool | None:
    """Whether a shard with these facts, and failed rows of its ``own``, was made of these inputs, of which some failed.

    None where it does not tell: commits of early releases do not say of which inputs, or which rows were left out.
    """
    if FACT not in stated:
        return None
    if UNUSED in stated:
        known = set(stated[UNUSED]).issuperset(failed)
        return stated[FACT] == _digest(digests, rows, stated[UNUSED]) if known else None
    if stated[FACT] in (_digest(digests, rows, own), _digest(digests, rows, failed)):
        return True
    return False if set(own) == set(failed) else None


def differ(one: Commit, other: Commit) -> bool:
    """Whether two shards were surely made of different inputs, as far as their commits alone tell."""
    first, second = one.content["facts"], other.content["facts"]
    if not (UNUSED in first and UNUSED in second and one.content["rows"] == other.content["rows"]):
        return False
    return bool(first[UNUSED] == second[UNUSED] and first[FACT] != second[FACT])


def _digest(digests: Int[np.ndarray, " n"], rows: range, unused: Iterable[int]) -> str:
    used = np.array(digests, "<i8")
    used[[row - rows.start for row in unused]] = -1
    return hashlib.sha256(used.tobytes()).hexdigest()[:16]
