"""Rules of relevance propagation, one family per file; ``RULES`` names them all."""

from spray.engine.rules.alphabeta import AlphaBeta, ZPlus
from spray.engine.rules.base import LinearRule, QuotientRule, RelevanceRule, Rule
from spray.engine.rules.box import Box
from spray.engine.rules.epsilon import Epsilon, Zero
from spray.engine.rules.gamma import Gamma
from spray.engine.rules.identity import Norm, Pass
from spray.engine.rules.uniform import Flat, WSquare

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
    "LinearRule",
    "Norm",
    "Pass",
    "QuotientRule",
    "RelevanceRule",
    "Rule",
    "WSquare",
    "ZPlus",
    "Zero",
]
