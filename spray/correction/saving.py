"""A corrected model as files: a state dict, and beside it a record of how it was made. Nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from spray.correction.errors import CorrectionError
from spray.correction.stage import Corrected
from stores.files import whole

FORMAT = "spray-correction"
VERSION = 1


def save(corrected: Corrected, path: str | Path, *, force: bool = False) -> tuple[Path, Path]:
    """Write the state dict and, beside it, the record with the suffix ``.json``; each appears whole or not at all.

    The state dict is loaded like any other, ``--model SPEC --weights PATH`` with the model's own spec: names of its
    entries say where a correction is inserted (``spray.insertion``).

    Raises:
        CorrectionError: a file is there already and ``force`` is not set, or the path names no file to write.
    """
    weights, record = check_free(path, force)
    weights.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights.name,
        "method": corrected.method,
        "layers": [asdict(score) for score in corrected.layers],
        **corrected.record,
    }
    state = {name: tensor.detach().cpu() for name, tensor in corrected.model.state_dict().items()}
    record.unlink(
        missing_ok=True
    )  # of other weights: stopped between the two, there is none rather than a wrong one
    with whole(weights) as partial, partial.open("wb") as file:
        torch.save(state, file)  # given a path, it would write the name of the partial file into the archive
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with whole(record) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogatepass")
    return weights, record


def check_free(path: str | Path, force: bool) -> tuple[Path, Path]:
    """Where the weights and the record go; asked before the long work, too.

    Raises:
        CorrectionError: as ``save``.
    """
    weights = Path(path)
    record = weights.with_suffix(".json")
    if weights.suffix in ("", ".json") or weights.is_dir() or record.is_dir():
        raise CorrectionError(f"{weights}: name a file for the weights, such as corrected.pt.")
    there = [str(place) for place in (weights, record) if place.exists()]
    if there and not force:
        raise CorrectionError(f"{' and '.join(there)} is there already: choose another name, or --force.")
    return weights, record
