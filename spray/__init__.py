"""SpRAy: Spectral Relevance Analysis. Which strategies does a classifier use, and is one of them a Clever Hans?

    import spray
    relevance = spray.attribute(model, images, targets)      # maps like the inputs, by LRP
    audit = spray.audit(model, dataset, out="audit.zarr")    # relevance, strategies, proof
    audit.report("report.html")

Names are imported when they are first used: ``import spray`` loads neither torch nor bokeh.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spray.analysis import Analysis, analyze
    from spray.attribution import Attribution, attribute_dataset
    from spray.comparison import compare
    from spray.correction import Corrected, correct
    from spray.engine import Explainer, Explanation, attribute, explain
    from spray.findings import Findings, find
    from spray.workflow import Audit, audit, open_audit

_HOMES = {
    "Analysis": "spray.analysis",
    "analyze": "spray.analysis",
    "Attribution": "spray.attribution",
    "attribute_dataset": "spray.attribution",
    "compare": "spray.comparison",
    "Corrected": "spray.correction",
    "correct": "spray.correction",
    "Explainer": "spray.engine",
    "Explanation": "spray.engine",
    "attribute": "spray.engine",
    "explain": "spray.engine",
    "Findings": "spray.findings",
    "find": "spray.findings",
    "Audit": "spray.workflow",
    "audit": "spray.workflow",
    "open_audit": "spray.workflow",
}

__all__ = [
    "Analysis",
    "Attribution",
    "Audit",
    "Corrected",
    "Explainer",
    "Explanation",
    "Findings",
    "analyze",
    "attribute",
    "attribute_dataset",
    "audit",
    "compare",
    "correct",
    "explain",
    "find",
    "open_audit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'spray' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
