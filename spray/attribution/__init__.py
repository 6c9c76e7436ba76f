"""Relevance of a whole data set, into the store.

From the top: `dataset` (in this process or on a cluster) over `cluster` and `stage`, which share `records` (what is
stored of a block), `pooling` and `display`.
"""

from spray.attribution.dataset import Attribution, attribute_dataset

__all__ = ["Attribution", "attribute_dataset"]
