"""What can be wrong with a store, in words for the person who meets it."""

# ruff: noqa: N818 - each is named after what is the matter
from __future__ import annotations


class StoreError(Exception):
    """Something is not as asked for; the message says what came, what was expected, and the next move."""


class NotAStore(StoreError):
    """The path holds no run store: nothing, a file, or a folder of something else."""


class UnknownVersion(StoreError):
    """The store, or an element of it, was written by a version that this one does not know."""


class StoreBusy(StoreError):
    """Another writer holds what was to be written."""


class Damaged(StoreError):
    """Committed bytes are missing or not the ones that were committed."""


class Uncommitted(StoreError):
    """What was asked for has not been written yet, or not wholly."""


class NoHardLinks(StoreError):
    """The file system has none, as exFAT and some network shares: only who holds a lease can take a name."""


class Unreadable(StoreError):
    """A file is there, and this process may not read it, or cannot now: nothing is known of its bytes."""
