"""Sides: how often the right path leaves the likeliest one of a draft, against what the drafter says of that.

A level of a draft goes on from its likeliest node, and from others beside it that are worth their time. What those
others are worth is not what the drafter states: in a text that repeats itself a modest drafter's likeliest token is
nearly always right. So it is learned from verified drafts, down to where the path left the likeliest nodes. It is seen
in chains, too, if tokens beside them are verified.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from anydraft.growth import SIDE
from anydraft.tree import DraftTree

STATED = 2.0
"""Departures that are believed to have been as stated before any was seen."""

FADING = 0.98
"""What a draft counts after the next."""


@dataclass(slots=True)
class Sides:
    """Departures from likeliest nodes, and how many were stated."""

    seen: float = STATED
    stated: float = STATED

    @property
    def share(self) -> float:
        """Of the least mass or the likeliest node's probability, what a node beside it needs to be gone on from."""
        return min(SIDE * self.stated / max(self.seen, 1e-9), 1.0)

    def observe(self, tree: DraftTree, accepted: Sequence[int]) -> None:
        """Learn from a verified draft: at every depth that was kept, whether the likeliest node was."""
        scores = tree.scores
        if scores is None or tree.is_chain or not accepted:
            return
        best, total = [-math.inf] * len(accepted), [0.0] * len(accepted)
        for score, depth in zip(scores, tree.depths, strict=True):
            if depth <= len(accepted):
                best[depth - 1] = max(best[depth - 1], score)
                total[depth - 1] += math.exp(score)
        self.seen *= FADING
        self.stated *= FADING
        for node, likeliest, all_of_them in zip(accepted, best, total, strict=True):
            self.stated += 1 - math.exp(likeliest) / all_of_them
            if scores[node] < likeliest:
                self.seen += 1
                break
