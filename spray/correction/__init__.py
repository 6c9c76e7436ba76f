"""Correcting a model of a shortcut that a finding showed, and measuring what that did.

From the top: `stage` (choice of the layer, correction, before and after) over `methods` (P-ClArC, A-ClArC, sample
removal, right for the right reasons) with `tuning`, and `outcome` (clean and attacked accuracy); below them `vectors`
(the artifact's direction over channels), `sites` (layers and their activations) and `material` (whose samples, and
their pixels). What is left in the model lies in `spray.insertion`; `saving` writes it.
"""

from spray.correction.errors import CorrectionError
from spray.correction.material import Splitting
from spray.correction.methods import CAV, CORRECTIONS
from spray.correction.saving import save
from spray.correction.stage import Corrected, correct, step_of
from spray.correction.vectors import CAVS

__all__ = [
    "CAV",
    "CAVS",
    "CORRECTIONS",
    "Corrected",
    "CorrectionError",
    "Splitting",
    "correct",
    "save",
    "step_of",
]
