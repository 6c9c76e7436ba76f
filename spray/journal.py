"""The run log: what happened when, as JSON lines beside the store, one file for each stage that a process worked on.

Beside and not in it: the store holds nothing that differs between two runs of the same inputs. Nothing reads the log to
work; a log that cannot be written costs only itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from spray.invocation import COMMAND
from stores.errors import StoreError
from stores.files import named
from stores.floor import Floor, LocalFloor
from stores.places import Location, floor_at, refuse_place
from stores.provenance import to_json

SUFFIX = ".log"
SECONDS_BETWEEN_UPLOADS = 5.0
"""An object store has no appending: the whole file is put again, not more often than this."""


class Journal(Protocol):
    """Writes one line: ``journal("shard", shard=3, rows=256)``."""

    def __call__(self, event: str, **facts: object) -> None:
        """``facts`` are anything that has a JSON form (``stores.to_json``)."""


def place_of(store: Location) -> str:
    """The folder (or prefix) of a store's logs: its own name with ``.log`` after it."""
    text = str(store).rstrip("/")
    if "://" not in text:
        return f"{named(store)}{SUFFIX}"
    return f"{text}{SUFFIX}" if urlsplit(text).path else f"{text}/log"


@contextlib.contextmanager
def journal(store: Location, stage: str, **facts: object) -> Iterator[Journal]:
    """The log of a stage: a line at its start and its end, however it ends, and what the stage tells between.

    A place where no store can lie is refused, before anything is written (``stores.StoreError``).

    Every line has ``time`` (UTC), ``stage``, ``event`` and ``seconds`` since the start. Events: "start" (process, host,
    version, the command if there is one, and ``facts``), those of the stage, and "end", "interrupted" or "failed".
    """
    refuse_place(store)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{stage}-{secrets.token_hex(4)}.jsonl"
    lines = _lines(place_of(store), name)
    began = time.monotonic()

    def write(event: str, **told: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        seconds = round(time.monotonic() - began, 3)
        record = {"time": now, "stage": stage, "event": event, "seconds": seconds, **told}
        lines.add(json.dumps(to_json(record), ensure_ascii=True))

    process = {"pid": os.getpid(), "host": socket.gethostname(), "version": version("spray-audit")}
    if command := COMMAND.get():
        process["command"] = command
    write("start", store=str(store), **process, **facts)
    try:
        yield write
    except Exception as error:
        write("failed", error=f"{type(error).__name__}: {error}")
        raise
    except BaseException:  # Ctrl-C
        write("interrupted")
        raise
    else:
        write("end")
    finally:
        lines.close()


def last_command(
    store: Location, stages: tuple[str, ...], fits: Callable[[Mapping[str, Any]], bool] = lambda facts: True
) -> str | None:
    """The command line that one of these stages was last started with, as far as logs are there to tell.

    ``fits`` chooses by what the log tells at the start and of the plan. None also of a store that was moved or copied
    with its log: the command would write the one that lies where it was.
    """
    floor = floor_at(place_of(store))
    found = None
    with contextlib.suppress(StoreError, ValueError, OSError):
        for name in floor.names(""):
            stage = name.partition("-")[2].partition("-")[0]
            if name.endswith(".jsonl") and stage in stages:
                facts = _started(floor.read(name) or b"")
                command, written = facts.get("command"), _place(str(facts.get("store")))
                if isinstance(command, str) and written == _place(str(store)) and fits(facts):
                    found = command
    return found


def _started(log: bytes) -> dict[str, Any]:
    """What the first lines of a log tell, the start and the plan; nothing where somebody else wrote it."""
    told: dict[str, Any] = {}
    for line in log.split(b"\n", 2)[:2]:
        try:
            facts = json.loads(line)
        except ValueError:
            break
        if isinstance(facts, dict) and facts.get("event") in ("start", "plan"):
            told |= facts
    return told


def _place(store: str) -> str:
    return store.rstrip("/") if "://" in store else str(Path(store).resolve())


def _lines(place: str, name: str) -> _File | _Object:
    floor = floor_at(place)
    return _File(floor.root / name) if isinstance(floor, LocalFloor) else _Object(floor, name)


class _Log:
    """Gives up on the first failure, and says so once."""

    given_up = False

    @contextlib.contextmanager
    def _attempt(self, where: object) -> Iterator[None]:
        try:
            yield
        except (OSError, StoreError) as error:
            self.given_up = True
            warnings.warn(f"The run log {where} cannot be written ({error}); the work goes on.", stacklevel=2)


class _File(_Log):
    """A file that grows line by line, so that it is there after a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: str) -> None:
        if self.given_up:
            return
        with self._attempt(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:
                file.write(f"{line}\n")

    def close(self) -> None:
        pass


class _Object(_Log):
    """An object that is put again, longer, every few seconds and at the end."""

    def __init__(self, floor: Floor, name: str) -> None:
        self.floor, self.name = floor, name
        self.text = b""
        self.put = float("-inf")

    def add(self, line: str) -> None:
        self.text += f"{line}\n".encode("ascii")
        if time.monotonic() - self.put > SECONDS_BETWEEN_UPLOADS:
            self._upload()

    def close(self) -> None:
        self._upload()

    def _upload(self) -> None:
        if self.given_up:
            return
        with self._attempt(f"{self.floor.url}/{self.name}"):
            self.floor.put(self.name, self.text)
            self.put = time.monotonic()
