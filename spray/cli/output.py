"""What commands print: tables for people, JSON for programs.

Names come from strangers: they are never markup, and never control sequences of the terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from spray.cli.checks import checks, in_words
from spray.cli.groups import (
    SHOWN_GROUPS,
    clusters_in_words,
    groups_of,
    neighbours_in_words,
    null_in_words,
    runners_up_in_words,
)
from spray.percent import share
from spray.progress import Display, Report, progress, silent

if TYPE_CHECKING:
    from spray.workflow import Audit
    from stores import Run

SHOWN_FAILURES = 5
SHOWN_FINDINGS = 10
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control, formatting and surrogate characters, and of line and paragraph separators."""


def printable(text: object) -> str:
    """Text on one line, with control and formatting characters (escapes, bidirectional overrides) spelled out."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNPRINTABLE else char
        for char in str(text)
    )


def plain(text: object) -> Text:
    """As ``printable``, and no markup."""
    return Text(printable(text))


def show_json(value: Any) -> None:
    """A result for other programs."""
    from stores.plain_json import plain_json

    click.echo(plain_json(value))


def warn(sentences: Iterable[str]) -> None:
    """What a reader of a result has to know, on standard error."""
    for told in sentences:
        click.echo(f"WARNING: {printable(told)}", err=True)


@contextmanager
def reporting(quiet: bool) -> Iterator[Report]:
    """Progress on standard error, so that standard output holds results only."""
    if quiet:
        yield silent
        return
    with progress(Display(stderr=True)) as report:
        yield report


def show_demo(summary: Mapping[str, Any], out: Path) -> None:
    """The demo's result in a few sentences."""
    planted, control = summary["planted"], summary["control"]
    purity = "none flagged" if planted["purity"] is None else share(planted["purity"])
    tagged, clean, right = (
        share(summary[name]) for name in ("flip_rate_tagged", "flip_rate_clean", "accuracy")
    )
    for line in (
        f"The model reads the tag: pasted on other clothes it makes {tagged} of them a shirt ({clean} without it). "
        f"Accuracy shows nothing: {right}.",
        f"Found without a hint: the shirt class ranks {planted['class_rank']}, the tagged finding "
        f"{planted['cluster_rank']} of all; purity {purity}, recall {share(planted['recall'])}.",
        f"Control (a model trained without tags): {control['flagged']} findings flagged, highest suspicion "
        f"{control['max_suspicion']:.2f}.",
        f"{summary['seconds']['total']:.0f} s. Open {out / 'report.html'} in a browser.",
    ):
        click.echo(line)


def show_analysis(audit: Audit, as_json: bool) -> None:
    """What was found in each class, then the ranked findings."""
    groups = groups_of(audit.run, audit.analysis)
    if as_json:
        show_json({**_audit_facts(audit), "groups": groups})
        return
    table = Grid(title=f"k strategies in each of {len(groups)} groups", title_justify="left")
    clusterings = list(dict.fromkeys(name for group in groups for name in group["clusterings"]))
    table.add_column("class")
    for name in ("samples", "k", "runners-up", "null", *clusterings):
        table.add_column(plain(name), no_wrap=True, justify="right" if name in ("samples", "k") else "left")
    for group in groups[:SHOWN_GROUPS]:
        table.add_row(
            plain(group["class"]),
            f"{group['samples']:,}",
            str(group["strategies"]),
            runners_up_in_words(group),
            null_in_words(group),
            *(clusters_in_words(group, name) for name in clusterings),
        )
    Console().print(table)
    neighbours = dict.fromkeys(neighbours_in_words(group) for group in groups if group["status"] == "ok")
    for told in list(neighbours)[:SHOWN_GROUPS]:
        click.echo(printable(f"Neighbours: {told}."))
    if len(groups) > SHOWN_GROUPS:
        click.echo(f"… and {len(groups) - SHOWN_GROUPS} more groups: --json has all.")
    show_audit(audit, as_json=False)


def _audit_facts(audit: Audit) -> dict[str, Any]:
    from stores.circumstances import shortfalls

    findings = [
        {
            "name": finding.name,
            "class": _class_name(audit.run, finding.group),
            "samples": len(finding.rows),
            "score": finding.score,
            "flagged": finding.flagged,
            "parts": dict(finding.parts),
            "evidence": dict(finding.evidence),
            "summary": finding.summary,
        }
        for finding in audit.findings
    ]
    return {
        "store": str(audit.run.path),
        "analysis": audit.analysis.id,
        "findings": findings,
        "shortfalls": shortfalls(audit.run, audit.analysis),
    }


