"""Is the true shortcut first, and is nothing confirmed on clean models? Calibration of the rank and the proof.

    python benchmarks/clever_hans.py                     # all cases of Fashion-MNIST
    python benchmarks/clever_hans.py --only tag-5 --cache ~/.cache/spray-benchmark
    python benchmarks/clever_hans.py --json > calibration.json

Every case of ``planted.GRID`` and of ``FRESH`` is audited at library defaults, with interventions. A plant counts if
the model was shown to use the artifact. The combined rank stands beside ranks by one score alone (the class's eigengap
over its null, held-out Fisher separability, cluster size): place of the first finding that is mostly tagged among all
findings of all classes, average precision, members' recall and purity; on controls, how many of them have a confirmed
finding, with Wilson's 95 % interval. Audits are those of ``strategies.py``, where that has run with the same cache.

The requirements are calibrated on set A (``CHOSEN_ON``: cases that were in sight when something was chosen) and scored
on set B, all others. For the least size of effects and the least mode the script also chooses anew, from the findings
of A alone, by one rule: half way (geometric mean) between the strongest honest finding that meets all else and the
weakest used plant that does. It tells how B fares by that choice, and the other way round.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
    sys.path.append(sys.path.pop(0))  # scripts of this folder that are named like packages would hide those

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import numpy as np
import torch
from planted import FASHION, GRID, Case, fashion, findings_of, plant

RANKS: dict[str, Callable[[dict], float]] = {
    "combined": lambda it: it["score"],
    "eigengap alone": lambda it: it["parts"].get("gap_over_null") or 0.0,
    "Fisher alone": lambda it: it["parts"].get("separation") or 0.0,
    "cluster size": lambda it: it["size"],
    "without interventions": lambda it: it["untested"],
}


CHOSEN_ON = (
    "border-20-c6-s0 border-5-c6-s0 border-5-c6-s1 border-20-c2-s1 text-20-c6-s0 text-20-c6-s1 text-20-c4-s1 "
    "text-5-c6-s0 tag-20-c6-s0 tag-5-c6-s0 tag-5-c6-s1 tag-5-c6-s2 tag-5-c2-s1 tag-2-c6-s0 tag-1-c6-s1 tag-1-c6-s2 "
    "none-5-c6-s0 none-5-c2-s1 none-5-c0-s0 none-5-c3-s0 tag-5-c8-s0 texture-20-c6-s0 texture-5-c6-s0"
)
"""Cases in sight when regions, fills, refinement, membership or requirements were chosen: set A."""
FRESH = (
    Case("tag", 20, label=0, seed=1),
    Case("tag", 20, label=4, seed=2),
    Case("tag", 5, label=2, seed=1),
    Case("tag", 5, label=4, seed=1),
    Case("tag", 5, label=0, seed=2),
    Case("tag", 2, seed=1),
    Case("border", 20, label=2, seed=1),
    Case("border", 5, seed=1),
    Case("border", 20, label=0, seed=2),
    Case("text", 20, seed=1),
    Case("text", 20, label=4, seed=1),
    Case("text", 20, seed=2),
)
"""Plants in other classes and with other seeds; nobody had looked at those of seed 2 when all was fixed."""
LOCAL = ("tag", "border", "text")


def calibrates(case: dict) -> bool:
    """Whether a case served to choose thresholds; all others are what figures are told of."""
    return case["case"] in CHOSEN_ON.split()


def examined(case: Case, data: Path, images: int, cache: Path) -> dict:
    """One case's findings with the truth beside them."""
    torch.set_num_threads(1)
    planted = plant(case, fashion(data, images), cache)
    audit = findings_of(planted, cache)
    truth = planted.tagged[planted.rows]
    return {
        "case": case.name,
        "artifact": case.artifact,
        "control": case.control or not planted.used,
        "meant_as_control": case.control,
        "percent": case.percent,
        "flip_clean": round(planted.flip_clean, 3),
        "flip_tagged": round(planted.flip_tagged, 3),
        "findings": [told(finding, case, truth) for finding in audit["findings"]],
        "cpu_seconds": audit["cpu_seconds"],
    }


def told(finding: dict, case: Case, truth: np.ndarray) -> dict:
    rows = finding["rows"]
    hits = int(truth[rows].sum()) if finding["group"] == case.label else 0
    kept = ("name", "score", "untested", "parts", "evidence", "summary")
    return {
        **{name: finding[name] for name in kept},
        "size": len(rows),
        "confirmed": finding["flagged"],
        "purity": hits / len(rows),
        "recall": hits / max(int(truth.sum()), 1),
    }


def ranked(case: dict, rank: Callable[[dict], float]) -> tuple[int | None, float]:
    """Place of the first finding that is mostly tagged, and the average precision of all such."""
    order = sorted(case["findings"], key=lambda it: (-rank(it), it["name"]))
    places = [place for place, it in enumerate(order, 1) if it["purity"] >= 0.5]
    precisions = [hit / place for hit, place in enumerate(places, 1)]
    return (places[0] if places else None), float(np.mean(precisions)) if precisions else 0.0


