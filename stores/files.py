"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.owners import Owner


def named(path: str | Path) -> Path:
    """A local path that ends in a name: "." and "x/.." are the folders that they stand for."""
    return Path(path) if Path(path).name not in {"", ".."} else Path(path).resolve()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to: it takes that place where the block ends well, and is removed where not."""
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        _named(error, path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to write into: it takes that place, and that of what is there, at the end.

    Where the block does not end well ``folder`` stays as it is. Whether it may be replaced is for the caller to know.

    Raises:
        ValueError: this process is in the folder, or below it, which would be gone from under it; or it is a link.
    """
    if folder.is_symlink():
        raise ValueError(
            f"{str(folder)!r} is a link and would be replaced whole: name the folder that it leads to."
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{str(folder)!r} is the folder you are in, or one above it, and would be replaced whole: name another."
        )
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    except OSError as error:
        _named(error, folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _named(error: OSError, path: Path) -> None:
    """Of a full disk the system names no file: say which was being written."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)


def enough_space(folder: Path, needed: int) -> None:
    """Refuse what cannot be written whole, before anything is: some libraries do not survive a full disk.

    Raises:
        OSError: less than ``needed`` bytes are free where the folder is, or is to be.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{needed / 2**20:.0f} MiB are needed and {free / 2**20:.0f} free", str(folder)
        )


def _partial(path: Path) -> Path:
    """Where this process writes what will be ``path``; what processes that died left there is removed."""
    path = named(path)
    name = re.compile(rf"\.{re.escape(path.name)}\.(?P<mark>[0-9a-z]+-[0-9]+-[0-9]+)\.partial")
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            found = name.fullmatch(left.name)
            if found and not Owner.from_mark(found["mark"]).alive:
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{Owner.me().mark}.partial")
