"""ViRelAy's label map: what the classes are called, and which WordNet id is which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stores.errors import StoreError
from stores.exchange.arrays import LARGEST
from stores.schema import parsed


@dataclass(frozen=True)
class LabelMap:
    """Names and WordNet ids of classes; empty where there is no map."""

    names: Mapping[int, str] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path | None) -> LabelMap:
        """A JSON list of {index, word_net_id, name}.

        Raises:
            StoreError: it is none, or names a class twice.
        """
        entries = [] if path is None else _entries(path)
        return cls(
            {entry["index"]: entry["name"] for entry in entries},
            {entry["id"]: entry["index"] for entry in entries},
        )


def _entries(label_map: str | Path) -> list[dict[str, Any]]:
    try:
        found = parsed(Path(label_map).read_bytes())
        entries = [
            {"index": it["index"], "id": str(it["word_net_id"]), "name": str(it["name"])} for it in found
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{label_map} is no label map (a list of index, word_net_id, name): {error!r}"
        ) from error
    for name, words in (("index", "class number"), ("id", "word_net_id")):
        values = [entry[name] for entry in entries]
        if twice := [value for value, times in Counter(map(str, values)).items() if times > 1]:
            raise StoreError(
                f"{label_map}: the {words} {twice[0]!r} is there more than once; each names one class."
            )
    for number in (entry["index"] for entry in entries):
        if type(number) is not int or not 0 <= number <= LARGEST:
            raise StoreError(f"{label_map}: index {str(number)[:60]!r} is no class number, from 0 on.")
    return entries
