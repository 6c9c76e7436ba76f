"""Verdicts: what a human decided about a finding, a cluster or a sample. Appended, never changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from stores.errors import Damaged, StoreError
from stores.floor import Floor
from stores.ledger import COMMITS, Commit, create_once, fingerprint
from stores.provenance import Json, canonical_json
from stores.schema import content_of, element, parsed

ROOT = "verdicts"
Subject = Literal["finding", "cluster", "sample"]
Judgement = Literal["clever_hans", "valid", "unsure", "withdrawn"]
"""What a person says; "withdrawn" takes their last word on the same members back: they have said nothing then."""
LONGEST = {"note": 10_000, "annotator": 200}
"""Characters that a new verdict may have."""
EARLIEST = datetime.min.replace(tzinfo=UTC)
AHEAD = timedelta(days=1)
"""So far a clock may be ahead."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Verdict:
    """One decision. ``members`` and their ``digest`` keep its meaning when clusters are renumbered.

    Raises:
        StoreError: a field is no text, the subject or the verdict is none of the known ones, or the digest is not the
            members'.
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
        for field in dataclasses.fields(self):
            value: object = getattr(self, field.name)
            if field.name != "members" and not isinstance(value, str):
                raise StoreError(f"a verdict's {field.name} is text, got {value!r}.")
        members: Any = self.members
        if not isinstance(members, list | tuple) or not all(isinstance(member, str) for member in members):
            raise StoreError(
                f"a verdict's members are a list of sample ids, each a text, got {members!r:.200}."
            )
        object.__setattr__(self, "members", tuple(members))
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

    def _repr_html_(self) -> str:
        from stores.shown import verdicts_html

        return verdicts_html([self])

    @property
    def author(self) -> str | Verdict:
        """Whose word it is. One without a name, of an older store, is nobody's: no other takes its place, and it takes
        that of none."""
        return self.annotator.strip() or self

    @property
    def moment(self) -> datetime:
        """When it was given; the earliest of all where ``time`` does not tell, so that it outlives no other.

        What is in a store was looked at by the clock of its writer (``check_new``). The reader's own is not asked: the
        order of people's words must not depend on who reads them when.
        """
        try:
            moment = datetime.fromisoformat(self.time)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return EARLIEST


class VerdictList(list[Verdict]):
    """Verdicts in their order; shows itself in a notebook as a table."""

    def _repr_html_(self) -> str:
        from stores.shown import verdicts_html

        return verdicts_html(self)


def check_new(verdict: Verdict) -> Verdict:
    """The verdict, if it may be written. What a store has already is read without this.

    Raises:
        StoreError: its time is no ISO 8601 with an offset or lies in the future, or a text is too long.
    """
    if not _TIME.fullmatch(verdict.time) or not EARLIEST < verdict.moment <= datetime.now(UTC) + AHEAD:
        raise StoreError(
            f"the time of the verdict on {verdict.key[:200]!r} is {verdict.time[:60]!r}; expected a moment that has "
            "come, such as 2026-01-31T09:30:00Z. Set the clock of the machine it was given on, and give it anew."
        )
    for name, most in LONGEST.items():
        if len(getattr(verdict, name)) > most:
            raise StoreError(
                f"the {name} of the verdict on {verdict.key[:200]!r} has {len(getattr(verdict, name)):,} characters; "
                f"at most {most:,} are taken. Shorten it."
            )
    return verdict


def members_digest(members: Iterable[str]) -> str:
    """SHA-256 (hex) over the sorted ids, each as JSON and on a line of its own."""
    lines = "".join(json.dumps(member) + "\n" for member in sorted(members))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def add_verdict(floor: Floor, verdict: Verdict) -> None:
    """Append a verdict as a file of its own; of two writers at once each gets a number.

    A commit record beside it tells, should the file be lost, that there was one.

    Raises:
        StoreError: as ``check_new``; nothing is written then.
    """
    fields: dict[str, Json] = {**dataclasses.asdict(check_new(verdict)), "members": list(verdict.members)}
    data = canonical_json(element("verdict", fields)).encode("utf-8", "surrogatepass")
    number = 1 + max(verdicts_given(floor), default=0)
    while not create_once(floor, f"{ROOT}/{number:08d}.json", data):
        number += 1
    record(floor, f"{ROOT}/{number:08d}", data)


def record(floor: Floor, unit: str, data: bytes | None) -> None:
    """Keep beside a verdict with these bytes that it was given; of none, that nothing is known of it."""
    if data is None:
        floor.delete(f"{COMMITS}/{unit}.json")
    else:
        floor.put(f"{COMMITS}/{unit}.json", Commit(unit, {f"{unit}.json": fingerprint(data)}, {}).to_bytes())


def verdicts_given(floor: Floor) -> list[int]:
    """Numbers of the verdicts that were given, also of those whose files are gone; early releases kept no record."""
    kept = [name.removesuffix(".json") for name in [*verdict_names(floor), *floor.names(f"{COMMITS}/{ROOT}")]]
    return sorted({int(number) for number in kept if re.fullmatch(r"[0-9]{8,}", number)})


def read_verdicts(floor: Floor) -> list[Verdict]:
    """Every verdict in the order they were given.

    Raises:
        Damaged: a file is not what was written.
        UnknownVersion: a verdict was written by a newer version.
    """
    return [read_verdict(floor, f"{ROOT}/{name}") for name in verdict_names(floor)]


def read_verdict(floor: Floor, key: str) -> Verdict:
    """One verdict; raises as ``read_verdicts``."""
    try:
        content = content_of(parsed(floor.read(key) or b""), "verdict", f"{floor.url}: {key}")
        if content is None:
            raise ValueError("it is no verdict")
        return Verdict(**_as_text(content))
    except (ValueError, KeyError, TypeError, Damaged) as error:
        raise Damaged(
            f"{floor.url}: the verdict {key} cannot be read ({error}). `spray check --repair` puts it aside "
            f"under {ROOT}/damaged, so that a human can look at it."
        ) from error


def _as_text(content: dict[str, Any]) -> dict[str, Any]:
    """Fields as text: a store written before they were checked may hold anything, and is read all the same."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    plain = {name: text(value) for name, value in content.items() if name != "members"}
    members = content["members"]
    if any(not isinstance(member, str) for member in members):
        plain["digest"] = ""  # it was that of other things than texts
    return {**plain, "members": tuple(text(member) for member in members)}


def verdict_names(floor: Floor) -> list[str]:
    """Names of the files of verdicts, in the order they were given."""
    return [name for name in floor.names(ROOT) if re.fullmatch(r"[0-9]{8,}\.json", name)]
