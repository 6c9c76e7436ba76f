"""What an analysis found in each class: how many strategies, how sure of it, and how neighbours were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stores import AnalysisHandle, Run

SHOWN_GROUPS = 20


def groups_of(run: Run, analysis: AnalysisHandle) -> list[dict[str, Any]]:
    """Each group's figures, as they are stored, with its class by name."""
    return [_group(run, analysis, number) for number in analysis.groups]


def _group(run: Run, analysis: AnalysisHandle, number: int) -> dict[str, Any]:
    found = analysis.read(number)
    return {
        "class": run.classes[number] if number >= 0 else "all classes",
        "status": found.status,
        "samples": len(found.rows),
        "zero": len(found.zero_rows),
        "invalid": len(found.invalid_rows),
        "components": found.components,
        "strategies": found.strategies,
        "eigengap": dict(found.eigengap),
        "clusterings": {name: dict(it.parameters) for name, it in found.clusterings.items()},
        **found.facts,
    }


def strategies_in_words(group: dict[str, Any]) -> str:
    """The eigengap's number of strategies and why it is believed: "3 (then 5, 2)", "1 (the null's gap is as large)"."""
    if group["status"] != "ok":
        return f"{group['strategies']} ({group['status']})"
    gap = group["eigengap"]
    null = gap.get("null") or {}
    if group["strategies"] == 1 and null:
        return "1 (the null's gap is as large)"
    others = ", ".join(str(other["k"]) for other in gap["runners_up"])
    return f"{group['strategies']}" + (f" (then {others})" if others else "")


def null_in_words(group: dict[str, Any]) -> str:
    """The eigengap's distance to the null's, in standard deviations of its draws."""
    null = group["eigengap"].get("null") or {}
    if not null.get("draws"):
        return "–"
    far = null.get("deviations")
    draws = f"{null['draws']} draw{'s' if null['draws'] > 1 else ''}"
    return draws if far is None else f"{draws}, {far:.0f} σ"


def neighbours_in_words(group: dict[str, Any]) -> str:
    """How neighbours were found: "10, exact", or "10, cells, recall 0.98"."""
    if "neighbours" not in group:
        return "–"
    if group.get("exact_neighbours", True):
        return f"{group['neighbours']}, exact"
    return f"{group['neighbours']}, {group['method']}, recall {group['recall']:.2f}"


def clusters_in_words(group: dict[str, Any]) -> str:
    """Clusters of each clustering, and how well resamples agree with it: "kmeans 3 (0.91), hdbscan 5 (0.84)"."""
    told = []
    stability = group.get("stability") or {}
    for name, parameters in group["clusterings"].items():
        agrees = stability.get(name, {}).get("adjusted_rand")
        told.append(
            f"{name} {parameters.get('clusters', 1)}" + ("" if agrees is None else f" ({agrees:.2f})")
        )
    return ", ".join(told)
