"""The verdicts of a store as a server tells them, again and again: each file is read once."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

import stores
from reports.payload import finite, script_json
from stores.verdicts import ROOT, read_verdict, verdict_names


class Judged:
    """Reads what others have added since, and adds; everything in one thread of its own, beside the server's loop."""

    def __init__(self, run: stores.Run) -> None:
        self.run = run
        self.thread = ThreadPoolExecutor(1, "verdicts")
        self._known: dict[str, stores.Verdict] = {}
        self._told = ("", "")

    def told(self) -> tuple[str, str]:
        """What the store holds, as a name that changes whenever that does, and as JSON in the order it was given."""
        names = verdict_names(self.run.floor)
        state = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        if state != self._told[0]:
            verdicts = [dataclasses.asdict(verdict) for verdict in self._read(names)]
            self._told = state, script_json(finite(verdicts))
        return self._told

    def add(self, verdict: stores.Verdict) -> None:
        """Put a verdict into the store, unless it is there: one is sent once more where the answer was lost.

        Raises:
            stores.StoreError: it may not be written.
        """
        if verdict not in self._read(verdict_names(self.run.floor)):
            self.run.add_verdict(verdict)

    def _read(self, names: list[str]) -> list[stores.Verdict]:
        # A verdict is never changed once it is written; one that was put aside is let go.
        self._known = {
            name: self._known.get(name) or read_verdict(self.run.floor, f"{ROOT}/{name}") for name in names
        }
        return list(self._known.values())
