"""Samples, clusters, findings and verdicts as plain tables: CSV, Parquet or NumPy archives."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from stores.analyses import AnalysisHandle
from stores.errors import StoreError, Uncommitted
from stores.exchange.evidence import evidence_columns
from stores.exchange.maps import Report
from stores.files import whole
from stores.plain_json import plain_json
from stores.run import Run
from stores.verdicts import Verdict

Columns = dict[str, list[Any]]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet runs a cell for. In CSV such text begins with an apostrophe; other formats hold it as it is."""


def export_sheets(
    run: Run,
    folder: str | Path,
    to: str = "csv",
    *,
    analysis: str | None = None,
    force: bool = False,
    report: Report = lambda done, total, what: None,
) -> list[Path]:
    """Write samples, clusters, findings and verdicts, one file each; their paths.

    Args:
        to: one of ``SHEETS``.
        analysis: which analysis; the newest otherwise. Without any, only samples and verdicts are written.
        force: whether files that are there, of this store or of another, are replaced.
        report: told how far it has come.

    Raises:
        StoreError: the format is unknown, or needs a package that is not installed; or a file is there already.
        Uncommitted: the samples are not all written yet.
    """
    if to not in SHEETS:
        raise StoreError(f"cannot export to {to!r}; choose one of {', '.join(SHEETS)}.")
    try:
        handle = run.shown_analysis(analysis)
    except Uncommitted:
        handle = None
    sheets: dict[str, Callable[[], Columns]] = {
        "samples": lambda: _samples(run),
        "verdicts": lambda: _verdicts(run.verdicts()),
    }
    if handle is not None:
        sheets |= {"clusters": lambda: _clusters(run, handle), "findings": lambda: _findings(run, handle)}
    folder = Path(folder)
    there = [name for name in (f"{sheet}.{to}" for sheet in sheets) if (folder / name).exists()]
    if there and not force:
        raise StoreError(
            f"{folder} has {', '.join(there)} already, of this store or of another: choose another folder, or --force "
            "to replace them."
        )
    paths = []
    for done, (name, columns) in enumerate(sheets.items()):
        report(done, len(sheets), f"export {name}")
        made = columns()
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(write_sheet(folder / f"{name}.{to}", made, to))
    report(len(sheets), len(sheets), "export")
    return paths


def write_sheet(path: Path, columns: Columns, to: str) -> Path:
    """Write columns of equal length as one file, which appears whole or not at all; its path.

    Raises:
        StoreError: the format is unknown, or needs a package that is not installed.
    """
    if to not in SHEETS:
        raise StoreError(f"cannot write {to!r}; choose one of {', '.join(SHEETS)}.")
    with whole(path) as partial:
        SHEETS[to](partial, columns)
    return path


def _samples(run: Run) -> Columns:
    table = run.samples
    failures = table.failures
    logits = table.read("logits").astype(np.float64)
    likely = np.exp(logits - logits.max(axis=1, initial=-np.inf, keepdims=True))
    confidence = likely.max(axis=1, initial=0) / np.maximum(likely.sum(axis=1), 1e-300)
    labels, predictions = table.read("label").tolist(), table.read("prediction").tolist()
    columns: Columns = {
        "row": list(range(run.n)),
        "id": table.read("id").tolist(),
        "label": labels,
        "label_name": [_class_name(run, label) for label in labels],
        "prediction": predictions,
        "prediction_name": [_class_name(run, label) for label in predictions],
        "confidence": confidence.tolist(),
        "failed": [failures.get(row, "") for row in range(run.n)],
    }
    for name in table.columns:
        if name.startswith("meta."):
            columns[name] = table.read(name).tolist()
    return columns


