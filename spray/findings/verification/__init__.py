"""Proof by intervention: is what a finding's members share necessary (removal) and sufficient (transplant)?

From the top: `testing` (all findings of a class; candidates on half A, tests on half B) and `membership`; `step` (the
parameters); `trial` (one candidate's interventions on one half) over `pairs`, `hosts` and `effects`; `evidence` (what
was shown, and what is required); `sites` (pixels, or channels of a layer) with `fills`; `judge` (the model) and
`significance`.
"""

from spray.findings.verification.classes import Candidate, ClassMaps
from spray.findings.verification.evidence import Evidence, Requirements
from spray.findings.verification.fills import FILLS
from spray.findings.verification.membership import completed
from spray.findings.verification.sites import SiteError
from spray.findings.verification.step import Verification
from spray.findings.verification.testing import verify

__all__ = [
    "FILLS",
    "Candidate",
    "ClassMaps",
    "Evidence",
    "Requirements",
    "SiteError",
    "Verification",
    "completed",
    "verify",
]
