"""The floor a store stands on: whole files by key, each written once and durably, or replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import UInt8

from stores.errors import Damaged, NoHardLinks, StoreError, Unreadable
from stores.owners import Owner

if TYPE_CHECKING:
    from zarr.abc.store import Store

TEMPORARIES = "ledger/tmp"
"""Folder of the files that are being written, named after their writer."""

FILES_AT_ONCE = 64
"""So many are open at most while they are written together."""
_TEMPORARY = re.compile(r"(?P<mark>[0-9a-z]+-[0-9]+-[0-9]+)-[0-9]+")
_numbers = itertools.count()


class Floor(Protocol):
    """Keys are ``/``-separated safe segments. What was written survives a crash once the method returned."""

    @property
    def url(self) -> str:
        """Where this is, for messages."""

    def read(self, key: str) -> bytes | None:
        """All bytes, or None where there is no such file."""

    def parts(self, key: str) -> AbstractContextManager[Parts | None]:
        """One file, open for reading parts of it; None without the file."""

    def size(self, key: str) -> int | None:
        """Length in bytes, or None where there is no such file."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace: a reader sees the old bytes, or the new ones, never a part."""

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """The same of several, in any order; all have survived once the method returned."""

    def create(self, key: str, data: bytes, *, leased: bool = False) -> bool:
        """Write if absent; False, and nothing changed, where the key exists. One of several callers wins.

        ``leased`` says that only one caller at a time does this, by a lease that he holds.

        Raises:
            NoHardLinks: without a lease no one can tell here who of several wins (``stores.ledger.create_once``).
        """

    def delete(self, key: str) -> None:
        """Remove; an absent file is no error."""

    def names(self, prefix: str) -> list[str]:
        """Names directly under ``prefix``, files and folders, sorted."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Length of every file anywhere under ``prefix``."""

    def litter(self) -> list[str]:
        """Keys of temporary files whose writer is gone."""

    def zarr(self) -> Store:
        """The same files as a read-only Zarr store."""


