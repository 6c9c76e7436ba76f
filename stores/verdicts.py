"""Verdicts: what a human decided about a finding, a cluster or a sample. Appended, never changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from stores.errors import Damaged, StoreError
from stores.floor import Floor
from stores.provenance import Json, canonical_json
from stores.schema import content_of, element

ROOT = "verdicts"
Subject = Literal["finding", "cluster", "sample"]
Judgement = Literal["clever_hans", "valid", "unsure"]


@dataclass(frozen=True)
class Verdict:
    """One decision. ``members`` and their ``digest`` keep its meaning when clusters are renumbered.

    Raises:
        StoreError: the subject or the verdict is none of the known ones, or the digest is not the members'.
    """

    subject: Subject
    analysis: str
    """Id of the analysis it was made in."""
    key: str
    """The finding's name, "c6.hdbscan.3", or the sample's id."""
    verdict: Judgement
    note: str
    annotator: str
    time: str
    """ISO 8601, UTC."""
    members: tuple[str, ...]
    """Sample ids."""
    digest: str = ""
    """``members_digest(members)``; filled in if left empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if self.subject not in get_args(Subject) or self.verdict not in get_args(Judgement):
            raise StoreError(
                f"a verdict is {' / '.join(get_args(Judgement))} on a {' / '.join(get_args(Subject))}, got "
                f"{self.verdict!r} on a {self.subject!r}."
            )
        digest = members_digest(self.members)
        if self.digest not in ("", digest):
            raise StoreError(
                f"verdict on {self.key!r}: its digest is not that of its {len(self.members)} members."
            )
        object.__setattr__(self, "digest", digest)


def members_digest(members: Iterable[str]) -> str:
    """SHA-256 (hex) over the sorted ids, each as JSON and on a line of its own."""
    lines = "".join(json.dumps(member) + "\n" for member in sorted(members))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def add_verdict(floor: Floor, verdict: Verdict) -> None:
    """Append a verdict as a file of its own; of two writers at once each gets a number."""
    fields: dict[str, Json] = {**dataclasses.asdict(verdict), "members": list(verdict.members)}
    data = canonical_json(element("verdict", fields)).encode("utf-8", "surrogatepass")
    number = 1 + max((int(name.partition(".")[0]) for name in _names(floor)), default=0)
    while not floor.create(f"{ROOT}/{number:08d}.json", data):
        number += 1


def read_verdicts(floor: Floor) -> list[Verdict]:
    """Every verdict in the order they were given.

    Raises:
        Damaged: a file is not what was written.
        UnknownVersion: a verdict was written by a newer version.
    """
    return [read_verdict(floor, f"{ROOT}/{name}") for name in _names(floor)]


def read_verdict(floor: Floor, key: str) -> Verdict:
    """One verdict; raises as ``read_verdicts``."""
    try:
        content = content_of(json.loads(floor.read(key) or b""), "verdict", f"{floor.url}: {key}")
        if content is None:
            raise ValueError("it is no verdict")
        return Verdict(**content)
    except (ValueError, KeyError, TypeError, Damaged) as error:
        raise Damaged(
            f"{floor.url}: the verdict {key} cannot be read ({error}). `spray check --repair` puts it aside "
            f"under {ROOT}/damaged, so that a human can look at it."
        ) from error


def _names(floor: Floor) -> list[str]:
    return [name for name in floor.names(ROOT) if name.endswith(".json") and name[0].isdigit()]
