"""What a check prints: the problems, what was done about them, and the commands that do the rest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from spray.cli.output import printable, show_json

if TYPE_CHECKING:
    from stores import Problem

SOUND, DAMAGED, INCOMPLETE = 0, 1, 3
"""Exit codes of a check: all is there and as it was written; something is damaged; nothing is, but parts are to be
written, or to be written again."""
HARMLESS = ("incomplete", "failed", "note")
"""Kinds of problems that are no damage."""
SHARE = re.compile(r" --shards[ =]\S+")


def show_problems(
    store: str, problems: Sequence[Problem], repair: bool, left: Sequence[str] | None, as_json: bool
) -> int:
    """What a check found, and what is to be done next; returns the exit code.

    ``left`` could not be redone (None: nothing was tried).
    """
    damages = [problem for problem in problems if problem.kind not in HARMLESS]
    gaps = [problem.unit for problem in problems if problem.kind == "incomplete"]
    lost = list(dict.fromkeys(problem.unit for problem in damages if problem.redo))
    to_redo = lost if left is None else list(left)
    needed = _needed(store, to_redo) if repair else []
    if as_json:
        told = [{**vars(it), "redone": repair and it.redo and it.unit not in to_redo} for it in problems]
        show_json(told)
    else:
        for problem in problems:
            click.echo(printable(problem))
        for line in _conclusion(store, bool(damages), repair):
            click.echo(printable(line))
        for line in _taken_back(store, lost, to_redo, needed, left is not None) if repair else ():
            click.echo(printable(line))
        for line in _incomplete(store, gaps):
            click.echo(printable(line))
    if any(not (it.repaired or (repair and it.redo)) for it in damages):
        return DAMAGED
    failed = any(problem.kind == "failed" for problem in problems)
    return INCOMPLETE if gaps or failed or needed else SOUND


def _conclusion(store: str, damaged: bool, repair: bool) -> Iterator[str]:
    if not damaged:
        yield "Sound: every committed byte is as it was written."
    elif not repair:
        yield f"Nothing was changed. Take back what is damaged: spray check {shlex.quote(store)} --repair"


def _taken_back(
    store: str, lost: Sequence[str], to_redo: Sequence[str], needed: Sequence[str], tried: bool
) -> Iterator[str]:
    if done := len(lost) - len(to_redo):
        yield f"{done} units were taken back and done again."
    if needed:
        of_others = ": they were made with other settings than these, or of other samples" if tried else ""
        yield f"{len(needed)} units are to be written again, all else stays as it is{of_others}."
    if superseded := len(to_redo) - len(needed):
        yield f"Nothing needs {superseded} of what was taken back any more: a newer list of findings is there."
    for command in _commands(store, needed):
        yield f"Redo just these: {command}"


def _incomplete(store: str, gaps: Sequence[str]) -> Iterator[str]:
    if not gaps:
        return
    yield "Incomplete: what is named above as not written is missing, and nothing reads it as anything else."
    for command in _commands(store, gaps):
        yield f"Go on: {command}"


def _needed(store: str, units: Sequence[str]) -> list[str]:
    """These without lists of findings before the newest, and without what was kept on the way to one that is there."""
    from stores.ledger import Ledger
    from stores.places import floor_at

    ledger = Ledger(floor_at(store))
    kept = []
    for unit in units:
        _, id, kind, number = [*unit.split("/"), "", "", ""][:4]
        if kind not in ("findings", "tested"):
            kept.append(unit)
            continue
        newest = max(map(int, ledger.units(f"analyses/{id}/findings")), default=0)
        lost = [int(it.rpartition("/")[2]) for it in units if it.startswith(f"analyses/{id}/findings/")]
        if max([int(number)] if kind == "findings" else lost, default=0) > newest or not newest:
            kept.append(unit)
    return kept


def _commands(store: str, units: Sequence[str]) -> list[str]:
    """What to run so that these units are written again: the commands that wrote them, where the log knows these."""
    commands = dict.fromkeys(_command(store, part) for part in dict.fromkeys(map(_part, units)))
    order = ("import", "attribute", "analyze", "verify")
    return [command for stage in order for at, command in commands if at == stage]


def _part(unit: str) -> str:
    """What one command writes: the table of a shard, the groups of an analysis, or what is found in them."""
    pieces = unit.split("/")
    if pieces[0] == "analyses":
        return "/".join([*pieces[:2], *(["findings"] if pieces[2:3] in (["findings"], ["tested"]) else [])])
    return "/".join(pieces[: 2 if pieces[0] == "relevance" else 1])


def _command(store: str, part: str) -> tuple[str, str]:
    """The stage of such a part, and the last command that wrote it.

    One of several processes that shared the work wrote only its share: the command without that does the rest.
    """
    from spray.journal import last_command

    if _imported(store, part):
        logged = last_command(store, ("import",))
        return "import", logged or "the command that wrote them, spray import, as it was given"
    if not part.startswith("analyses/"):
        logged = last_command(store, ("attribute",), _wrote_table(part))
        logged = logged and SHARE.sub("", logged)
        return (
            "attribute",
            logged or "the command that wrote them, spray attribute or spray audit, as it was given",
        )
    _, id, *found = part.split("/")
    stage = "verify" if found else "analyze"
    stages = ("rank", "verify") if found else (stage,)
    logged = last_command(store, stages, lambda facts: bool(facts.get("analysis", id) == id))
    return stage, logged or f"the command that wrote them, spray {stage} or spray audit, as it was given"


def _wrote_table(key: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether what a log tells is of the table of this key; the samples are of every command."""
    from stores.tables import table_key

    def fits(facts: Mapping[str, Any]) -> bool:
        tables = facts.get("tables")
        if not key.startswith("relevance/") or not isinstance(tables, list):
            return True
        return key in (table_key(str(name)) for name in tables)

    return fits


def _imported(store: str, part: str) -> bool:
    """Whether an import wrote this: a table of a store that was imported, or an analysis that was."""
    import stores
    from spray.journal import last_command

    try:
        run = stores.open(store)
    except stores.StoreError:  # its root is lost
        return not last_command(store, ("attribute",)) and bool(last_command(store, ("import",)))
    if not part.startswith("analyses/"):
        return "imported" in run.provenance
    _, id, *found = part.split("/")
    if found:
        return False
    try:
        return bool(run.analysis(id).facts.get("imported"))
    except (KeyError, stores.StoreError):  # its document is lost, too
        return "imported" in run.provenance
