"""Reports of an audit: one offline HTML file in which a human sees, decides and signs.

``build`` writes the report of a store; ``ReportModel`` is what it tells, as pure data. Neither needs torch.
"""

from __future__ import annotations

from reports.build import build
from reports.model import ReportModel

__all__ = ["ReportModel", "build"]
