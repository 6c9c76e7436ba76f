"""Correcting a model of a shortcut that a finding showed, and measuring what that did.

From the top: `stage` (what is fitted on and judged by, before and after) over `choice` (at which layer, by which
direction) and `methods` (P-ClArC, A-ClArC, sample removal, right for the right reasons) with `tuning`; below them
`directions` (the artifact's directions at a layer) over `vectors` (concept activation vectors), `outcome` (clean and
attacked accuracy), `sites` (layers and their activations), `axes` (where their channels are) and `material` (whose
samples, and their pixels). What is left in the model lies in `spray.insertion`; `saving` writes it.
"""

from spray.correction.directions import CAV
from spray.correction.errors import CorrectionError
from spray.correction.material import Splitting
from spray.correction.methods import CORRECTIONS, step_of
from spray.correction.saving import save
from spray.correction.stage import Corrected, correct
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
