"""Sides: how often the right path leaves the likeliest one of a draft, against what the drafter says of that.

A level of a draft goes on from its likeliest node, and from others beside it that are worth their time. What those
others are worth is not what the drafter states: in a text that repeats itself a modest drafter's likeliest token is
nearly always right. So it is learned from verified drafts, of chains too, if tokens beside them are verified.
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
        """Learn from a verified draft: at every node that was kept, whether it was the likeliest of its siblings."""
        scores, parent = tree.scores, -1
        if scores is None or not accepted or tree.is_chain:
            return
        self.seen *= FADING
        self.stated *= FADING
        for node in accepted:
            siblings = [scores[child] for child in tree.children[parent].values()]
            likeliest = max(siblings)
            if not math.isfinite(likeliest):
                return
            self.stated += 1 - 1 / sum(math.exp(score - likeliest) for score in siblings)
            self.seen += scores[node] < likeliest
            parent = node
