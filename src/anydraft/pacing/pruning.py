"""Which nodes of given drafts are worth verifying: those whose chance pays for the time that they add to the pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from anydraft.pacing.times import EDGES


def worth(
    chances: Sequence[Sequence[float]], rate: float, ratios: Sequence[float], least: int = 1
) -> tuple[int, float, float]:
    """The best width of a pass over several rows: the one with the most tokens, less what its time is worth.

    Args:
        chances: per row the probabilities of its nodes.
        rate: what the time of a pass of one node is worth, in tokens of all rows.
        ratios: by edge (`EDGES`), the time of a pass over that of a pass of one node.
        least: smallest width.

    Returns:
        the width, the tokens expected of it beyond one per row, and its value beyond one token per row.
    """
    sums = [list(accumulate(sorted(filter(None, row), reverse=True))) for row in chances]
    longest = 1 + max(map(len, sums), default=0)
    least = min(least, longest)
    best = (1, 0.0, float("-inf"))
    for place, ratio in zip(EDGES, ratios, strict=True):
        width = min(place, longest)
        if width >= least:
            tokens = sum(row[min(width - 1, len(row)) - 1] for row in sums if row) if width > 1 else 0.0
            if tokens - rate * ratio > best[2]:
                best = width, tokens, tokens - rate * ratio
        if place >= longest:
            break
    return best


def kept(chances: Sequence[float], width: int) -> list[int]:
    """The likeliest nodes that fit a width, root included; ascending, closed under ancestors.

    A node's chance is below its parent's, so that the likeliest nodes hold their ancestors.
    """
    order = sorted(range(len(chances)), key=lambda node: (-chances[node], node))
    return sorted(order[: width - 1])
