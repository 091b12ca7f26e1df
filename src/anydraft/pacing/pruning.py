"""Which nodes of given drafts are worth verifying: those whose chance pays for the time that they add to the pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anydraft.pacing.times import EDGES


def worth(
    chances: Sequence[Sequence[float]], rate: float, seconds: Callable[[int], float], least: int = 1
) -> tuple[int, float]:
    """The best width of a pass over several rows, and the tokens expected of it beyond one per row.

    Args:
        chances: per row the probabilities of its nodes.
        rate: tokens per second, of all rows, that are had anyway: what a second is worth.
        seconds: of a pass by width.
        least: smallest width.
    """
    ordered = [sorted(row, reverse=True) for row in chances]
    longest = 1 + max((len(row) for row in ordered), default=0)
    best, best_score, best_tokens = 1, float("-inf"), 0.0
    for width in [*(place for place in EDGES if place < longest), longest]:
        tokens = sum(sum(row[: width - 1]) for row in ordered)
        score = tokens - rate * seconds(width)
        if width >= min(least, longest) and score > best_score:
            best, best_score, best_tokens = width, score, tokens
    return best, best_tokens


def kept(chances: Sequence[float], width: int) -> list[int]:
    """The likeliest nodes that fit a width, root included; ascending, closed under ancestors.

    A node's chance is below its parent's, so that the likeliest nodes hold their ancestors.
    """
    order = sorted(range(len(chances)), key=lambda node: (-chances[node], node))
    return sorted(order[: width - 1])
