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

LEAST_SPARED = 0.25
"""Share of what its tokens are worth that a row saves at least, however many are abreast."""

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


def spared(rows: Sequence[Row], urgency: Sequence[float], own: float) -> float:
    """Share of what their tokens are worth that rows save which are abreast, by drafts that come now and then.

    Of several rows that may be the last, what one gains that the others do not makes no pass superfluous. Of n rows
    that gain m tokens each, by runs of `RUN`, the slowest gains less by about log2(n) / 2 standard deviations,
    sqrt(m RUN). So where each gains one more, that much less than one is saved.

    Args:
        urgency: as above; own: share of a plain pass that grows with its rows.
    """
    if len(rows) == 1 or any(row.stops for row in rows):
        return 1.0  # nobody knows which of them will be the last
    tokens, passes = sum(row.position for row in rows), sum(row.stats.num_passes for row in rows)
    gain = max((tokens / passes if passes else 1.0) - 1, SLIGHT)
    gained = gain * max(row.remaining for row in rows) / (1 + gain)
    abreast = sum(urgency) ** 2 / sum(each * each for each in urgency)
    lost = 0.25 * math.log2(abreast) * math.sqrt(RUN / max(gained, 1.0))
    return own + (1 - own) * max(1 - lost, LEAST_SPARED)
