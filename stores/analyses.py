"""Analyses in a store: group by group, each committed whole, and the findings drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stores.analysis import Finding, FindingList, GroupAnalysis
from stores.encoding import group_document
from stores.errors import Damaged, StoreError, Uncommitted
from stores.findings import decode_findings, encode_findings
from stores.floor import Floor
from stores.groups import (
    decode_group_analysis,
    encode_group_analysis,
    ensure_group,
    group_key,
    group_number,
    is_group,
)
from stores.ledger import Ledger, create_once
from stores.names import is_key
from stores.provenance import Json, Provenance, to_json
from stores.schema import content_of, element, parsed

ROOT = "analyses"
SEARCHED = "groups"
"""What a step of the provenance of findings calls the groups that they were searched in, where these are not all."""

TAKEN_BACK = "`spray check --repair` takes it back, and running the analysis again writes it anew."


class AnalysisHandle:
    """One analysis, from ``Run.create_analysis`` or ``Run.analysis``. Its id tells how it was made."""

    def __init__(self, floor: Floor, content: Mapping[str, Any], writable: bool) -> None:
        self.provenance = Provenance.from_json(content["provenance"])
        self.facts: dict[str, Any] = dict(content["facts"])
        """What was analysed: at least relevance (table), column, group_by and grid (y, x)."""
        self.planned: list[int] | None = content.get("groups")
        """The groups that it was begun for; None where an early release, or another tool, did not say."""
        self.sequence = int(content["sequence"])
        self._floor, self._writable = floor, writable
        self._ledger = Ledger(floor)

    def __repr__(self) -> str:
        return f"<Analysis {self.id}: {len(self.groups)} groups, {len(self._revisions())} lists of findings>"

    def _repr_html_(self) -> str:
        from stores.shown import analysis_html

        return analysis_html(self)

    @property
    def id(self) -> str:
        """The first 12 hex digits of the provenance's id."""
        return self.provenance.id[:12]

    @property
    def path(self) -> str:
        """The store that it lies in."""
        return self._floor.url

    @property
    def groups(self) -> list[int]:
        """Committed groups, ascending; ``ALL_CLASSES`` (−1) is the joint one."""
        units = self._ledger.units(f"{ROOT}/{self.id}")
        return sorted(group_number(unit) for unit in units if is_group(unit))

    def missing(self, groups: Iterable[int]) -> list[int]:
        """Which of these groups are not committed yet."""
        committed = set(self.groups)
        return [group for group in groups if group not in committed]

    def write(self, group: GroupAnalysis) -> None:
        """Write and commit one group; again with the same content does nothing.

        Raises:
            StoreError: the arrays do not agree, or the group is committed with other content.
            StoreBusy: another owner is writing it.
        """
        self._check_writable()
        unit = f"{ROOT}/{self.id}/{group_key(group.group)}"
        files = {f"{unit}/{key}": data for key, data in encode_group_analysis(group).items()}
        self._ledger.write(unit, files, {"provenance": self.provenance.id})

    def read(self, group: int) -> GroupAnalysis:
        """One group, every byte checked against its commit.

        Raises:
            Uncommitted: it is not written yet.
            Damaged: its bytes are not those that were committed.
        """
        unit = f"{ROOT}/{self.id}/{group_key(group)}"
        try:
            return decode_group_analysis(self._files(unit), f"{self._floor.url}: {unit}")
        except KeyError:
            raise Uncommitted(
                f"{self._floor.url}: analysis {self.id} has no group {group} yet; it has "
                f"{self.groups or 'none'}. Run the analysis again, it goes on where it stopped."
            ) from None

    def write_findings(self, findings: Sequence[Finding], provenance: Provenance) -> None:
        """Write a ranked list of findings, most suspicious first. Earlier lists stay; the newest is read.

        Raises:
            StoreError: two findings have one name, or a figure is NaN or infinite.
        """
        self._check_writable()
        revisions = self._revisions()
        files = encode_findings(findings, provenance)
        if revisions and self._revision_files(revisions[-1]) == files:
            return
        unit = self._findings_unit(max(revisions, default=0) + 1)
        keyed = {f"{unit}/{key}": data for key, data in files.items()}
        self._ledger.write(unit, keyed, {"provenance": provenance.id})

    def write_tested(self, group: int, findings: Sequence[Finding], provenance: Provenance) -> None:
        """Keep the findings of one group before they are ranked among all: an interrupted test goes on after it.

        Raises:
            StoreError: the group is kept already, with other findings.
        """
        self._check_writable()
        unit = self._tested_unit(group, provenance)
        files = {f"{unit}/{key}": data for key, data in encode_findings(findings, provenance).items()}
        self._ledger.write(unit, files, {"provenance": provenance.id})

    def tested(self, group: int, provenance: Provenance) -> list[Finding] | None:
        """The kept findings of one group; None if it has not been tested in this way."""
        unit = self._tested_unit(group, provenance)
        if self._ledger.commit(unit) is None:
            return None
        return decode_findings(self._files(unit), f"{self._floor.url}: {unit}")[0]

    def findings(self) -> FindingList:
        """The newest list of findings, as ranked; empty if there is none.

        Raises:
            Damaged: its bytes are not those that were committed.
        """
        newest = self._newest_findings()
        return FindingList([] if newest is None else newest[0])

    @property
    def searched(self) -> bool:
        """Whether there is a list of findings, be it empty; none of it is read."""
        return bool(self._revisions())

    @property
    def tested_groups(self) -> list[int]:
        """Groups whose tested findings are kept, be it by different settings."""
        units = self._ledger.units(f"{ROOT}/{self.id}/tested")
        keys = {unit.partition("-")[2] for unit in units}
        return sorted(group_number(key) for key in keys if is_group(key))

    @property
    def unsearched(self) -> list[int]:
        """Committed groups that were not there yet when the newest list of findings was made, as far as it says."""
        for step in provenance.steps if (provenance := self.findings_provenance) else ():
            if isinstance(searched := step.get(SEARCHED), Sequence):
                return [group for group in self.groups if group not in searched]
        return []

    @property
    def findings_provenance(self) -> Provenance | None:
        """How the newest list of findings was made; None if there is none."""
        newest = self._newest_findings()
        return None if newest is None else newest[1]

    def _newest_findings(self) -> tuple[list[Finding], Provenance] | None:
        revisions = self._revisions()
        if not revisions:
            return None
        unit = self._findings_unit(revisions[-1])
        return decode_findings(self._revision_files(revisions[-1]), f"{self._floor.url}: {unit}")

    def _revision_files(self, revision: int) -> dict[str, bytes]:
        return self._files(self._findings_unit(revision))

    def _files(self, unit: str) -> dict[str, bytes]:
        _, files = self._ledger.read(unit)
        return {key.removeprefix(f"{unit}/"): data for key, data in files.items()}

    def _revisions(self) -> list[int]:
        return self._ledger.numbers(f"{ROOT}/{self.id}/findings")

    def _findings_unit(self, revision: int) -> str:
        return f"{ROOT}/{self.id}/findings/{revision}"

    def _tested_unit(self, group: int, provenance: Provenance) -> str:
        return f"{ROOT}/{self.id}/tested/{provenance.id[:12]}-{group_key(group)}"

    def _check_writable(self) -> None:
        if not self._writable:
            raise StoreError(f"{self._floor.url} is open for reading; open it with mode 'r+' to write.")


