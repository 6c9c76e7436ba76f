"""From clusters to findings: merged, proved by intervention, scored, ranked and put into words.

From the top: `stage` (all classes of an analysis; what follows from many tests) over `class_findings` (one class) and
`words`; `step` (the parameters); `scores` and `suspicion` (the rank); `verification` (the proof); `strategies` (pieces
merged), refined by the relevance in their `regions` or `channels` (`refinement`) and by what the images show there
(`contents` over `robust_mixture`, `separation` and `sameness`); `discriminant` (lines and modes), `halves`; `subject`
(the model and data at hand), `outcomes` (the run), `display`.
"""

from spray.findings.stage import find
from spray.findings.step import Findings
from spray.findings.subject import MismatchError
from spray.findings.suspicion import OwnRank, Ranking, Weighted

__all__ = ["Findings", "MismatchError", "OwnRank", "Ranking", "Weighted", "find"]