def show_audit(audit: Audit, as_json: bool, page: Path | None = None) -> None:
    """The ranked findings."""
    from stores.circumstances import shortfalls

    findings = audit.findings
    if as_json:
        show_json(_audit_facts(audit) | ({"report": str(page)} if page else {}))
        return
    table = Grid(title=f"{len(findings)} findings, {len(audit.flagged)} flagged", title_justify="left")
    for name in ("", "finding", "class", "samples", "suspicion", "necessity", "sufficiency"):
        table.add_column(name, justify="left" if name in ("", "finding", "class") else "right")
    for finding in findings[:SHOWN_FINDINGS]:
        table.add_row(
            "⚑" if finding.flagged else "",
            finding.name,
            plain(_class_name(audit.run, finding.group)),
            str(len(finding.rows)),
            f"{finding.score:.2f}",
            *(_figure(finding.parts.get(part)) for part in ("necessity", "sufficiency")),
        )
    Console().print(table)
    for finding in audit.flagged or findings[:1]:
        click.echo(printable(f"{finding.name}: {finding.summary}"))
    failed = len(audit.run.table(str(audit.analysis.facts["relevance"])).failures)
    if failed:
        click.echo(
            printable(
                f"{failed} of {audit.run.n} samples failed and are left out: spray info {audit.run.path}"
            )
        )
    for told in shortfalls(audit.run, audit.analysis):
        click.echo(printable(told))
    if page is not None:
        click.echo(printable(f"Open {page} in a browser."))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def show_run(run: Run, as_json: bool) -> None:
    """What a store holds."""
    facts = _facts(run)
    if as_json:
        show_json(facts)
        return
    console = Console(soft_wrap=True)  # a path is one word also where no terminal tells how wide it is
    console.print(plain(f"{facts['store']}: {facts['samples']} samples, {len(facts['classes'])} classes"))
    table = Grid(title="tables", title_justify="left")
    for name in ("table", "shards", "failed rows", "columns"):
        table.add_column(name, no_wrap=name == "table")  # several tables differ at the end of their names
    for entry in facts["tables"]:
        shards = f"{entry['committed']} of {entry['shards']}"
        table.add_row(plain(entry["name"]), shards, str(entry["failed"]), plain(", ".join(entry["columns"])))
    console.print(table)
    for entry in facts["tables"]:
        for row, reason in list(entry["failures"].items())[:SHOWN_FAILURES]:
            console.print(plain(f"  {entry['name']}: row {row} failed: {reason}"))
    for entry in facts["tables"]:
        if entry["checks"]:
            console.print(plain(f"  {entry['name']}: {in_words(entry['checks'])}"))
        for told in entry["circumstances"]:
            console.print(plain(f"  {entry['name']} {told}"))
    for entry in facts["analyses"]:
        console.print(
            plain(
                f"analysis {entry['id']} of {entry['relevance']} {entry['column']} by {entry['group_by']}: "
                f"{entry['groups']} groups, {entry['findings']} findings, {entry['flagged']} flagged"
            )
        )
        for told in entry["shortfalls"]:
            console.print(plain(f"  {told}"))
    console.print(f"{facts['verdicts']} verdicts")


def _facts(run: Run) -> dict[str, Any]:
    from stores.circumstances import lacking
    from stores.machines import batches, circumstances_of

    tables = []
    for name in run.tables():
        table = run.table(name)
        failures = {str(row): reason for row, reason in table.failures.items()}
        tables.append(
            {
                "name": name,
                "shards": len(table.shards),
                "committed": len(table.committed),
                "failed": len(failures),
                "failures": failures,
                "columns": list(table.columns),
                "provenance": table.provenance.id,
                "checks": checks(run, table),
                "halved": {str(shard): batch for shard, batch in batches(table).items()},
                "circumstances": circumstances_of(table),
            }
        )
    analyses = []
    for id in run.analyses():
        handle = run.analysis(id)
        findings = handle.findings()
        analyses.append(
            {
                "id": handle.id,
                "relevance": handle.facts.get("relevance"),
                "column": handle.facts.get("column"),
                "group_by": handle.facts.get("group_by"),
                "groups": len(handle.groups),
                "missing": handle.missing(handle.planned or []),
                "unsearched": handle.unsearched,
                "shortfalls": lacking(run, handle),
                "findings": len(findings),
                "flagged": sum(finding.flagged for finding in findings),
            }
        )
    return {
        "store": str(run.path),
        "version": run.version,
        "samples": run.n,
        "classes": list(run.classes),
        "tables": tables,
        "analyses": analyses,
        "verdicts": len(run.verdicts()),
    }


def _class_name(run: Run, group: int) -> str:
    return run.classes[group] if group >= 0 else "all classes"
