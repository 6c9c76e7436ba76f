"""What an analysis found in each class: how many strategies, how sure of it, and how neighbours were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stores import AnalysisHandle, Run

SHOWN_GROUPS = 20
SHOWN_PIECES = 5


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


def runners_up_in_words(group: dict[str, Any]) -> str:
    """The next numbers of strategies by the eigengap, or why there is nothing to count."""
    if group["status"] != "ok":
        return str(group["status"])
    return ", ".join(str(other["k"]) for other in group["eigengap"]["runners_up"])


def null_in_words(group: dict[str, Any]) -> str:
    """How far the eigengap lies above the null's, in standard deviations of its draws."""
    null = group["eigengap"].get("null") or {}
    if not null.get("draws"):
        return "–"
    if not null["significant"]:
        return "as large"
    return f"{null['deviations']:.0f} σ below"


def neighbours_in_words(group: dict[str, Any]) -> str:
    """How neighbours were found: "10, exact", or "10, cells, recall 0.98"; what is equal, apart or set aside."""
    if "neighbours" not in group:
        return "–"
    told = f"{group['neighbours']}, exact"
    if not group.get("exact_neighbours", True):
        told = f"{group['neighbours']}, {group['method']}, recall {group['recall']:.2f}"
    if "copies" in group:
        counted = f", {group['counted_once']:,} of them not counted again" if group["counted_once"] else ""
        told += f"; in {group['class']} {group['copies']:,} maps equal another{counted}"
    if "components_without_vectors" in group:
        told += (
            f"; in {group['class']} {group['components_without_vectors']:,} small components of the graph "
            f"({group.get('samples_without_vectors', 0):,} samples) count as a strategy each, and only the others "
            "were looked into"
        )
    elif group.get("components", 1) > 1:
        sizes = [f"{size:,}" for size in group.get("component_sizes", [])[:SHOWN_PIECES]]
        more = ", …" if group["components"] > len(sizes) else ""
        pieces = f"{group['components']:,} pieces ({', '.join(sizes)}{more} samples)"
        told += f"; in {group['class']} the graph is in {pieces}"
    aside = [
        f"{group[name]:,} {why}"
        for name, why in (("zero", "of no relevance"), ("invalid", "not finite"))
        if group.get(name)
    ]
    return f"{told}; in {group['class']} {' and '.join(aside)} set aside" if aside else told


def clusters_in_words(group: dict[str, Any], clustering: str) -> str:
    """How many clusters, and how well resamples agree with them: "5 (0.84)"."""
    count = group["clusterings"].get(clustering, {}).get("clusters", 1)
    agrees = (group.get("stability") or {}).get(clustering, {}).get("adjusted_rand")
    return f"{count}" + ("" if agrees is None else f" ({agrees:.2f})")
