"""What a check took back is done again: just that, with the model, the data and the settings it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import stores
from spray.analysis import analyze, embedding
from spray.config import AuditConfig
from spray.findings import find
from spray.progress import Report, silent
from spray.workflow import (
    analysis_step,
    attribute_config,
    choose_device,
    findings_step,
    group_by_of,
    load_data,
    model_of,
    suited_to,
)
from stores import AnalysisHandle, Problem, Run, describe

ANALYSES = "analyses/"
TABLES = ("samples", "relevance/")


def redo(store: str, config: AuditConfig, problems: Sequence[Problem], report: Report = silent) -> list[str]:
    """Do again what repairing these problems took back; the units for which the configuration is another's are named.

    Raises:
        stores.StoreError: the store's relevance was made with another model, data set or settings; nothing is changed.
    """
    config = replace(config, out=store)
    units = [problem.unit for problem in problems if problem.redo]
    if any(unit.startswith(TABLES) for unit in units):
        attribute_config(config, report=report)
    run = stores.open(store, "r+")
    left = [unit for unit in units if unit.startswith(TABLES) and not _is_whole(run, unit)]
    for id in dict.fromkeys(unit.split("/")[1] for unit in units if unit.startswith(ANALYSES)):
        of_analysis = [unit for unit in units if unit.startswith(f"{ANALYSES}{id}")]
        if id not in run.analyses() or not _redo_analysis(run, run.analysis(id), config, report):
            left += of_analysis
        elif any(unit.startswith(f"{ANALYSES}{id}/findings/") for unit in of_analysis):
            _redo_findings(run, run.analysis(id), config, report)
    return left


def _is_whole(run: Run, unit: str) -> bool:
    return any(table.key in (unit, unit.rpartition("/")[0]) and table.complete for table in _tables(run))


def _tables(run: Run) -> list[stores.Table]:
    return [run.table(name) for name in run.tables()]


def _redo_analysis(run: Run, handle: AnalysisHandle, config: AuditConfig, report: Report) -> bool:
    """Whether the configuration is that of the analysis; if so its groups are whole again."""
    table, column = str(handle.facts["relevance"]), str(handle.facts["column"])
    step = suited_to(run, table, column, analysis_step(config.analysis))
    step = replace(step, picture=embedding.choose(step.picture, run.n))
    if describe(step) != handle.provenance.steps[-1]:
        return False
    group_by = group_by_of(str(handle.facts["group_by"]))
    analyze(run, step, relevance=table, column=column, group_by=group_by, progress=report)
    return True


def _redo_findings(run: Run, handle: AnalysisHandle, config: AuditConfig, report: Report) -> None:
    find(
        run,
        handle,
        findings_step(config.verify),
        model=model_of(config.model),
        dataset=load_data(config.data),
        device=choose_device(config.device),
        report=report,
    )
