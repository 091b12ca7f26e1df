"""What a drafter's word is worth: how often a token of a stated probability, at a depth, is what the target chooses.

A drafter scores its tokens with its own confidence. Here that is corrected by what was seen: per depth and confidence
the share of tokens that were kept, of those whose parents were kept. A drafter that is sure and wrong loses its credit
within a few drafts; one that is modest and right gains it. A row's own luck is a factor on top.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from anydraft.tree import DraftTree

CONFIDENCES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.75, 0.85, 0.93, 0.98)
DEPTHS = (1, 2, 4, 8)
UNSCORED = 0.5
"""The confidence of a drafter that states none."""

PRIOR = 4.0
MEMORY = 80.0
"""Observations after which older ones fade."""

SURE = 0.995


@dataclass
class Share:
    """A decayed count of trials and hits."""

    trials: float = 0.0
    hits: float = 0.0

    def add(self, hit: float) -> None:
        """Count one more."""
        keep = 1 - 1 / MEMORY
        self.trials = self.trials * keep + 1
        self.hits = self.hits * keep + hit

    def of(self, prior: float, weight: float = PRIOR) -> float:
        """The share of hits, with a prior of some weight."""
        return (self.hits + weight * prior) / (self.trials + weight)


@dataclass
class Luck:
    """What a row made of its drafts, against what was expected of them."""

    hits: float = 3.0
    expected: float = 3.0

    def add(self, hits: float, expected: float) -> None:
        """Count one draft."""
        self.hits = 0.85 * self.hits + hits + 0.45
        self.expected = 0.85 * self.expected + expected + 0.45

    @property
    def factor(self) -> float:
        """By which probabilities are corrected."""
        return min(max(self.hits / self.expected, 0.2), 1.25)


@dataclass
class Belief:
    """The credit of one drafter under one kind of sampling."""

    cells: dict[tuple[int, int], Share] = field(default_factory=dict)
    columns: dict[int, Share] = field(default_factory=dict)
    stated: Share = field(default_factory=Share)
    found: Share = field(default_factory=Share)

    def probabilities(self, tree: DraftTree, luck: float = 1.0) -> list[float]:
        """For each node the probability that the target's path goes through it; siblings together at most `SURE`."""
        parents = tree.parents
        together: dict[int, float] = {}
        chances = [0.0] * len(parents)
        for node, parent in enumerate(parents):
            column, row, stated = _place(tree, node)
            chance = chances[node] = min(self._chance(column, row, stated) * luck, SURE)
            together[parent] = together.get(parent, 0.0) + chance
        for node, parent in enumerate(parents):
            if together[parent] > SURE:
                chances[node] *= SURE / together[parent]
            if parent >= 0:
                chances[node] *= chances[parent]
        return chances

    def observe(self, tree: DraftTree, accepted: Sequence[int], luck: Luck) -> None:
        """Learn from one verified draft: every child of a node that was kept was right or wrong."""
        kept = {-1, *accepted}
        expected = 0.0
        stated_below: dict[int, float] = {}
        for node, parent in enumerate(tree.parents):
            if parent not in kept:
                continue
            column, row, stated = _place(tree, node)
            expected += self._chance(column, row, stated)
            self.cells.setdefault((column, row), Share()).add(node in kept)
            self.columns.setdefault(column, Share()).add(node in kept)
            stated_below[parent] = min(stated_below.get(parent, 0.0) + stated, SURE)
        luck.add(len(accepted), expected)
        found = {tree.parents[node] for node in accepted}
        for parent, stated in stated_below.items():
            self.stated.add(stated)
            self.found.add(parent in found)

    def _chance(self, column: int, row: int, stated: float) -> float:
        """The chance that a node is kept if its parent is."""
        of_column = self.columns.get(column)
        chance = stated if of_column is None else of_column.of(stated)
        cell = self.cells.get((column, row))
        return chance if cell is None else cell.of(chance)

    def as_stated(self, mass: float) -> float:
        """What the drafter says a chance of getting somewhere is when it really is `mass`.

        Both fall by a factor a level, so that one is a power of the other.
        """
        if mass >= 1:
            return mass
        stated, found = (min(max(share.of(0.7), 0.01), 0.99) for share in (self.stated, self.found))
        power = min(max(math.log(stated) / math.log(found), 0.5), 3.0)
        return math.exp(power * math.log(max(mass, 1e-6)))


def _place(tree: DraftTree, node: int) -> tuple[int, int, float]:
    """Column (confidence) and row (depth) of a node, and its stated probability given its parent."""
    stated = UNSCORED
    if tree.scores is not None:
        parent = tree.parents[node]
        above = tree.scores[parent] if parent >= 0 else 0.0
        stated = math.exp(min(tree.scores[node] - above, 0.0))
    return bisect_right(CONFIDENCES, stated), bisect_right(DEPTHS, tree.depths[node]), stated
