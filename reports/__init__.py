"""Reports of an audit: what a human sees, decides and signs. Nothing here needs torch.

``build`` writes the report of a store as HTML (``write`` also says in which form, and why), ``serve`` shows
it from the store itself, ``plot_embedding``, ``plot_spectrum`` and ``plot_cluster`` are figures for
notebooks, where the path that ``build`` returns is the whole report. ``write_comparison`` puts two audits side by side.
``ReportModel`` is what reports tell, as pure data; ``merge`` and its kind handle verdicts.
"""

from __future__ import annotations

from typing import Any

from reports.carriers import Written, build, write
from reports.compare import write_comparison
from reports.inline import Inline, ReportPath
from reports.model import ReportModel
from reports.notebook import plot_cluster, plot_embedding, plot_spectrum
from reports.verdicts import (
    VerdictFile,
    VerdictFileError,
    add_to_store,
    file_text,
    merge,
    read_file,
    write_file,
)

__all__ = [
    "Inline",
    "ReportModel",
    "ReportPath",
    "VerdictFile",
    "VerdictFileError",
    "Written",
    "add_to_store",
    "build",
    "file_text",
    "merge",
    "plot_cluster",
    "plot_embedding",
    "plot_spectrum",
    "read_file",
    "serve",
    "write",
    "write_comparison",
    "write_file",
]


def serve(run_path: Any, **options: Any) -> None:
    """Serve the report of a store until interrupted; options as of ``reports.server.start``."""
    from reports.server import serve as run_server

    run_server(run_path, **options)
