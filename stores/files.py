"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.owners import Owner


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to: it takes that place where the block ends well, and is removed where not."""
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to write into: it takes that place, and that of what is there, at the end.

    Where the block does not end well ``folder`` stays as it is. Whether it may be replaced is for the caller to know.

    Raises:
        ValueError: it is the folder that this process is in, which would be gone from under it.
    """
    if folder.resolve() == Path.cwd():
        raise ValueError(
            f"{str(folder)!r} is the folder you are in, and would be replaced whole: name another."
        )
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """Where this process writes what will be ``path``; what processes that died left there is removed."""
    path = path if path.name not in ("", "..") else path.resolve()
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
