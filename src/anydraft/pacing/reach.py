"""Reach: how often one more level of a draft brought something, by what the drafter said of getting there.

Before each level a drafter states the probability that the target's path is among the nodes from which it goes on
(`DraftTree.masses`). Whether the level then held a token that the target chose is seen when the draft is verified. So
where a draft should end is learned: where a level, at its time, no longer brings what its time is worth. Nothing is
assumed of how honest the drafter is, or how many of its branches are followed.
"""

from __future__ import annotations

from bisect import bisect_right

from anydraft.tree import DraftTree

MASSES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
GOING_ON = 0.8
"""Guessed share of what is stated that a level brings, before any was seen."""

GUESS = 3.0
"""What the neighbouring masses say counts like so much mass."""

FADING = 0.99
"""What a level counts after the next."""

LEAST = 0.01


class Reach:
    """Levels that brought a token, by stated mass."""

    def __init__(self) -> None:
        self._masses = [0.0] * (len(MASSES) + 1)
        self._hits = [0.0] * (len(MASSES) + 1)

    def observe(self, tree: DraftTree, depth: int, accepted: int) -> None:
        """Learn from a verified draft.

        Args:
            tree: what was verified.
            depth: of the draft before anything was left out of it.
            accepted: tokens kept.
        """
        verified = tree.depth
        for level in range(1, len(tree.masses)):
            if verified <= level < depth:
                break  # left out, so that nobody knows
            cell = bisect_right(MASSES, tree.masses[level])
            self._masses[cell] = FADING * self._masses[cell] + tree.masses[level]
            self._hits[cell] = FADING * self._hits[cell] + (accepted > level)

    def least_mass(self, hits: float) -> float:
        """The stated mass down to which a level brings something at least this often; above 1 where none does."""
        share, bound = GOING_ON, 1.0
        for cell in range(len(MASSES), -1, -1):
            lowest = MASSES[cell - 1] if cell else 0.0
            share = (self._hits[cell] + GUESS * share) / (self._masses[cell] + GUESS)
            enough = hits / max(share, 1e-3)
            if enough > bound:
                return min(enough, bound) if cell < len(MASSES) else enough
            if enough > lowest:
                return max(enough, LEAST)
            bound = lowest
        return LEAST
