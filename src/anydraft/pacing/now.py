"""Now: the step at hand as a pacing weighs it, with what its time and its tokens are worth."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from anydraft.pacing import pruning
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.serving import EVEN, Gap
from anydraft.pacing.times import EDGES
from anydraft.pacing.urgency import spared, urgency
from anydraft.row import Row

NARROW = 8.0
"""Width about which the time of one more node is looked for at least: that two may take much longer than one says
nothing of a third."""


class Free(NamedTuple):
    """What free drafters have: per row the worth of the tokens that are expected, and the width of a pass over them."""

    tokens: Sequence[float]
    width: int

    @classmethod
    def nothing(cls, rows: int) -> Free:
        """No draft that is worth verifying."""
        return cls([0.0] * rows, 1)


class Now(NamedTuple):
    """The step at hand: its rows, and what time is worth.

    Attributes:
        plain: seconds of a pass of one node.
        ratios: by edge, times of a pass over `plain`.
        worth: tokens of all rows that `plain` is worth.
        urgency: of each row, what its tokens are worth, 1 on average.
        gaps: of each row, what its tokens are worth by their place after the last one.
        spared: share of what the urgency says that drafts of now and then save.
    """

    rows: Sequence[Row]
    plain: float
    ratios: Sequence[float]
    worth: float
    urgency: Sequence[float]
    gaps: Sequence[Gap]
    spared: float = 1.0

    @classmethod
    def of(cls, known: Knowledge, rows: Sequence[Row]) -> Now:
        """What is known of it."""
        plain, ratios = known.times.table(len(rows))
        now = cls(rows, plain, ratios, len(rows) * known.serving(rows[0]).speed, (1.0,), (EVEN,) * len(rows))
        if len(rows) == 1:
            return now
        own = min(now.node(0.0), 1.0)
        urgent = urgency(rows, own)
        return now._replace(urgency=urgent, spared=spared(rows, urgent, own))

    def of_free(self) -> Now:
        """The same where drafts of free drafters are all that there is, which come now and then."""
        return self if self.spared == 1 else self._replace(urgency=[self.spared * each for each in self.urgency])

    @property
    def first(self) -> float:
        """What the tokens are worth that all rows get without any draft."""
        return sum(gap.own for gap in self.gaps)

    def in_gaps(self, gap: Gap, free: Free) -> Now:
        """The same with such a gap where nothing is expected of free drafts."""
        return self._replace(gaps=[EVEN if tokens else gap for tokens in free.tokens])

    def valued(self, chances: Sequence[list[float]]) -> Sequence[list[float]]:
        """What the nodes of each row are worth, by their chances."""
        if len(chances) == 1:
            return chances
        return [[urgent * chance for chance in row] for urgent, row in zip(self.urgency, chances, strict=True)]

    def best_width(self, chances: Sequence[list[float]]) -> tuple[int, float]:
        """Width of the pass over nodes worth so much that pays most, and what they are worth by the urgency of rows."""
        width, tokens, _ = pruning.worth(self.valued(chances), self.worth, self.ratios)
        return width, tokens

    def passes(self, width: float) -> float:
        """Time of passes in plain ones, which are so wide on average."""
        above = bisect_left(EDGES, width)
        if above == 0 or above == len(EDGES):
            return self.ratios[min(above, len(EDGES) - 1)]
        share = (width - EDGES[above - 1]) / (EDGES[above] - EDGES[above - 1])
        return self.ratios[above - 1] * (1 - share) + self.ratios[above] * share

    def node(self, width: float) -> float:
        """Time of one more node in a pass of about that width, in plain ones."""
        width = max(width, NARROW)
        return max(0.0, self.passes(2 * width) - self.passes(width / 2)) / (1.5 * width)
