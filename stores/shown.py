"""What notebooks show of a store's objects, as HTML: text of strangers is escaped, pictures are data of the page."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Mapping, Sequence, Sized
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from stores.analyses import AnalysisHandle
    from stores.analysis import Clustering, Finding, GroupAnalysis
    from stores.provenance import Provenance
    from stores.run import Run
    from stores.tables import Table
    from stores.verdicts import Verdict

MOST = 50
"""Rows of a list that are shown."""
MOST_MAPS = 8
JUDGEMENTS = {
    "clever_hans": "⚠ Clever Hans",
    "valid": "✓ valid",
    "unsure": "? unsure",
    "withdrawn": "↶ withdrawn",
}
PAIRS = (("members", "removed"), ("hosts", "pasted"))
"""Pictures before and after each intervention."""


def run_html(run: Run) -> str:
    """The tables and analyses of a run."""
    tables = [
        (table.name, f"{table.n:,}", f"{len(table.committed)} of {len(table.shards)}",
         f"{len(table.failures):,}", ", ".join(table.columns))
        for table in map(run.table, run.tables())
    ]  # fmt: skip
    analyses = ", ".join(escape(name) for name in run.analyses()) or "none yet"
    return (
        f"<p><b>{escape(str(run.path))}</b>: {run.n:,} samples, {len(run.classes)} classes</p>"
        f"{grid(('table', 'rows', 'shards', 'failed rows', 'columns'), tables)}<p>analyses: {analyses}</p>"
    )


def table_html(table: Table) -> str:
    """The columns of a table."""
    columns = [(name, column.dtype, str(tuple(column.shape))) for name, column in table.columns.items()]
    done = f"{len(table.committed)} of {len(table.shards)} shards"
    head = f"<p><b>{escape(table.name)}</b>: {table.n:,} rows, {done}</p>"
    return head + grid(("column", "dtype", "shape of a row"), columns)


def analysis_html(handle: AnalysisHandle) -> str:
    """The findings of an analysis, the most suspicious first."""
    findings = handle.findings()[:10]
    facts = ", ".join(f"{name} {value}" for name, value in handle.facts.items())
    head = f"<p><b>Analysis {escape(handle.id)}</b>: {len(handle.groups)} groups; {escape(facts)}</p>"
    return head + (findings_html(findings) if findings else "")


def findings_html(findings: Sequence[Finding]) -> str:
    """Findings as a table, in their order."""
    rows = [
        ("⚑" if finding.flagged else "", finding.name, f"{len(finding.rows):,}", f"{finding.score:.2f}",
         finding.summary)
        for finding in findings[:MOST]
    ]  # fmt: skip
    return grid(("", "finding", "samples", "suspicion", "in words"), rows) + _rest(findings)


def verdicts_html(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as a table, in the order they were given."""
    rows = [
        (verdict.subject, verdict.key, JUDGEMENTS[verdict.verdict], verdict.note, verdict.annotator or "unnamed",
         verdict.time[:10], f"{len(verdict.members):,}")
        for verdict in verdicts[:MOST]
    ]  # fmt: skip
    return grid(("on", "", "verdict", "note", "by", "on the day", "samples"), rows) + _rest(verdicts)


def group_html(group: GroupAnalysis) -> str:
    """The analysis of one class: how many samples, strategies and clusters."""
    left_out = len(group.zero_rows) + len(group.invalid_rows)
    facts = [
        ("state", group.status),
        ("samples", f"{len(group.rows):,}" + (f", {left_out:,} left out" if left_out else "")),
        ("strategies", group.strategies),
        ("pieces of the graph", group.components),
        ("smallest eigenvalues", ", ".join(f"{value:.3f}" for value in group.eigenvalues[:8])),
        *(
            (name, f"{len(np.unique(found.labels[found.labels >= 0]))} clusters")
            for name, found in group.clusterings.items()
        ),
        ("pictures", ", ".join(group.pictures) or "none"),
    ]
    return f"<p><b>Analysis of class {group.group}</b></p>{grid(('', ''), facts)}"


