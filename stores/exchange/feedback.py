"""What follows from findings and verdicts, as files: sample lists, masks, a cleaned split, sample weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from stores.analyses import AnalysisHandle
from stores.analysis import Finding
from stores.condemned import Condemned, condemned
from stores.errors import StoreError
from stores.exchange.evidence import evidence_columns
from stores.exchange.sheets import Columns, write_sheet
from stores.files import whole_folder
from stores.judged_rows import JudgedRows
from stores.judgements import Judgement, balanced_weights, judgements
from stores.names import safe_key
from stores.plain_json import plain_json
from stores.run import Run
from stores.schema import parsed

FORMATS = ("csv", "parquet", "json")
PARTS = ("findings", "lists", "masks", "split", "weights")
FORMAT, SUMMARY = "spray-feedback", "summary.json"
OWN = re.compile(
    r"summary\.json|(findings|split|weights)\.(csv|parquet|json)|lists(/[^/]+\.(csv|parquet|json))?"
    r"|masks(/[^/]+\.(npy|png))?"
)
"""What an export writes, below its folder."""


@dataclass(frozen=True)
class Feedback:
    """What was written, and what a reader has to know."""

    folder: Path
    condemned: int
    kept: int
    by_people: int
    """Findings, clusters and samples that people condemned."""
    by_machine: int
    """Findings that only the machine condemned, because it was asked to."""
    conflicts: tuple[str, ...]
    """Names of what people judged differently: none of it is condemned."""
    inherited: tuple[str, ...]
    """Names of findings whose verdict was given on somewhat other members."""
    contested: int
    """Samples that are kept since a word on them, or on something else that they are part of, is another."""
    unclear: tuple[str, ...]
    """Names of what was condemned of which some samples are kept: others have their ids, and nothing tells which."""


def export_feedback(
    run: Run,
    folder: str | Path,
    to: str = "csv",
    *,
    analysis: str | None = None,
    parts: Sequence[str] = PARTS,
    flagged: bool = False,
    weight: float = 0.0,
    force: bool = False,
) -> Feedback:
    """Write a folder, which appears whole or not at all.

    ``findings``: every finding and every further verdict, with the machine's figures and people's words side by side.
    ``lists``: one file per finding, its samples. ``masks``: one per finding with a region, at the size of the input,
    as PNG and ``.npy``. ``split``: every sample, kept or not, and why not. ``weights``: every sample's weight.
    ``summary.json`` says from which store and analysis all of it comes.

    Args:
        to: one of ``FORMATS``. CSV puts an apostrophe before text that a spreadsheet would run; the others are exact,
            and the row number always is.
        flagged: findings that the machine flagged and nobody judged condemn their samples, too.
        weight: of a condemned sample; the rest of its class is raised to make up for it.
        force: whether a folder that is there is replaced.

    Raises:
        StoreError: the format or a part is unknown, the weight is not in [0, 1), or the folder is there already.
        Uncommitted: there is no analysis yet.
    """
    folder = Path(folder)
    _check(folder, to, parts, weight, force)
    handle = run.shown_analysis(analysis)
    found = judgements(run, handle)
    sentence = condemned(run, found, flagged=flagged)
    usable = run.samples.ok
    told = _told(folder, found, flagged, sentence, usable)
    with whole_folder(folder) as partial:
        if "findings" in parts:
            write_sheet(partial / f"findings.{to}", _findings(run, found), to)
        if "lists" in parts:
            (partial / "lists").mkdir()
            rows = JudgedRows(run)  # once for all of them: it reads every id of the store
            for judgement in found:
                _write_list(run, partial / "lists", judgement, to, rows)
        if "masks" in parts:
            (partial / "masks").mkdir()
            size = input_size(run, handle)
            for finding in handle.findings():
                _write_mask(partial / "masks", finding, size)
        if "split" in parts:
            write_sheet(partial / f"split.{to}", _split(run, sentence), to)
        if "weights" in parts:
            weights = balanced_weights(run.samples.read("label"), usable, sentence.mask, weight)
            columns: Columns = {"row": list(range(run.n)), "id": _ids(run), "weight": weights.tolist()}
            write_sheet(partial / f"weights.{to}", columns, to)
        summary = {
            "format": FORMAT,
            "version": 1,
            "store": str(run.path),
            "analysis": handle.id,
            "condemned": told.condemned,
            "kept": told.kept,
            "condemned_by_the_machine_alone": flagged,
            "condemned_weight": weight,
            "conflicts": told.conflicts,
            "inherited": told.inherited,
            "contested": told.contested,
            "unclear": told.unclear,
        }
        (partial / SUMMARY).write_text(plain_json(summary, indent=1), encoding="ascii")
    return told


def region_mask(region: Bool[np.ndarray, "y x"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A region of the pooled grid at full size: a pixel belongs to the cell that holds its centre."""
    y = ((np.arange(height) + 0.5) * region.shape[0] / height).astype(int)
    x = ((np.arange(width) + 0.5) * region.shape[1] / width).astype(int)
    return np.asarray(region[np.ix_(y, x)])


def input_size(run: Run, handle: AnalysisHandle) -> tuple[int, int] | None:
    """Height and width of the model's inputs, as recorded; None where no record tells."""
    table = run.table(str(handle.facts["relevance"]))
    for step in table.provenance.steps:
        shape = step.get("input_shape")
        if isinstance(shape, list) and len(shape) == 3:
            return int(shape[1]), int(shape[2])
    if "input.full" in table.columns and len(table.columns["input.full"].shape) == 3:
        _, height, width = table.columns["input.full"].shape
        return height, width
    return None


