"""Which nodes of given drafts are worth verifying: those that pay for the time that they add to the pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, zip_longest

from anydraft.pacing.times import EDGES


def worth(
    chances: Sequence[Sequence[float]], rate: float, ratios: Sequence[float], least: int = 1
) -> tuple[int, float, float]:
    """The best width of a pass over several rows: the one with the most tokens, less what its time is worth.

    Args:
        chances: per row what its nodes are worth: their probabilities, times what a token is worth at their depth.
        rate: what the time of a pass of one node is worth, in tokens of all rows.
        ratios: by edge (`EDGES`), the time of a pass over that of a pass of one node.
        least: smallest width.

    Returns:
        the width, what its nodes are worth, and that less what its time is worth.
    """
    descending = [sorted(filter(None, row), reverse=True) for row in chances]
    columns = descending[0] if len(descending) == 1 else map(sum, zip_longest(*descending, fillvalue=0.0))
    sums = [0.0, *accumulate(columns)]  # by width - 1
    longest = len(sums)
    least = min(least, longest)
    best, most = (1, 0.0), float("-inf")
    for place, ratio in zip(EDGES, ratios, strict=True):
        width = min(place, longest)
        if width >= least:
            tokens = sums[width - 1]
            value = tokens - rate * ratio
            if value > most:
                best, most = (width, tokens), value
        if place >= longest:
            break
    return *best, most


def kept(chances: Sequence[float], width: int) -> list[int]:
    """The likeliest nodes that fit a width, root included; ascending, closed under ancestors.

    A node's chance is below its parent's, and deeper tokens are worth no more, so the likeliest hold their ancestors.
    """
    order = sorted(range(len(chances)), key=chances.__getitem__, reverse=True)  # of equal ones the elder comes first
    return sorted(order[: width - 1])