def clustering_html(clustering: Clustering) -> str:
    """How many samples each cluster holds, the largest first, and how it was made."""
    labels, sizes = np.unique(clustering.labels[clustering.labels >= 0], return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    rows = [(labels[place], f"{sizes[place]:,}") for place in order[:MOST]]
    noise = int((clustering.labels < 0).sum())
    head = f"<p><b>{len(labels)} clusters</b> of {len(clustering.labels):,} samples, {noise:,} of them noise"
    made = ", ".join(f"{name} {value}" for name, value in clustering.parameters.items())
    return (
        f"{head}{f'; {escape(made)}' if made else ''}</p>{grid(('cluster', 'samples'), rows)}{_rest(order)}"
    )


def provenance_html(provenance: Provenance) -> str:
    """The steps that made a result, in order."""
    rows = [
        (step.get("name", ""), json.dumps({key: value for key, value in step.items() if key != "name"}))
        for step in provenance.steps
    ]
    parents = f" from {', '.join(parent[:12] for parent in provenance.parents)}" if provenance.parents else ""
    head = f"<p><b>Provenance {escape(provenance.id[:12])}</b>{escape(parents)}</p>"
    return head + grid(("step", "with"), rows)


def finding_html(finding: Finding) -> str:
    """A finding: its mean map, its words, and pictures before and after interventions where it has them."""
    state = "⚑ suspicious" if finding.flagged else "not flagged"
    picture = "" if finding.mean_map is None else image(red_blue(finding.mean_map)[None], 96)
    words = (
        f"<div><b>{escape(finding.name)}</b> · {state} · {finding.score:.2f} · {len(finding.rows):,} samples"
        f"<br>{escape(finding.summary)}{''.join(f'<br>{escape(note)}' for note in finding.notes)}</div>"
    )
    shots = [
        f"<div>{before}, before and after<br>"
        f"{image(finding.pictures[before], 48)}<br>{image(finding.pictures[after], 48)}</div>"
        for before, after in PAIRS
        if len(finding.pictures.get(before, ())) and len(finding.pictures.get(after, ()))
    ]
    row = "<div style='display:flex;gap:16px;align-items:flex-start'>"
    return f"{row}{picture}{words}</div>" + (f"{row}{''.join(shots)}</div>" if shots else "")


def maps_html(maps: Float[np.ndarray, "n ..."], told: Mapping[str, Sequence[float]]) -> str:
    """Relevance maps where they are pictures, each on a scale of its own, with numbers of every sample."""
    shown = maps[:MOST_MAPS]
    strip = image(np.stack([red_blue(one) for one in shown]), 96) if shown.ndim == 3 and shown.size else ""
    rows = [
        (number, *(f"{values[number]:.4g}" for values in told.values()))
        for number in range(min(len(maps), MOST))
    ]
    head = f"<p><b>Relevance</b> of {len(maps):,} samples, {escape(str(tuple(maps.shape[1:])))} each</p>"
    return f"{head}{strip}{grid(('', *told), rows)}{_rest(maps)}"


def red_blue(relevance: Float[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """Relevance in colour, symmetric about zero: white at zero, red above, blue below."""
    values = np.nan_to_num(np.asarray(relevance, np.float64))
    scaled = values / max(float(np.abs(values).max(initial=0.0)), 1e-12)
    channels = (1 - np.clip(-scaled, 0, 1), 1 - np.abs(scaled), 1 - np.clip(scaled, 0, 1))
    colours: np.ndarray = np.rint(255 * np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def bitmap(picture: UInt8[np.ndarray, "y x 3"]) -> bytes:
    """The picture as a BMP file, which needs no library: a header, then rows from the bottom, padded to 4 bytes."""
    height, width, _ = picture.shape
    rows = np.zeros((height, -(-3 * width // 4) * 4), np.uint8)
    rows[:, : 3 * width] = picture[::-1, :, ::-1].reshape(height, 3 * width)
    header = struct.pack(
        "<2sIHHIIiiHHIIiiII",
        b"BM",
        54 + rows.size,
        0,
        0,
        54,
        40,
        width,
        height,
        1,
        24,
        0,
        rows.size,
        0,
        0,
        0,
        0,
    )
    return header + rows.tobytes()


def image(pictures: UInt8[np.ndarray, "n y x c"], side: int) -> str:
    """Pictures side by side, so many points high."""
    rgb = np.repeat(pictures, 3, axis=-1) if pictures.shape[-1] == 1 else pictures[..., :3]
    framed = np.pad(rgb, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
    data = base64.b64encode(bitmap(np.concatenate(framed, axis=1))).decode("ascii")
    return f"<img src='data:image/bmp;base64,{data}' style='height:{side}px;max-width:none;image-rendering:pixelated'>"


def _rest(entries: Sized) -> str:
    return f"<p>and {len(entries) - MOST:,} more</p>" if len(entries) > MOST else ""


def grid(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a line of names above; all text is escaped."""
    cell = "style='text-align:left'"
    head = "".join(f"<th {cell}>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td {cell}>{escape(str(value))}</td>' for value in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