def _check(folder: Path, to: str, parts: Sequence[str], weight: float, force: bool) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if to not in FORMATS or unknown or not parts:
        raise StoreError(
            f"cannot write {', '.join(unknown) or 'nothing'} as {to!r}; there are {', '.join(PARTS)}, as "
            f"{', '.join(FORMATS)}."
        )
    if not 0 <= weight < 1:
        raise StoreError(
            f"the weight of a condemned sample is {weight}; expected 0 or more, and less than 1."
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not force:
            raise StoreError(f"{folder} is there already: choose another name, or --force to replace it.")
        if strange := _not_ours(folder):
            raise StoreError(
                f"{folder} was not written by this export ({strange}), so it is not replaced: name another folder, or "
                "remove what is there yourself."
            )


def _not_ours(folder: Path) -> str:
    """What tells that a folder is not, or not only, one of this export's; "" of one that is."""
    try:
        summary = parsed((folder / SUMMARY).read_bytes())
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        return f"there is no {SUMMARY} of its"
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    strange = next((name for name in names if not OWN.fullmatch(name)), None)
    return "" if strange is None else f"it holds {strange!r}"


def _told(
    folder: Path,
    found: Sequence[Judgement],
    flagged: bool,
    sentence: Condemned,
    usable: Bool[np.ndarray, " n"],
) -> Feedback:
    machine = [it for it in found if it.finding is not None and it.finding.flagged and not it.word]
    return Feedback(
        folder,
        int((sentence.mask & usable).sum()),
        int((~sentence.mask & usable).sum()),
        sum(it.word == "clever_hans" for it in found),
        len(machine) if flagged else 0,
        tuple(_name(it) for it in found if it.word == "conflict"),
        tuple(_name(it) for it in found if it.finding is not None and it.verdicts and it.inherited),
        len(sentence.contested),
        sentence.unclear,
    )


def _name(judgement: Judgement) -> str:
    return judgement.finding.name if judgement.finding is not None else judgement.verdicts[-1].key


def _findings(run: Run, found: Sequence[Judgement]) -> Columns:
    names = (
        "name", "subject", "class", "samples", "suspicion", "flagged", "verdict", "annotators", "notes", "overlap",
        "inherited", "summary",
    )  # fmt: skip
    columns: Columns = {name: [] for name in names}
    for it in found:
        finding = it.finding
        known = finding is not None and 0 <= finding.group < len(run.classes)
        values: tuple[Any, ...] = (
            _name(it),
            "finding" if finding is not None else it.verdicts[-1].subject,
            run.classes[finding.group] if known and finding is not None else "",
            len(finding.rows) if finding is not None else len(it.verdicts[-1].members),
            finding.score if finding is not None else None,
            finding.flagged if finding is not None else False,
            it.word,
            "; ".join(f"{verdict.annotator}: {verdict.verdict}" for verdict in it.verdicts),
            "; ".join(verdict.note for verdict in it.verdicts if verdict.note),
            it.overlap if it.verdicts else None,
            bool(it.verdicts) and it.inherited,
            finding.summary if finding is not None else "",
        )
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
    return columns | evidence_columns([it.finding for it in found])


def _write_list(run: Run, folder: Path, judgement: Judgement, to: str, judged: JudgedRows) -> None:
    """The samples of a finding, or those that verdicts on one that is gone name."""
    if judgement.finding is not None:
        rows = judgement.finding.rows
    else:
        rows = np.unique(np.concatenate([judged.of(verdict).rows for verdict in judgement.verdicts]))
    label, prediction = run.samples.read("label", rows), run.samples.read("prediction", rows)
    columns: Columns = {
        "row": rows.tolist(),
        "id": [str(name) for name in run.samples.read("id", rows)],
        "label": label.tolist(),
        "prediction": prediction.tolist(),
        "verdict": [judgement.word] * len(rows),
    }
    key = safe_key(_name(judgement))
    if judgement.finding is None:  # two things that are gone may have had one name
        key = f"{key}.{judgement.verdicts[-1].digest[:8]}"
    write_sheet(folder / f"{key}.{to}", columns, to)


def _write_mask(folder: Path, finding: Finding, size: tuple[int, int] | None) -> None:
    if finding.region is None or not finding.region.any():
        return
    height, width = size or finding.region.shape
    mask = region_mask(finding.region, height, width)
    np.save(folder / f"{safe_key(finding.name)}.npy", mask, allow_pickle=False)
    try:
        image = import_module("PIL.Image")
    except ImportError:
        return  # without Pillow the .npy stands alone
    image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{safe_key(finding.name)}.png")


def _split(run: Run, sentence: Condemned) -> Columns:
    why = sentence.contested | sentence.reasons | dict(run.samples.failures)
    labels = run.samples.read("label").tolist()
    return {
        "row": list(range(run.n)),
        "id": _ids(run),
        "label": labels,
        "class": [run.classes[label] if 0 <= label < len(run.classes) else "" for label in labels],
        "keep": (run.samples.ok & ~sentence.mask).tolist(),
        "reason": [why.get(row, "") for row in range(run.n)],
    }


def _ids(run: Run) -> list[str]:
    return [str(name) for name in run.samples.read("id")]
