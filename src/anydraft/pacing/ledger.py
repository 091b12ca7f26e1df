"""Ledger: what was lost so far, in passes of plain decoding, and whether more may be risked.

A step that brings less than its time is worth is a loss, one that brings more a gain. Every step pays back a small
share of its time. So over any long stretch what is entered here stays below that share, whatever the drafters do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Ledger:
    """Losses in plain passes.

    Attributes:
        share: of the time that may be lost.
        bank: most that gains are remembered for; worst: most that losses are.
        debt: losses not yet paid back; negative when there are gains in hand.
    """

    share: float
    bank: float = 0.0
    worst: float = math.inf
    debt: float = 0.0

    def passed(self, passes: float) -> None:
        """Time went by."""
        self._add(-self.share * passes)

    def lost(self, passes: float) -> None:
        """A loss, or if negative a gain."""
        self._add(passes)

    def allows(self, passes: float, most: float = 1.0) -> bool:
        """Whether so much may be risked: once all is paid back anything, else no more than `most` in all."""
        return self.debt <= 0 or self.debt + passes <= most

    def _add(self, passes: float) -> None:
        self.debt = min(max(self.debt + passes, -self.bank), self.worst)
