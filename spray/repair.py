"""What a check took back is done again: just that, with the model, the data and the settings it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import stores
from spray.analysis import Analysis, analyze, embedding
from spray.analysis.groups import GroupBy
from spray.analysis.stage import lineage
from spray.config import AuditConfig
from spray.findings import find
from spray.progress import Report, silent
from spray.workflow import (
    analysis_step,
    attribute_config,
    choose_device,
    findings_step,
    load_data,
    model_of,
    suited_to,
)
from stores import AnalysisHandle, Problem, Provenance, Run, describe
from stores.circumstances import failed_rows
from stores.groups import group_number
from stores.ledger import Ledger
from stores.roots import ROOT
from stores.schema import content_of

ANALYSES = "analyses/"
TABLES = (ROOT, "samples", "relevance/")
"""What attribution writes."""
COME_BACK = "Once it can be read again: spray attribute … --retry-failed"
OF_FINDINGS = ("findings", "tested")


def redo(
    store: str, config: AuditConfig, problems: Sequence[Problem], report: Report = silent
) -> tuple[list[str], list[Problem]]:
    """Do again what repairing these problems took back.

    Returns:
        The units that are not whole after it: made with other settings than the configuration's or of other samples, or
        nothing makes them any more, as a list of findings that a newer one has superseded. They are left as they are.
        And samples that were there before, and could not be made again.

    Raises:
        stores.StoreError: the store's relevance was made with another model, data set or settings; nothing is changed.
    """
    config = replace(config, out=store)
    units = list(dict.fromkeys(problem.unit for problem in problems if problem.redo))
    if any(unit.startswith(TABLES) for unit in units):
        attribute_config(config, report=report)
    run = stores.open(store, "r+")
    for id in dict.fromkeys(unit.split("/")[1] for unit in units if unit.startswith(ANALYSES)):
        inside = [unit.split("/")[2:] for unit in units if f"{unit}/".startswith(f"{ANALYSES}{id}/")]
        groups = [group_number(parts[0]) for parts in inside if parts and parts[0] not in OF_FINDINGS]
        if groups or [] in inside:
            _redo_analysis(run, id, groups, config, report)
        if id in run.analyses() and not run.analysis(id).missing(groups):
            revisions = sorted(int(parts[1]) for parts in inside if len(parts) > 1 and parts[0] == "findings")
            for revision in revisions:
                _redo_findings(run, run.analysis(id), revision, config, report)
    return [unit for unit in units if not _is_whole(run, unit)], list(_failed_since(run, problems))


def _failed_since(run: Run, problems: Sequence[Problem]) -> Iterator[Problem]:
    """Samples of shards that were done again which have failed now, as files that are gone since have."""
    tables = {table.key: table for table in map(run.table, run.tables())}
    for problem in problems:
        key, _, shard = problem.unit.rpartition("/")
        table = tables.get(key)
        if table is None or not problem.redo or int(shard) in table.missing():
            continue
        for row, reason in table.failed_in(int(shard)).items():
            if row not in (problem.failed or ()):
                told = f"was there before, and has failed now ({reason}). {COME_BACK}"
                yield Problem(problem.unit, "failed", told, (row, row + 1))


def _is_whole(run: Run, unit: str) -> bool:
    if unit == ROOT:
        return True  # or it would not be open
    if unit.startswith(TABLES):
        tables = [run.table(name) for name in run.tables()]
        return any(table.key in (unit, unit.rpartition("/")[0]) and table.complete for table in tables)
    if unit.count("/") == 1:
        return unit.removeprefix(ANALYSES) in run.analyses()
    return Ledger(run.floor).commit(unit) is not None


@dataclass(frozen=True)
class _Selection:
    """What an analysis was made from."""

    step: Analysis
    table: str
    column: str
    group_by: GroupBy


def _redo_analysis(run: Run, id: str, groups: Sequence[int], config: AuditConfig, report: Report) -> None:
    """The groups that are missing, and the document, where the configuration is that of the analysis."""
    chosen = _selection(run, id, config)
    if chosen is None:
        return
    numbers = {*groups, *map(group_number, Ledger(run.floor).units(f"{ANALYSES}{id}"))}
    analyze(
        run,
        chosen.step,
        relevance=chosen.table,
        column=chosen.column,
        group_by=chosen.group_by,
        groups=None if chosen.group_by == "all" else sorted(numbers),
        progress=report,
    )


def _selection(run: Run, id: str, config: AuditConfig) -> _Selection | None:
    """What gives an analysis its id, under this configuration's steps; its document may be lost."""
    for name in run.tables():
        if name == "samples":
            continue
        table = run.table(name)
        failed = failed_rows(run, table)
        for column in table.columns:
            step = suited_to(run, name, column, analysis_step(config.analysis))
            step = replace(step, picture=embedding.choose(step.picture, run.n))
            for group_by in get_args(GroupBy):
                if lineage(table, failed, column, group_by, step).id.startswith(id):
                    return _Selection(step, name, column, group_by)
    return None


def _redo_findings(
    run: Run, handle: AnalysisHandle, revision: int, config: AuditConfig, report: Report
) -> None:
    """A list of findings, where it is the newest one and the configuration says how it was made."""
    committed = [int(number) for number in Ledger(run.floor).units(f"{ANALYSES}{handle.id}/findings")]
    stored = _provenance_of(run, f"{ANALYSES}{handle.id}/findings/{revision}")
    if stored is None or revision != max(committed, default=0) + 1:
        return
    try:
        step = findings_step(config.verify).of(handle)
    except ValueError:  # of a clustering that this analysis has not
        return
    tested = bool(stored.steps[-1].get("done"))
    if stored.steps[0] != describe(step) or stored.parents != (handle.id,):
        return
    find(
        run,
        handle,
        step,
        model=model_of(config.model) if tested else None,
        dataset=load_data(config.data) if tested else None,
        device=choose_device(config.device),
        report=report,
    )


def _provenance_of(run: Run, unit: str) -> Provenance | None:
    """How damaged findings were made, where their document still says so; its own digest tells whether it is true."""
    try:
        attributes = json.loads(run.floor.read(f"{unit}/zarr.json") or b"")["attributes"]
        record = (content_of(attributes, "findings", unit) or {})["provenance"]
        provenance = Provenance.from_json(record)
        return provenance if provenance.id == record["id"] and len(provenance.steps) > 1 else None
    except (ValueError, KeyError, TypeError, AttributeError, stores.Damaged):
        return None
