"""From clusters to findings: merged, proved by intervention, scored, ranked and put into words.

From the top: `stage` (all classes of an analysis) over `strategies` (pieces merged by their `regions`), `verification`
(with `interventions`, `prediction`, `effects` and `membership`), `scores`, `suspicion` and `words`.
"""

from spray.findings.stage import Findings, MismatchError, find

__all__ = ["Findings", "MismatchError", "find"]
