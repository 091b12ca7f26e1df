"""Times of drafts, learned while decoding: by levels, and of reading prompts.

What is done for the first time may take several times as long (tables, kernels), and single measurements stray upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FEW, UNLIKELY = 6.0, 0.6
"""A draft that took less than this share of what was expected, when that rests on few drafts, makes them forgotten."""

FIXED, FIXED_AT_FIRST, SPREAD = 1.0, 0.5, 0.25
"""The fixed part of a draft in levels as long as nothing else is known, for levels of drafts varied no more (variance):
without any, long drafts would seem dearer than they are, and nobody would try one. Of the first few drafts, less."""

FADING, FADING_FIXED = 0.93, 0.99
"""What a draft counts after the next: for the time of a level, and for how many levels the fixed part is worth."""

SLOW = 1.5
"""Times what was expected that a slower draft counts at most; what it did besides, such as catching up, is left
out."""


class DraftTimes:
    """Seconds of a draft of one drafter, as a fixed part and one per level, for the number of rows at hand.

    How many levels the fixed part is worth is a matter of the drafter and learned from many drafts, by regression. How
    long a level takes at present, from few. Times that stray far count as if they strayed less. Of the first ones,
    which build tables and kernels, the quickest is believed.
    """

    def __init__(self) -> None:
        self._sums: dict[int, list[float]] = {}  # weight, levels, levels^2, seconds, levels x seconds
        self._recent: dict[int, list[float]] = {}  # weight, levels, seconds
        self._quickest: dict[int, float] = {}  # seconds of a level of the first drafts
        self._lines: dict[int, tuple[float, float]] = {}  # what follows from the sums, where it was asked for
        self._start: float | None = None
        self.starts = self.deepest = 0

    def observe(self, rows: int, levels: int, seconds: float) -> None:
        """Learn from one draft of so many levels (at least 1) for so many rows."""
        self.deepest = max(self.deepest, levels)
        expected = self.seconds(levels, rows) if rows in self._sums else None
        if expected is not None and self._sums[rows][0] < FEW and seconds < UNLIKELY * expected:
            del self._sums[rows], self._recent[rows]  # those before had tables to build
        elif expected is not None:
            seconds = min(seconds, SLOW * expected)
        if rows not in self._sums:
            self._sums[rows], self._recent[rows] = [0.0] * 5, [0.0] * 3
        if self._sums[rows][0] < FEW:
            self._quickest[rows] = min(self._quickest.get(rows, math.inf), seconds / (FIXED_AT_FIRST + levels))
        sums, recent = self._sums[rows], self._recent[rows]
        values = (1.0, levels, levels * levels, seconds, levels * seconds)
        sums[:] = [FADING_FIXED * before + value for before, value in zip(sums, values, strict=True)]
        recent[:] = [FADING * before + value for before, value in zip(recent, (1.0, levels, seconds), strict=True)]
        self._lines.clear()

    def forget(self) -> None:
        """Forget all drafts."""
        self._sums.clear()
        self._recent.clear()
        self._quickest.clear()
        self._lines.clear()

    def observe_start(self, seconds: float, tokens: int) -> None:
        """Learn what reading so many tokens of prompts takes; the first time may have built tables, too."""
        each = seconds / max(1, tokens)
        self.starts += 1
        if self._start is None or self.starts == 2:
            self._start = each if self._start is None else min(self._start, each)
        else:
            self._start += 0.3 * (min(each, 3 * self._start) - self._start)

    def start(self, tokens: int) -> float:
        """Expected seconds of reading so many tokens; 0 before the first prompt."""
        return (self._start or 0.0) * tokens

    def seconds(self, levels: float, rows: int) -> float | None:
        """Expected seconds of a draft; None before the first."""
        line = self._line(rows)
        return None if line is None else line[0] + line[1] * levels

    def step(self, rows: int) -> float | None:
        """Expected seconds of one more level; None before the first draft."""
        line = self._line(rows)
        return None if line is None else line[1]

    def _line(self, rows: int) -> tuple[float, float] | None:
        if not self._sums:
            return None
        line = self._lines.get(rows)
        if line is None:
            line = self._lines[rows] = self._fitted(rows)
        return line

    def _fitted(self, rows: int) -> tuple[float, float]:
        count = rows if rows in self._sums else min(self._sums, key=lambda count: abs(math.log(count / rows)))
        # How it grows with rows nobody knows: more than nothing, less than in proportion.
        grown = math.sqrt(max(1.0, rows / count))
        if self._sums[count][0] < FEW:
            step = grown * self._quickest[count]
            return FIXED_AT_FIRST * step, step
        fixed = self._fixed(self._sums[count])
        weight, levels, seconds = self._recent[count]
        step = grown * seconds / (levels + fixed * weight)
        return fixed * step, step

    @staticmethod
    def _fixed(sums: Sequence[float]) -> float:
        """The fixed part of a draft in levels."""
        weight, levels, squares, seconds, products = sums
        spread = squares / weight - (levels / weight) ** 2
        if spread < SPREAD or seconds <= 0:
            return FIXED
        mean = seconds / levels
        slope = (products / weight - levels * seconds / weight**2) / spread
        slope = min(max(slope, 0.25 * mean), mean)
        return (seconds / slope - levels) / weight
