"""The verdicts of a store as a server tells them, again and again: each file is read once."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import stores
from reports.payload import finite, script_json
from stores.verdicts import ROOT, read_verdict, verdict_names


class Judged:
    """Reads what others have added since, and adds; everything in one thread of its own, beside the server's loop."""

    def __init__(self, run: stores.Run) -> None:
        self.run = run
        self.thread = ThreadPoolExecutor(1, "verdicts")
        self._known: dict[str, tuple[stores.Verdict, str]] = {}

    def told(self, known: str = "") -> tuple[str, int, list[str]]:
        """What the store holds, for somebody who knows it up to a state that was told before.

        Gives the state it is in, how many verdicts of that are known, and those after them, each as JSON, in the order
        they were given. None is known where the state is not one that the store was in before it grew to this.
        """
        names = verdict_names(self.run.floor)
        self._read(names)
        told = re.fullmatch(r"([0-9]{1,9})-[0-9a-f]{16}", known)
        count = int(told[1]) if told else 0
        after = count if _state(names[:count]) == known else 0
        return _state(names), after, [self._known[name][1] for name in names[after:]]

    def add(self, verdict: stores.Verdict) -> None:
        """Put a verdict into the store, unless it is there: one is sent once more where the answer was lost.

        Raises:
            stores.StoreError: it may not be written.
        """
        self._read(verdict_names(self.run.floor))
        if not any(verdict == one for one, _ in self._known.values()):
            self.run.add_verdict(verdict)

    def _read(self, names: list[str]) -> None:
        # A verdict is never changed once it is written; one that was put aside is let go.
        self._known = {name: self._known.get(name) or self._read_one(name) for name in names}

    def _read_one(self, name: str) -> tuple[stores.Verdict, str]:
        verdict = read_verdict(self.run.floor, f"{ROOT}/{name}")
        return verdict, script_json(finite(dataclasses.asdict(verdict)))


def _state(names: list[str]) -> str:
    return f"{len(names)}-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}"
