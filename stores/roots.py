"""What the root of a run says, and whether tables beside it are of the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from stores.errors import Damaged, Unreadable
from stores.floor import Floor
from stores.provenance import Provenance, canonical_json
from stores.schema import content_of, parsed

ROOT = "zarr.json"
COPY = "ledger/run.json"
"""The bytes of the root a second time: the one file without which no other could be told what it is."""


def content_in(document: bytes, kind: str, where: str) -> dict[str, Any] | None:
    """What a document says of an element of this kind, None if it says nothing of one.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        attributes = parsed(document)["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{where}: the metadata (zarr.json) cannot be read ({error}).") from error
    return content_of(attributes, kind, where)


def is_lost_root(floor: Floor, content: Mapping[str, Any]) -> bool:
    """Whether this is a store of the same run whose root document is gone: its samples say what they were made from,
    and where there are none, its copy says so."""
    document = floor.read(f"samples/{ROOT}")
    try:
        samples = None if document is None else content_in(document, "table", f"{floor.url}/samples")
    except Damaged:
        return False
    if samples is None:
        copy = copied(floor)
        return copy is not None and run_digest(copy) == run_digest(content)
    if samples["rows"] != content["samples"]:
        return False
    if "run" in samples:
        return bool(samples["run"] == run_digest(content))
    made = _entries(content["provenance"])
    same = any(made.items() <= step.items() for step in samples["provenance"]["steps"])
    lengths = [column["shape"] for column in samples["columns"] if column["name"] == "logits"]
    return bool(made) and same and lengths in ([], [[len(content["classes"])]])


def copied(floor: Floor) -> dict[str, Any] | None:
    """What the copy of the root says; None where there is none that can be read."""
    with suppress(Damaged, Unreadable):
        document = floor.read(COPY)
        return None if document is None else content_in(document, "run", f"{floor.url}: {COPY}")
    return None


def run_digest(content: Mapping[str, Any]) -> str:
    """Of what the root says: the first digits of the SHA-256 of its canonical JSON."""
    stated = {key: json.loads(json.dumps(content[key])) for key in ("classes", "samples", "provenance")}
    return hashlib.sha256(canonical_json(stated).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def contradicts(run: Mapping[str, Any], samples: Provenance) -> bool:
    """Whether samples are of another run: a step of theirs has all entries of its provenance, and other values."""
    made = _entries(run)
    found = [
        {key: step[key] for key in made} for step in samples.steps if made and made.keys() <= step.keys()
    ]
    return bool(found) and json.loads(json.dumps(made)) not in json.loads(json.dumps(found))


def _entries(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the provenance of a run says, without names for its parts."""
    nested = [value for value in provenance.values() if isinstance(value, Mapping)]
    plain = {key: value for key, value in provenance.items() if not isinstance(value, Mapping)}
    return {key: value for record in (plain, *nested) for key, value in record.items()}
