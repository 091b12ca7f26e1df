"""Ledger: what was lost so far, in passes of plain decoding, and whether more may be risked.

A step that takes longer than plain decoding would have for the same tokens is a loss, a faster one a gain. Every token
pays back a small share. So over any long stretch the losses stay below that share, whatever the drafters do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Ledger:
    """Losses in plain passes.

    Attributes:
        share: of the time that may be lost.
        bank: most that gains are remembered for.
        debt: losses not yet paid back; negative when there are gains in hand.
    """

    share: float
    bank: float = 0.0
    debt: float = 0.0

    def tokens(self, count: float) -> None:
        """Tokens were committed."""
        self._add(-self.share * count)

    def lost(self, passes: float) -> None:
        """A loss, or if negative a gain."""
        self._add(passes)

    def allows(self, passes: float) -> bool:
        """Whether so much may be risked: once all is paid back anything, else no more than one pass in all."""
        return self.debt <= 0 or self.debt + passes <= 1

    def _add(self, passes: float) -> None:
        self.debt = max(self.debt + passes, -self.bank)
