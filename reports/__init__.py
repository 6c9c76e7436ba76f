"""Reports of an audit: one offline HTML file in which a human sees, decides and signs.

``build`` writes the report of a store (``write`` also says in which form, and why); ``ReportModel`` is what it
tells, as pure data. None of it needs torch.
"""

from __future__ import annotations

from reports.build import Written, build, write
from reports.model import ReportModel

__all__ = ["ReportModel", "Written", "build", "write"]
