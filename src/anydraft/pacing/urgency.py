"""Urgency: what a token of one row of a batch is worth beside one of the others.

A batch is done when its slowest row is. A token that a row gains while others are behind makes no pass superfluous; it
only lets the row leave earlier, which makes the passes after that a little cheaper. So the tokens of a row count as
much as it is likely to be the last one, and besides as much as the pass is its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from anydraft.row import Row

PASSES = 16.0
"""Passes in which a row is taken to have been as fast as the whole batch, before its own count."""

RUN, SLIGHT = 6.0, 0.02
"""Tokens that come together where drafts are right: so uneven are passes. And tokens beyond one that a pass brings at
least, as far as nobody knows."""

CHANGE = 1.0
"""Share of what a row gains by drafts that may change: a text begins to repeat itself, or stops."""


def urgency(rows: Sequence[Row], own: float) -> list[float]:
    """What a token of each row is worth, 1 on average.

    Args:
        own: share of a plain pass that grows with its rows.
    """
    count = len(rows)
    if count == 1:
        return [1.0]
    tokens, passes = sum(row.position for row in rows), sum(row.stats.num_passes for row in rows)
    whole = max(1.0, tokens / passes) if passes else 1.0
    # Passes until it is done, by row.
    ahead = [row.remaining * (row.stats.num_passes + PASSES) / (row.position + whole * PASSES) for row in rows]
    longest = max(ahead)
    uneven = RUN * max(whole - 1, SLIGHT) * longest / whole**2
    changing = CHANGE * (1 - 1 / whole) * longest
    # Of two such rows the later one is told by a logistic curve, as wide as the difference of two normal values.
    spread = math.sqrt(6) / math.pi * math.sqrt(uneven + changing**2)
    last = [math.exp((each - longest) / spread) for each in ahead]
    share = (1 - own) * count / sum(last)
    return [own + share * likely for likely in last]
