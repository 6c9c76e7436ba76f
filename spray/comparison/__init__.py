"""Two audits side by side: which strategies vanished, appeared, moved or stayed, and what became of each class.

``compare`` (`stage`) reads two stores, each an `audited` side; `classes` says which class is which, `matching` which
strategy, by common members where the samples are the same, by regions and mean maps where they are not; `settings`
what else than model and data differs. The result, ``stores.comparison.Comparison``, is plain data.
"""

from spray.comparison.audited import ComparisonError
from spray.comparison.matching import Matching
from spray.comparison.stage import compare

__all__ = ["ComparisonError", "Matching", "compare"]