def wilson(hits: int, trials: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(hits, trials).proportion_ci(method="wilson")
    return round(float(interval.low), 3), round(float(interval.high), 3)


def table(cases: Sequence[dict]) -> dict:
    """The figures of some cases."""
    used = [it for it in cases if not it["control"] and it["percent"] >= 1]
    plants = [it for it in used if it["artifact"] in LOCAL]
    controls = [it for it in cases if it["meant_as_control"]]
    alarms = sum(any(found["confirmed"] for found in it["findings"]) for it in controls)
    result: dict = {
        "plants with a place": len(plants),
        "plants without": {it["case"]: ranked(it, RANKS["combined"])[0] for it in used if it not in plants},
        "controls": len(controls),
        "controls with a confirmed finding": alarms,
        "interval": wilson(alarms, len(controls)) if controls else None,
        "ranks": {},
    }
    for name, rank in RANKS.items():
        places = [ranked(it, rank) for it in plants]
        result["ranks"][name] = {
            "top-1": sum(place == 1 for place, _ in places),
            "average precision": round(float(np.mean([ap for _, ap in places])), 3) if places else None,
        }
    members = [confirmed_members(it) for it in plants]
    result["confirmed plants"] = sum(recall > 0 for _, recall, _ in members)
    result["members"] = {case: [recall, purity] for case, recall, purity in members}
    result["effects"] = {
        "plants": [effect for it in plants for effect in effects(it, lambda found: found["purity"] >= 0.5)][
            : len(plants)
        ],
        "strongest of others": max(
            (
                found["evidence"].get("score", 0.0)
                for it in cases
                for found in it["findings"]
                if found["purity"] < 0.5
            ),
            default=0.0,
        ),
    }
    return result


def confirmed_members(case: dict) -> tuple[str, float, float]:
    """Recall and purity of the best confirmed finding that is mostly tagged."""
    good = [it for it in case["findings"] if it["confirmed"] and it["purity"] >= 0.5]
    best = max(good, key=lambda it: it["recall"], default=None)
    return (
        case["case"],
        round(best["recall"], 3) if best else 0.0,
        round(best["purity"], 3) if best else 0.0,
    )


def effects(case: dict, wanted: Callable[[dict], bool]) -> list[dict]:
    return [
        {
            "case": case["case"],
            "necessity": round(it["evidence"]["removal"]["net"], 3),
            "sufficiency": round(it["evidence"]["transplant"]["net"], 3),
            "score": round(it["evidence"]["score"], 3),
            "q": it["evidence"]["q_value"],
            "confirmed": it["confirmed"],
        }
        for it in case["findings"]
        if wanted(it) and "removal" in it["evidence"]
    ]


LIMITS: dict[str, tuple[str, Callable[[dict], float]]] = {
    "least size of effects": ("size of the effect", lambda it: it["evidence"]["score"]),
    "least mode": ("members that stand apart", lambda it: it["evidence"]["mode"] or 0.0),
}
"""Requirements that the script chooses anew: how they are told where unmet, and what they limit."""


def anew(calibrating: Sequence[dict], scored: Sequence[dict]) -> dict:
    """Each limit as one set of cases chooses it, and what the other set then gives; both ways round."""
    found = {}
    for name, (unmet, value) in LIMITS.items():
        for way, (one, other) in {"A to B": (calibrating, scored), "B to A": (scored, calibrating)}.items():
            limit = between(*sides(one, unmet, value))
            honest, planted = sides(other, unmet, value)
            found[f"{name}, {way}"] = {
                "limit": limit,
                "plants that meet it": None if limit is None else sum(it >= limit for it in planted),
                "of": len(planted),
                "honest findings that do": None if limit is None else sum(it >= limit for it in honest),
            }
    return found


def sides(
    cases: Sequence[dict], unmet: str, value: Callable[[dict], float]
) -> tuple[list[float], list[float]]:
    """The values of honest findings and of used plants' that meet every other requirement."""
    honest, planted = [], []
    for case in cases:
        for it in case["findings"]:
            if it["evidence"].get("candidate") and not set(it["evidence"]["unmet"]) - {unmet}:
                side = planted if it["purity"] >= 0.5 and not case["control"] else honest
                side.append(value(it))
    return honest, planted


def between(honest: Sequence[float], planted: Sequence[float]) -> float | None:
    """Half way from the strongest honest finding (nothing at all counts as 0.01) to the weakest plant."""
    return round(math.sqrt(max([0.01, *honest]) * min(planted)), 3) if planted else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run the cases whose name begins with this")
    parser.add_argument("--data", type=Path, default=FASHION)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spray-strategies")
    parser.add_argument("--images", type=int, default=60_000, help="use so many of the images")
    parser.add_argument("--workers", type=int, default=1, help="cases at a time")
    parser.add_argument("--json", action="store_true", help="all findings of all cases, too")
    options = parser.parse_args()
    chosen = [case for case in (*GRID, *FRESH) if case.name.startswith(options.only)]
    given = (options.data, options.images, options.cache)
    cases = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(examined, chosen, *map(repeat, given)):
            cases.append(found)
            print(found["case"], f"{found['cpu_seconds']} s", file=sys.stderr, flush=True)
    sets = {
        "B, scored": [it for it in cases if not calibrates(it)],
        "A, calibrated on": [it for it in cases if calibrates(it)],
        "all": cases,
    }
    result = {name: table(chosen) for name, chosen in sets.items()}
    result["chosen anew"] = anew(sets["A, calibrated on"], sets["B, scored"])
    print(json.dumps(result | ({"cases": cases} if options.json else {}), indent=1))


if __name__ == "__main__":
    main()
