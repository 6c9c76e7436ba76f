"""Where a store may lie: paths and URLs, what they stand for, and what is there already."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stores.errors import NotAStore, StoreError
from stores.floor import Floor, LocalFloor
from stores.remote import remote_floor

Location = str | Path
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
"""Of a URL; a single letter is a drive."""


def floor_at(path: Location) -> Floor:
    """The floor of a path, or of a URL such as "s3://bucket/run.zarr".

    Raises:
        StoreError: it is neither, or one that another place could be meant by.
    """
    if "\0" in str(path):
        raise StoreError(f"{str(path)!r} is no path: it holds a character of code 0.")
    if "://" not in str(path):
        if Path(path).parts[:1] and _SCHEME.fullmatch(Path(path).parts[0]):
            raise StoreError(
                f"{path} is a URL that lost a slash, maybe when it became a Path; give it as text, 's3://…'."
            )
        return LocalFloor(Path(path))
    parts = urlsplit(str(path))
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # nothing that may be secret
    local = parts.scheme == "file"
    if (
        "#" in str(path)
        or (local and parts.query)
        or {".", ".."}.intersection(unquote(parts.path).split("/"))
    ):
        raise StoreError(
            f"{shown}: a store's URL has no part after # or ?, and no . or .. in its path: choose another name for it."
        )
    if local:
        if parts.netloc not in ("", "localhost"):
            raise StoreError(
                f"{shown} names a machine ({parts.netloc}); a file's URL has three slashes: file:///…"
            )
        return LocalFloor(Path(unquote(parts.path)))
    if unquote(parts.path) != parts.path:
        raise StoreError(f"{shown}: a store's URL has nothing after a % sign that stands for another letter.")
    return remote_floor(str(path).rstrip("/"))


def refuse_place(path: Location) -> None:
    """Refuse a path where no store can lie, whatever is done about it.

    Raises:
        NotAStore: it is a file or a device, or one of the folders above it is.
        StoreError: it is no path.
    """
    floor = floor_at(path)
    if not isinstance(floor, LocalFloor):
        return
    there = floor.root.absolute()
    try:
        there.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise StoreError(
                f"no store can lie at {str(path)[:80]}…: the file system takes no names that long. Give a shorter one."
            ) from error
    if there.exists() and not there.is_dir():
        raise NotAStore(
            f"{path} is no run store: it is a file. A new store needs a path that is free or empty."
        )
    above = next((folder for folder in there.parents if folder.exists()), there)
    if not above.is_dir():
        raise NotAStore(
            f"{path} is no run store: {above} is a file, so nothing can lie below it. Name a path in a folder."
        )


def refuse_taken(floor: Floor, path: Location) -> None:
    """Refuse a place for a new store where something else is.

    Raises:
        NotAStore: so it is.
    """
    # A creation crashed, or is at work.
    begun = floor.names("") == ["ledger"] and {"tmp", "leases"}.issuperset(floor.names("ledger"))
    if floor.names("") and not begun:
        raise NotAStore(
            f"{path} is no run store: {what_is_there(floor)} A new store needs a path that is free or empty."
        )


def what_is_there(floor: Floor) -> str:
    """A sentence's end about what is found where a store was looked for."""
    if isinstance(floor, LocalFloor):
        if not floor.root.exists():
            return "there is nothing."
        if not floor.root.is_dir():
            return "it is a file."
    names = floor.names("")
    return f"it holds {', '.join(names[:5])}{', …' if len(names) > 5 else ''}." if names else "it is empty."
