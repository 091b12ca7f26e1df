"""Frailty: how much sooner, or later, the right paths of one row end than those of others.

A path is taken for something that may end at every level with a hazard, the negative logarithm of the chance that it
goes on. A row's frailty is a factor on all its hazards: the ends of its recent paths, over what was to be expected of
them. It knows how far 0.96 is from 0.99, which a factor on chances does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FADING = 0.9
"""What a draft of a row counts after the next."""

FRAIL = 1.0
"""Ends that the factor of a row rests on before any was seen."""


@dataclass(slots=True)
class Frailty:
    """Paths of one row, or of all, that ended, and the ends that were to be expected of what they had survived.

    Attributes:
        fading: what a draft counts after the next.
    """

    ends: float = 0.0
    expected: float = 0.0
    fading: float = FADING

    def factor(self, usual: float = 1.0) -> float:
        """By which hazards differ from those that were expected.

        Args:
            usual: of a row that is not known yet.
        """
        return (self.ends + FRAIL) / (self.expected + FRAIL / usual)

    def observe(self, hazards: Sequence[float], *, ended: bool) -> None:
        """Count one draft.

        Args:
            hazards: of the levels that were looked at.
            ended: whether the path ended at the last of them.
        """
        expected = sum(hazards)
        if ended:
            expected -= hazards[-1] * (1 - survived(hazards[-1]))
        self.ends = self.fading * self.ends + ended
        self.expected = self.fading * self.expected + expected


def survived(hazard: float) -> float:
    """Share of a level that a path which ends there has survived, on average."""
    return 0.5 - hazard / 12 if hazard < 0.1 else 1 / hazard - 1 / math.expm1(min(hazard, 50.0))