class Parts(Protocol):
    """A file of which parts are read."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, length: int) -> UInt8[np.ndarray, " n"]:
        """So many bytes from an offset on, fewer at the end of the file. They last until the next call."""


class LocalFloor:
    """Files below a folder. Every write goes to a temporary, is fsynced, renamed, and its folder fsynced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._own_folders: set[str] = set()
        """Folders that are no links, but those of single shards: what a stranger laid down is there on opening."""

    def __repr__(self) -> str:
        return f"LocalFloor({str(self.root)!r})"

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.root)

    def read(self, key: str) -> bytes | None:
        """All bytes, or None where there is no such file."""
        try:
            self._length(self._path(key))
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            _refuse_dangling(self._path(key))
            return None
        except OSError as error:
            raise _damage(self._path(key), error) from error

    @contextlib.contextmanager
    def parts(self, key: str) -> Iterator[Parts | None]:
        """One file, open for reading parts of it; None without the file."""
        try:
            self._length(self._path(key))
            file = self._path(key).open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError):
            _refuse_dangling(self._path(key))
            yield None
            return
        except OSError as error:
            raise _damage(self._path(key), error) from error
        with file:
            yield _LocalParts(file)

    def size(self, key: str) -> int | None:
        """Length in bytes, or None where there is no such file."""
        try:
            return self._length(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            _refuse_dangling(self._path(key))
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a file durably."""
        self.put_all({key: data})

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write or replace files durably.

        All are written before the first is synced, and have their names before their folders are: for a journal that is
        less to do than one after the other, and nothing of it counts before all is done.
        """
        keys = list(files)
        for low in range(0, len(keys), FILES_AT_ONCE):
            temporaries = self._written(
                {self._own(key): files[key] for key in keys[low : low + FILES_AT_ONCE]}
            )
            try:
                for path, temporary in temporaries.items():
                    with _told(path):
                        os.replace(temporary, path)  # noqa: PTH105 - the syscall is the point here
            except BaseException:
                _discard(*temporaries.values())
                raise
            for folder in dict.fromkeys(chain.from_iterable(map(_folders_of, temporaries))):
                _fsync_folder(folder)

    def create(self, key: str, data: bytes, *, leased: bool = False) -> bool:
        """Write a file durably unless it exists: a hard link to a finished temporary, and one caller makes it."""
        path = self._own(key)
        if os.path.exists(path):  # noqa: PTH110
            return False
        temporary = self._written({path: data})[path]
        try:
            _link(temporary, path, leased)
        except FileExistsError:
            return False
        finally:
            _discard(temporary)
        for folder in _folders_of(path):
            _fsync_folder(folder)
        return True

    def delete(self, key: str) -> None:
        """Remove a file, if it is there, durably."""
        path = self._own(key)
        try:
            os.unlink(path)  # noqa: PTH108
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{path} cannot be removed: {error.strerror or error}. Nothing of ours is a folder there: look what it "
                "is, and move it away."
            ) from error
        _fsync_folder(_above(path))

    def names(self, prefix: str) -> list[str]:
        """Names directly under ``prefix``."""
        try:
            return sorted(entry.name for entry in self._path(prefix).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self, prefix: str) -> dict[str, int]:
        """Length of every file anywhere under ``prefix``."""
        found = {}
        for folder, _, files in os.walk(self._path(prefix)):
            for file in files:
                path = Path(folder, file)
                with contextlib.suppress(
                    FileNotFoundError, Damaged
                ):  # removed by its writer since it was listed
                    found[path.relative_to(self.root).as_posix()] = self._length(path)
        return found

    def litter(self) -> list[str]:
        """Keys of temporary files whose writer is gone."""
        ours = (_TEMPORARY.fullmatch(name) for name in self.names(TEMPORARIES))
        dead = (found[0] for found in ours if found and not Owner.from_mark(found["mark"]).alive)
        return [f"{TEMPORARIES}/{name}" for name in dead if not self._path(f"{TEMPORARIES}/{name}").is_dir()]

    def zarr(self) -> Store:
        """The same files as a read-only Zarr store."""
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=True)

    def _path(self, key: str) -> Path:
        return self.root / key if key else self.root

    def _own(self, key: str) -> str:
        """Where something is written or removed: never beyond a link, which a store from a stranger may hold.

        Text, as all of this that is done for every file: a ``Path`` costs more than the calls to the system.

        Raises:
            StoreError: a folder on the way is a link.
        """
        folder = str(self.root)
        for part in key.split("/")[:-1]:
            folder = f"{folder}/{part}"
            if folder in self._own_folders:
                continue
            if os.path.islink(folder):  # noqa: PTH114 - asked for every file, and several times as fast
                raise StoreError(
                    f"{folder} is a link that leads out of the store, so nothing was written or removed there. Put the "
                    "folder itself in its place, or remove the link."
                )
            if not part.isdecimal():
                self._own_folders.add(folder)
        return f"{self.root}/{key}"

    def _length(self, path: Path) -> int:
        """Of a file; a device or a pipe, on which reading would not end, is none."""
        try:
            found = path.stat()
        except OSError as error:
            raise _damage(path, error) from error
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise Damaged(f"{path} is a device or a pipe where a file was expected.")
        return found.st_size

    def _written(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """Whole, fsynced temporaries on their way to these paths, whose folders are there; by path."""
        temporaries: dict[str, str] = {}
        handles: list[tuple[str, int]] = []
        try:
            for path, data in files.items():
                temporaries[path] = self._own(f"{TEMPORARIES}/{Owner.me().mark}-{next(_numbers)}")
                with _told(path):
                    _make_folder(_above(path))
                    _make_folder(_above(temporaries[path]))
                    handles.append(
                        (path, os.open(temporaries[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                    )
                    _write(handles[-1][1], data)
            for path, handle in reversed(handles):
                with _told(path):
                    os.fsync(handle)
        except BaseException:
            _discard(*temporaries.values())
            raise
        finally:
            for _, handle in handles:
                os.close(handle)
        return temporaries


def _above(path: str) -> str:
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def _discard(*temporaries: str) -> None:
    for temporary in temporaries:
        with contextlib.suppress(OSError):  # what went wrong before says more
            os.unlink(temporary)  # noqa: PTH108


def _refuse_dangling(path: Path) -> None:
    """Of what is not there: a link of its name to nowhere, which no writer makes and none could replace.

    Raises:
        Damaged: there is one.
    """
    if path.is_symlink():
        raise Damaged(f"{path} is a link that leads nowhere, where a file was expected. Remove it.")


def _damage(path: Path | str, error: OSError) -> Exception:
    """What stands in the place of a file, or what the disk cannot give back; other errors are the system's."""
    if isinstance(error, IsADirectoryError):
        return Damaged(f"{path} is a folder where a file was expected.")
    if error.errno == errno.ELOOP:
        return Damaged(f"{path} is a link to itself where a file was expected.")
    if error.errno == errno.EIO:
        return Damaged(f"{path} cannot be read back from the disk ({error.strerror}).")
    if error.errno in (errno.EACCES, errno.EPERM, errno.ESTALE):
        return Unreadable(
            f"{path} cannot be read ({error.strerror}). It may be as it was: give this user permission to read it, or "
            "mount the disk again."
        )
    return error


class _LocalParts:
    """Parts of an open file, all read into one piece of memory: it stays in the cache of the processor."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.memory = np.empty(0, np.uint8)

    def read(self, offset: int, length: int) -> UInt8[np.ndarray, " n"]:
        if length > len(self.memory):
            self.memory = np.empty(length, np.uint8)
        done = 0
        try:
            self.file.seek(offset)
            while done < length and (count := self.file.readinto(self.memory[done:length].data)):
                done += count
        except OSError as error:
            raise _damage(str(self.file.name), error) from error
        return self.memory[:done]


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """What the system refuses (disk full, no permission), with the next move."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. What is committed is safe; once there is space and "
            "permission to write, run the stage again and it goes on where it stopped."
        ) from error


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _link(temporary: str, path: str, leased: bool) -> None:
    """Give a finished file its name unless that is taken.

    Where a file system has no hard links, only who holds a lease may: to take the name with an empty file first would
    leave that one after a crash.

    Raises:
        FileExistsError: the name is taken.
        NoHardLinks: there are none, and nothing was done.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        if not leased:
            raise NoHardLinks(f"{path}: the file system has no hard links.") from error
        os.replace(temporary, path)  # noqa: PTH105


def _make_folder(folder: str, may_wait: bool = True) -> None:
    """Make a folder and what is missing above it, each entry fsynced in its parent.

    Those in which a single shard lies, called by numbers, are its writer's alone: theirs are fsynced with its files
    (``_folders_of``). Any other may be used by others as soon as it is to be seen.
    """
    if os.path.isdir(folder):  # noqa: PTH112
        return
    waits = may_wait and _is_of_shard(folder)
    _make_folder(_above(folder), waits)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102
    if not waits:
        _fsync_folder(_above(folder))


def _is_of_shard(folder: str) -> bool:
    return folder.rpartition("/")[2].isdecimal()


def _folders_of(path: str) -> Iterator[str]:
    """What to fsync for a file to be found again: its folder, and those above as far as they are a shard's."""
    folder = _above(path)
    yield folder
    while _is_of_shard(folder):
        folder = _above(folder)
        yield folder


def _fsync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
