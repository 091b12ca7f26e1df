"""What a drafter's word is worth: how often a token of a stated probability, at a depth, is what the target chooses.

A drafter scores its tokens with its own confidence. Here that is corrected by what was seen: per depth and confidence
the share of tokens that were kept, of those whose parents were kept. A drafter that is sure and wrong loses its credit
within a few drafts; one that is modest and right gains it. A row's own luck is a factor on top.

This runs between passes of the model, where Python is slow, so the correction of a cell is kept as a line: the chance
is a + b x what was stated.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from anydraft.tree import DraftTree

CONFIDENCES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.75, 0.85, 0.93, 0.98)
DEPTHS = (1, 2, 4, 8)
UNSCORED = 0.5
"""The confidence of a drafter that states none."""

PRIOR = 4.0
MEMORY = 80.0
"""Observations after which older ones fade."""

SURE = 0.995

_ROWS = len(DEPTHS) + 1
_ROW = tuple(bisect_right(DEPTHS, depth) for depth in range(DEPTHS[-1] + 1))


@dataclass(slots=True)
class Share:
    """A decayed count of trials and hits."""

    trials: float = 0.0
    hits: float = 0.0

    def add(self, hit: float) -> None:
        """Count one more."""
        keep = 1 - 1 / MEMORY
        self.trials = self.trials * keep + 1
        self.hits = self.hits * keep + hit

    def on(self, line: tuple[float, float]) -> tuple[float, float]:
        """The share of hits with a prior, which is a line and stays one."""
        weight = self.trials + PRIOR
        return (self.hits + PRIOR * line[0]) / weight, PRIOR * line[1] / weight


@dataclass(slots=True)
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


class Belief:
    """The credit of one drafter under one kind of sampling."""

    def __init__(self) -> None:
        columns = range(len(CONFIDENCES) + 1)
        self._columns = [Share() for _ in columns]
        self._cells = [[Share() for _ in range(_ROWS)] for _ in columns]
        self._lines: list[list[tuple[float, float]] | None] = [None for _ in columns]

    def probabilities(self, tree: DraftTree, luck: float = 1.0, least: float = 0.0) -> list[float]:
        """For each node the probability that the target's path goes through it; siblings together at most `SURE`.

        Args:
            luck: a factor on every token's chance.
            least: what follows a node of no more than this counts as 0.
        """
        parents, scores, depths = tree.parents, tree.scores, tree.depths
        chances = [0.0] * len(parents)
        paths = [0.0] * len(parents)
        together: dict[int, float] = {}
        crowded = False
        for node, parent in enumerate(parents):
            path = paths[parent] if parent >= 0 else 1.0
            if path <= least:
                continue
            constant, slope, stated, _ = self._line(scores, node, parent, depths[node])
            chance = (constant + slope * stated) * luck
            chances[node] = chance = min(chance, SURE)
            paths[node] = path * chance
            if parent in together:
                together[parent] += chance
                crowded = crowded or together[parent] > SURE
            else:
                together[parent] = chance
        if not crowded:
            return paths
        for node, parent in enumerate(parents):
            if chances[node]:
                share = SURE / together[parent] if together[parent] > SURE else 1.0
                chances[node] *= share * (chances[parent] if parent >= 0 else 1.0)
        return chances

    def observe(
        self, tree: DraftTree, accepted: Sequence[int], luck: Luck | None = None, depth: int | None = None
    ) -> None:
        """Learn from one draft: every child of a node that was kept was right or wrong.

        Args:
            tree: the draft; accepted: its nodes that the target chose; luck: the row's, which learns, too.
            depth: down to which it is known what the target chose; by default all of it.
        """
        kept = {-1, *accepted}
        expected = 0.0
        scores, depths = tree.scores, tree.depths
        for node, parent in enumerate(tree.parents):
            if parent not in kept or (depth is not None and depths[node] > depth):
                continue
            constant, slope, stated, column = self._line(scores, node, parent, depths[node])
            expected += constant + slope * stated
            hit = node in kept
            self._cells[column][_row(depths[node])].add(hit)
            self._columns[column].add(hit)
            self._lines[column] = None
        if luck is not None:
            luck.add(len(accepted), expected)

    def _line(
        self, scores: tuple[float, ...] | None, node: int, parent: int, depth: int
    ) -> tuple[float, float, float, int]:
        """The correction for a node, its stated probability given its parent, and that one's place in `CONFIDENCES`."""
        stated = UNSCORED
        if scores is not None:
            step = scores[node] - scores[parent] if parent >= 0 else scores[node]
            stated = math.exp(step) if step < 0 else 1.0
        column = bisect_right(CONFIDENCES, stated)
        constant, slope = (self._lines[column] or self._worked_out(column))[_row(depth)]
        return constant, slope, stated, column

    def _worked_out(self, column: int) -> list[tuple[float, float]]:
        of_column = self._columns[column].on((0.0, 1.0)) if self._columns[column].trials else (0.0, 1.0)
        lines = [cell.on(of_column) if cell.trials else of_column for cell in self._cells[column]]
        self._lines[column] = lines
        return lines


def _row(depth: int) -> int:
    return _ROW[depth] if depth < len(_ROW) else _ROWS - 1
