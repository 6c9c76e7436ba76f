"""Relevance of a whole data set, into the store.

From the top: `launch` (clusters) and `cluster` (attribution on their workers) over `dataset` (in this process, or a
share of the work), over `stage` (whole shards), over `passes` (a block, for every target, halved where `memory` runs
out), `records` (what is stored of a block), `tables`, `pooling` and `display`; `step` says what is computed, `targets`
for which classes, and `circumstances` what else may change the last bits.
"""

from spray.attribution.dataset import attribute_dataset, attribute_share
from spray.attribution.step import Attribution

__all__ = ["Attribution", "attribute_dataset", "attribute_share"]