def create_analysis(
    floor: Floor, provenance: Provenance, facts: Mapping[str, Any], groups: Iterable[int] | None = None
) -> AnalysisHandle:
    """Create an analysis of these groups, or go on with the one of the same provenance.

    Raises:
        StoreError: there is one of the same provenance that states other facts.
    """
    existing = list_analyses(floor, writable=True)
    stated = to_json(dict(facts))
    for handle in existing:
        if handle.id == provenance.id[:12]:
            if handle.facts != stated:
                raise StoreError(
                    f"{floor.url}: analysis {handle.id} exists and states {handle.facts}, now {stated}. "
                    "What changes the facts must stand in the provenance, so that it gives another analysis."
                )
            _plan(floor, handle, groups)
            return handle
    content: dict[str, Json] = {
        "provenance": provenance.to_json(),
        "facts": stated,
        "sequence": 1 + max((handle.sequence for handle in existing), default=0),
    }
    if groups is not None:
        content["groups"] = sorted({int(group) for group in groups})
    ensure_group(floor, ROOT)
    document = group_document(element("analysis", content))
    create_once(floor, f"{ROOT}/{provenance.id[:12]}/zarr.json", document)
    return AnalysisHandle(floor, content, writable=True)


def _plan(floor: Floor, handle: AnalysisHandle, groups: Iterable[int] | None) -> None:
    """Have the document of an analysis that goes on with further groups name these, too."""
    further = {int(group) for group in groups or ()}
    if handle.planned is None or further.issubset(handle.planned):
        return
    content = analysis_content(floor, handle.id)
    if content is not None:
        handle.planned = content["groups"] = sorted(further.union(content.get("groups", ())))
        floor.put(f"{ROOT}/{handle.id}/zarr.json", group_document(element("analysis", content)))


def list_analyses(floor: Floor, writable: bool) -> list[AnalysisHandle]:
    """Every analysis, oldest first."""
    handles = []
    for name in floor.names(ROOT):
        content = analysis_content(floor, name)
        if content is not None:
            handles.append(AnalysisHandle(floor, content, writable))
    return sorted(handles, key=lambda handle: (handle.sequence, handle.id))


def analysis_content(floor: Floor, name: str) -> dict[str, Any] | None:
    """What the document of an analysis says; None where there is none of this id.

    Raises:
        Damaged: it cannot be read, or is that of another analysis.
    """
    key = f"{ROOT}/{name}/zarr.json"
    if not is_key(name) or name == "zarr.json" or (document := floor.read(key)) is None:
        return None
    try:
        content = content_of(parsed(document)["attributes"], "analysis", f"{floor.url}: {key}")
        id = "no analysis" if content is None else f"analysis {content['provenance']['id'][:12]}"
    except (ValueError, KeyError, TypeError, Damaged) as error:
        raise Damaged(f"{floor.url}: {key} cannot be read ({error}). {TAKEN_BACK}") from error
    if id != f"analysis {name}":
        raise Damaged(f"{floor.url}: {key} is that of {id}. {TAKEN_BACK}")
    return content
