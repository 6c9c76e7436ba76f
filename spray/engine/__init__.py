"""Relevance of a batch, by layer-wise relevance propagation, on models as they are.

From the top: `explainer` (forward, trace, backward, checks) over `backprop` (functions as gradients see them),
`methods` (any other method through the same door), `trace` (which operation made which value), `operations/` (the
backward pass of each) and `origins` (what is known of a value, and of a call); `composites` (which rule where) over
`rules/` (one family a file); `calls` and `layer` (a layer as a rule sees it) over `geometry`, `weights` and `ledger`;
`axes` (where samples are), `tokens` (where tokens come from) and `strides` (values in memory) at the bottom.
"""

from spray.engine.errors import AttributionError, BadInput, BadModel, UnsupportedOperation
from spray.engine.explainer import Explainer, Explanation, Start, attribute, explain
from spray.engine.preflight import Ranked

__all__ = [
    "AttributionError",
    "BadInput",
    "BadModel",
    "Explainer",
    "Explanation",
    "Ranked",
    "Start",
    "UnsupportedOperation",
    "attribute",
    "explain",
]
