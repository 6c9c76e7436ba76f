"""Verdicts that are gone, altered, or another's: named by a check, set aside by a repair, never deleted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from stores.errors import Damaged, StoreError
from stores.floor import Floor
from stores.ledger import Ledger, fingerprint
from stores.problems import Done, Problem
from stores.verdicts import ROOT as VERDICTS
from stores.verdicts import read_verdict, record, verdict_names, verdicts_given


def verdict_problems(floor: Floor, done: Done, repair: bool) -> Iterator[Problem]:
    """Verdicts that are gone, or cannot be read, and records that are none of theirs."""
    yield from _records(floor, done, repair)
    names = verdict_names(floor)
    known = {*names, *floor.names(f"{VERDICTS}/damaged")}
    for number in range(1, 1 + max(verdicts_given(floor), default=0)):
        if f"{number:08d}.json" not in known:
            yield Problem(f"{VERDICTS}/{number:08d}.json", "verdict", "is missing, and cannot be made again")
    for name in names:
        key = f"{VERDICTS}/{name}"
        try:
            read_verdict(floor, key)
        except StoreError as error:
            yield done(Problem(key, "verdict", str(error)), partial(_set_aside, floor, name))


def _records(floor: Floor, done: Done, repair: bool) -> Iterator[Problem]:
    """Records of verdicts that cannot be read, and verdicts that are none of those that were given there.

    A verdict without a record is no news: early releases kept none, and a crash right after it leaves it so.
    Repair makes up for it.
    """
    for number in verdicts_given(floor):
        unit, name = f"{VERDICTS}/{number:08d}", f"{number:08d}.json"
        key = f"{VERDICTS}/{name}"
        try:
            data = floor.read(key)
            read_verdict(floor, key)
        except StoreError:
            data = None  # which is told of the verdict
        try:
            commit = Ledger(floor).commit(unit)
            if commit is not None and commit.unit != unit:
                raise Damaged(f"its commit record is that of {commit.unit}")
        except Damaged as error:
            yield done(Problem(unit, "commit", str(error)), partial(record, floor, unit, data))
            continue
        if data is None:
            continue
        if commit is None and repair:
            record(floor, unit, data)
        elif commit is not None and fingerprint(data) != commit.files.get(key):
            problem = Problem(key, "verdict", "is a verdict, but not the one that was given there")
            yield done(problem, partial(_set_aside, floor, name))


def _set_aside(floor: Floor, name: str) -> None:
    floor.put(f"{VERDICTS}/damaged/{name}", floor.read(f"{VERDICTS}/{name}") or b"")
    floor.delete(f"{VERDICTS}/{name}")