def _clusters(run: Run, handle: AnalysisHandle) -> Columns:
    ids = run.samples.read("id")
    names = ("analysis", "group", "row", "id", "clustering", "cluster", "outlier")
    columns: Columns = {name: [] for name in names}
    for group in map(handle.read, handle.groups):
        for name, clustering in group.clusterings.items():
            m = len(group.rows)
            outlier = np.full(m, np.nan) if clustering.outlier is None else clustering.outlier
            values: tuple[list[Any], ...] = (
                [handle.id] * m, [group.group] * m, group.rows.tolist(), ids[group.rows].tolist(), [name] * m,
                clustering.labels.tolist(), outlier.tolist(),
            )  # fmt: skip
            for column, part in zip(names, values, strict=True):
                columns[column] += part
    return columns


def _findings(run: Run, handle: AnalysisHandle) -> Columns:
    findings = handle.findings()
    parts = dict.fromkeys(part for finding in findings for part in finding.parts)
    columns: Columns = {
        "rank": list(range(1, len(findings) + 1)),
        "analysis": [handle.id] * len(findings),
        "name": [finding.name for finding in findings],
        "group": [finding.group for finding in findings],
        "class": [_class_name(run, finding.group) for finding in findings],
        "samples": [len(finding.rows) for finding in findings],
        "score": [finding.score for finding in findings],
        "flagged": [finding.flagged for finding in findings],
        "summary": [finding.summary for finding in findings],
    }
    for part in parts:
        values = [finding.parts.get(part) for finding in findings]
        columns[f"part.{part}"] = [float("nan") if value is None else float(value) for value in values]
    return columns | evidence_columns(findings)


def _verdicts(verdicts: list[Verdict]) -> Columns:
    names = ("subject", "analysis", "key", "verdict", "note", "annotator", "time", "digest")
    columns: Columns = {name: [getattr(verdict, name) for verdict in verdicts] for name in names}
    columns["members"] = [len(verdict.members) for verdict in verdicts]
    return columns


def _class_name(run: Run, label: int) -> str:
    return run.classes[label] if 0 <= label < len(run.classes) else ""


def _write_csv(path: Path, columns: Columns) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(_inert, columns))
        writer.writerows(map(_inert, row) for row in zip(*columns.values(), strict=True))


def _inert(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, after an apostrophe, which makes it text again."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _write_json(path: Path, columns: Columns) -> None:
    """A list of records."""
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text(plain_json(records, indent=1), encoding="ascii")


def _write_parquet(path: Path, columns: Columns) -> None:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise StoreError(
            "Parquet needs pyarrow; install it with `pip install 'spray-audit[exchange]'`."
        ) from error
    parquet.write_table(pyarrow.table({name: _writable(values) for name, values in columns.items()}), path)


def _write_npz(path: Path, columns: Columns) -> None:
    """Text is an array of strings, or JSON in bytes as ``<name>.json`` where such an array would lose or waste.

    A count that is not known makes its column one of floats, where it is NaN.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if not _is_text(values):
            arrays[name] = np.array([float("nan") if value is None else value for value in values])
        elif _fits_an_array(values):
            arrays[name] = np.array(values, dtype=str)
        else:
            arrays[f"{name}.json"] = np.frombuffer(json.dumps(values).encode("ascii"), np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # savez takes no array called "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _fits_an_array(texts: list[str]) -> bool:
    """NumPy pads all strings with NUL to the longest one: trailing NULs are lost, one long text costs for all."""
    longest, total = max(map(len, texts)), sum(map(len, texts))
    return not any(text.endswith("\0") for text in texts) and longest * len(texts) <= 16 * total + 2**20


def _writable(values: list[Any]) -> list[Any]:
    """Text with lone surrogates (undecodable file names) spelt out: Arrow holds UTF-8 only."""
    if not _is_text(values):
        return values
    return [value.encode("utf-8", "backslashreplace").decode("utf-8") for value in values]


def _is_text(values: list[Any]) -> bool:
    return any(isinstance(value, str) for value in values)


SHEETS: dict[str, Callable[[Path, Columns], None]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "npz": _write_npz,
    "json": _write_json,
}
"""The formats by name."""
