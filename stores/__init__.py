"""The store is the contract between compute and presentation: what an audit found, in one Zarr v3 root.

``create`` or ``open`` a run; its tables hold one row per sample, its analyses one record per class, its
verdicts what humans decided. The format itself is stated in SCHEMA.md.
"""

from stores import synthetic
from stores.analyses import AnalysisHandle
from stores.analysis import ALL_CLASSES, Clustering, Finding, GroupAnalysis
from stores.audit import check
from stores.errors import Damaged, NotAStore, StoreBusy, StoreError, Uncommitted, UnknownVersion
from stores.names import safe_key
from stores.problems import Problem
from stores.provenance import TUNING, Provenance, canonical_json, describe, to_json
from stores.run import Run, create, open
from stores.schema import VERSION, Column, relevance_columns, sample_columns
from stores.tables import Table
from stores.verdicts import Verdict, members_digest

__all__ = [
    "ALL_CLASSES",
    "TUNING",
    "VERSION",
    "AnalysisHandle",
    "Clustering",
    "Column",
    "Damaged",
    "Finding",
    "GroupAnalysis",
    "NotAStore",
    "Problem",
    "Provenance",
    "Run",
    "StoreBusy",
    "StoreError",
    "Table",
    "Uncommitted",
    "UnknownVersion",
    "Verdict",
    "canonical_json",
    "check",
    "create",
    "describe",
    "members_digest",
    "open",
    "relevance_columns",
    "safe_key",
    "sample_columns",
    "synthetic",
    "to_json",
]
