"""Who is writing: a process on a machine, and whether it still lives."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BOOT_ID, MACHINE_ID = Path("/proc/sys/kernel/random/boot_id"), Path("/etc/machine-id")


@dataclass(frozen=True)
class Owner:
    """A process. ``machine`` is a digest that tells machines (boots, containers) apart, ``host`` a name.

    ``start`` is the kernel's start tick of the process, so that a process number used again is not mistaken
    for the one that died; 0 where the system does not tell. ``system`` is a digest that an installed machine keeps when
    it is started anew, and ``boot`` one that it does not; empty where the system does not tell.
    """

    machine: str
    pid: int
    start: int
    host: str = ""
    system: str = ""
    boot: str = ""

    @classmethod
    def me(cls) -> Owner:
        """The process that calls."""
        return _me(os.getpid())

    @property
    def mark(self) -> str:
        """A spelling without dots or slashes, for file names."""
        return f"{self.machine}-{self.pid}-{self.start}"

    @classmethod
    def from_mark(cls, mark: str) -> Owner:
        """The inverse of ``mark``; a mark that is none belongs to nobody, who is not alive."""
        try:
            machine, pid, start = mark.split("-")
            return cls(machine, int(pid), int(start))
        except ValueError:
            return cls(_machine(), 0, 0)

    @property
    def here(self) -> bool:
        """Whether the process is, or was, one of this machine's."""
        return self.machine == _machine()

    @property
    def ended_with_its_boot(self) -> bool:
        """Whether this very machine was started anew since, so that none of its processes of then is left."""
        known = self.system and self.boot and _boot()
        return bool(known) and self.system == _system() and self.boot != _boot()

    @property
    def alive(self) -> bool:
        """Whether the process may still be running; of another machine's nothing is known, so yes."""
        if not self.here:
            return not self.ended_with_its_boot
        if self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        state, threads, start = _stat(self.pid)
        ended = state in {"Z", "X"} and threads <= 1  # a zombie, for whom nobody has waited
        return not ended and self.start in (0, start)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'machine ' + self.machine}"


@functools.lru_cache(maxsize=1)
def _me(pid: int) -> Owner:
    return Owner(_machine(), pid, _stat(pid).start, socket.gethostname(), _system(), _boot())


@functools.cache
def _machine() -> str:
    parts = [socket.gethostname(), _text(BOOT_ID)]
    namespace = Path("/proc/self/ns/pid")
    if namespace.is_symlink():
        parts.append(str(namespace.readlink()))
    return _digest(*filter(None, parts))


@functools.cache
def _system() -> str:
    """Host name and installation; containers of one image may share the latter, and have names of their own."""
    installed = _text(MACHINE_ID)
    return _digest(socket.gethostname(), installed) if installed else ""


@functools.cache
def _boot() -> str:
    boot = _text(BOOT_ID)
    return _digest(boot) if boot else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


class _Stat(NamedTuple):
    """Of a process: its state's letter, how many threads it has, and its start tick; empty and 0 where not told."""

    state: str = ""
    threads: int = 0
    start: int = 0


def _stat(pid: int) -> _Stat:
    """Fields 3, 20 and 22 of /proc/<pid>/stat, counted after the command's closing bracket."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return _Stat(fields[0], int(fields[17]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return _Stat()
