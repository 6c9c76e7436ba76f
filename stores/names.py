"""Names from strangers (layers, columns, methods) as keys that every file system and object store takes."""

from __future__ import annotations

import functools
import hashlib
import re

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-.")
_RESERVED = frozenset({"zarr.json", "c", "con", "prn", "aux", "nul"})
_LONGEST = 120
_KEY = re.compile(r"[a-z0-9_=-][a-z0-9_.=-]*")


def is_key(name: str) -> bool:
    """Whether a name may be one of ours: file managers and backups lay others (.DS_Store, ._0.json, "0 copy.json")."""
    return _KEY.fullmatch(name) is not None


@functools.lru_cache(maxsize=4096)
def safe_key(name: str) -> str:
    """One path segment for ``name``: different names give different keys, also where case is ignored.

    Lower-case ASCII letters, digits and ``_-.`` stand for themselves; every other byte of the UTF-8 form is
    written ``=xx``. Long names are cut and end in ``=_`` and a digest. The name itself is kept in the
    element's metadata; a key is never turned back into a name.

    >>> safe_key("features.0.channel"), safe_key("a/b"), safe_key("..")
    ('features.0.channel', 'a=2fb', '=2e=2e')
    """
    raw = name.encode("utf-8", "surrogatepass")
    key = "".join(chr(byte) if chr(byte) in _PLAIN else f"={byte:02x}" for byte in raw)
    inner = key.strip(".")
    leading, trailing = len(key) - len(key.lstrip(".")), len(key) - len(key.rstrip("."))
    key = "=2e" * (leading if inner else len(key)) + inner + ("=2e" * trailing if inner else "")
    if key in _RESERVED or key.split(".")[0] in _RESERVED - {"c"}:
        key = f"={ord(key[0]):02x}{key[1:]}"
    if len(key) > _LONGEST:
        key = f"{key[: _LONGEST // 2]}=_{hashlib.sha256(raw).hexdigest()[:32]}"
    return key or "=_"
