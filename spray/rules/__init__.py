"""Rules of relevance propagation, one family per file; ``RULES`` names them all."""

from spray.rules.alphabeta import AlphaBeta, ZPlus
from spray.rules.base import QuotientRule, RelevanceRule, Rule
from spray.rules.box import Box
from spray.rules.epsilon import Epsilon, Zero
from spray.rules.gamma import Gamma
from spray.rules.identity import Norm, Pass
from spray.rules.uniform import Flat, WSquare

RULES: dict[str, type[Rule]] = {
    rule.name: rule for rule in (Zero, Epsilon, Gamma, ZPlus, AlphaBeta, Box, WSquare, Flat, Pass, Norm)
}

__all__ = [
    "RULES",
    "AlphaBeta",
    "Box",
    "Epsilon",
    "Flat",
    "Gamma",
    "Norm",
    "Pass",
    "QuotientRule",
    "RelevanceRule",
    "Rule",
    "WSquare",
    "ZPlus",
    "Zero",
]
