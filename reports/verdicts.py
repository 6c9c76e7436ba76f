"""Verdicts as files: what a report exports, merged, checked against a store, and carried over to a new analysis."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from reports.model import ReportModel, store_identity
from stores import Run, StoreError, Verdict
from stores.shown import verdicts_html
from stores.verdicts import check_new

FORMAT = "spray-verdicts"
VERSION = 1
LONGEST = {"key": 10_000, "analysis": 200}
"""Characters that a name in a verdict may have."""


class VerdictFileError(Exception):
    """A file that holds no verdicts, or not those of this store."""


@dataclass(frozen=True)
class VerdictFile:
    """What a report exports."""

    store: str
    """Identity of the store the verdicts are about."""
    title: str
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "store": self.store,
            "title": self.title,
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
        }

    def _repr_html_(self) -> str:
        title, store = escape(self.title) or "Verdicts", escape(self.store[:12])
        head = f"<p><b>{title}</b>: {len(self.verdicts):,} verdicts on the store <code>{store}</code></p>"
        apart = "".join(f"<li>{escape(str(conflict))}</li>" for conflict in conflicts(self.verdicts))
        told = f"<p>People disagree about:</p><ul>{apart}</ul>" if apart else ""
        return head + verdicts_html(self.verdicts) + told


@dataclass(frozen=True)
class Conflict:
    """People who judged the same members differently; each with the last they said. Verdicts without a name, of older
    reports, each stand for somebody."""

    subject: str
    key: str
    verdicts: tuple[Verdict, ...]

    def __str__(self) -> str:
        said = "; ".join(
            f"{v.annotator or 'unnamed'}: {v.verdict} ({v.note or 'no note'})" for v in self.verdicts
        )
        return f"{self.subject} {self.key}: {said}"


def read_file(path: str | os.PathLike[str]) -> VerdictFile:
    """Verdicts that a report exported.

    Raises:
        VerdictFileError: the file is no such export, is of a newer version, or was altered.
    """
    place = Path(path)
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerdictFileError(
            f"{place} cannot be read as JSON ({error}). Export it again from a report."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise VerdictFileError(f"{place} holds no verdicts. Give a file that a report exported.")
    if content.get("version") != VERSION:
        raise VerdictFileError(
            f"{place} has version {content.get('version')!r}; this spray reads {VERSION}. Update spray-audit."
        )
    try:
        verdicts = tuple(check_given(Verdict(**record)) for record in content["verdicts"])
        return VerdictFile(str(content["store"]), str(content.get("title", "")), verdicts)
    except (
        Exception
    ) as error:  # whatever is wrong in a stranger's file: it is told, and nothing is taken from it
        raise VerdictFileError(f"{place} is damaged: {error}") from error


def check_given(verdict: Verdict) -> Verdict:
    """The verdict, if it may be taken from a file.

    Raises:
        StoreError: it is on no sample, on another sample than it names, or as of ``stores.verdicts.check_new``.
    """
    if not verdict.members or (verdict.subject == "sample" and verdict.members != (verdict.key,)):
        about = "that sample alone" if verdict.subject == "sample" else "one sample at least"
        raise StoreError(
            f"the verdict on the {verdict.subject} {verdict.key[:200]!r} is on {len(verdict.members):,} others; "
            f"expected {about}. Give it anew in a report."
        )
    for name, most in LONGEST.items():
        if len(getattr(verdict, name)) > most:
            raise StoreError(
                f"the {name} of a verdict has {len(getattr(verdict, name)):,} characters, not {most:,}."
            )
    return check_new(verdict)


def write_file(path: str | os.PathLike[str], file: VerdictFile) -> Path:
    """Write verdicts so that reports and ``read_file`` read them."""
    place = Path(path)
    place.write_bytes(file_text(file).encode("utf-8"))
    return place


def file_text(file: VerdictFile) -> str:
    """What ``write_file`` writes."""
    text = json.dumps(file.to_json(), indent=1, ensure_ascii=False) + "\n"
    # Halves of surrogate pairs, out of file names that are no text, have no UTF-8; JSON spells them as Python does.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def merge(files: Sequence[VerdictFile]) -> tuple[VerdictFile, list[Conflict]]:
    """All verdicts of several files, each once, in the order of their times; and who disagrees about what.

    Raises:
        VerdictFileError: there is no file, or the files are about different stores.
    """
    stores = {file.store for file in files}
    if len(stores) != 1:
        raise VerdictFileError(
            f"got verdicts about {len(stores)} stores; only verdicts about one and the same store can be merged."
        )
    known = dict.fromkeys(verdict for file in files for verdict in file.verdicts)
    verdicts = tuple(sorted(known, key=lambda verdict: verdict.moment))
    return VerdictFile(files[0].store, files[0].title, verdicts), conflicts(verdicts)


def conflicts(verdicts: Iterable[Verdict]) -> list[Conflict]:
    """Where the last word of one person is not that of another, by members judged.

    Findings by other channels may have the very same members: where people judged several such of one analysis, these
    are kept apart by their names.
    """
    ordered = sorted(verdicts, key=lambda verdict: verdict.moment)
    names: dict[tuple[str, str, str], set[str]] = {}
    for verdict in ordered:
        names.setdefault((verdict.subject, verdict.digest, verdict.analysis), set()).add(verdict.key)
    last: dict[tuple[str, str, str], dict[str | Verdict, Verdict]] = {}
    for verdict in ordered:
        twins = verdict.subject == "finding" and len(names["finding", verdict.digest, verdict.analysis]) > 1
        name = f"{verdict.analysis} {verdict.key}" if twins else ""
        people = last.setdefault((verdict.subject, verdict.digest, name), {})
        people.pop(verdict.author, None)
        if verdict.verdict != "withdrawn":
            people[verdict.author] = verdict
    return [
        Conflict(subject, next(iter(people.values())).key, tuple(people.values()))
        for (subject, _, _), people in last.items()
        if len({verdict.verdict for verdict in people.values()}) > 1
    ]


def add_to_store(run: Run, file: VerdictFile) -> int:
    """Put verdicts that a store does not have yet into it; gives how many.

    Raises:
        VerdictFileError: the verdicts are about another store, or samples that it has not; nothing is written then.
        StoreError: one of them may not be written (``check_given``); nothing is written then, either.
    """
    if file.store != store_identity(run):
        raise VerdictFileError(
            f"these verdicts are about another store than {run.path}: nothing was written."
        )
    known = set(run.verdicts())
    fresh = [check_given(verdict) for verdict in dict.fromkeys(file.verdicts) if verdict not in known]
    ids = {str(name) for name in run.samples.read("id")}
    for verdict in fresh:
        strange = [member for member in verdict.members if member not in ids]
        if strange:
            raise VerdictFileError(
                f"the verdict on the {verdict.subject} {verdict.key[:200]!r} is on {strange[0][:200]!r}, which is no "
                f"sample of {run.path}: nothing was written. Leave it out of the file."
            )
    for verdict in fresh:
        run.add_verdict(verdict)
    return len(fresh)


def overlaps(model: ReportModel, verdicts: Iterable[Verdict]) -> dict[tuple[str, str], tuple[str, float]]:
    """For verdicts on other members than the analysis has: the subject that fits best, and its Jaccard overlap.

    Keyed by what the verdict is about and its digest: a finding and a cluster may have the same members, and a verdict
    on the one is none on the other. Verdicts whose very members are such a subject need no match and are left out, as
    are those that share no member with any.
    """
    subjects = [
        (subject, {group.samples.ids[i] for i in subject.members})
        for group in model.groups
        for subject in group.subjects
    ]
    known = {(subject.kind, subject.digest) for subject, _ in subjects}
    found: dict[tuple[str, str], tuple[str, float]] = {}
    for verdict in verdicts:
        about = verdict.subject, verdict.digest
        if verdict.subject == "sample" or about in known or about in found:
            continue
        members = set(verdict.members)
        best = max(
            (
                (len(members & ids) / len(members | ids), subject.key)
                for subject, ids in subjects
                if subject.kind == verdict.subject and members | ids
            ),
            default=(0.0, ""),
        )
        if best[0] > 0:
            found[about] = best[1], best[0]
    return found
