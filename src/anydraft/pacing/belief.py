"""What a drafter's word is worth: how often a token of a stated probability, at a depth, is what the target chooses.

A drafter scores its tokens with its own confidence. Here that is corrected by what was seen: per depth and confidence
the share of tokens that were kept, of those whose parents were kept. A drafter that is sure and wrong loses its credit
within a few drafts; one that is modest and right gains it. How a row's paths differ from others' is its `frailty`.

This runs between passes of the model, where Python is slow, so the correction of a cell is kept as a line: the chance
is a + b x what was stated.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from anydraft.pacing.frailty import Frailty
from anydraft.tree import DraftTree

CONFIDENCES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.75, 0.85, 0.93, 0.98)
DEPTHS = (2, 4, 8)
"""Depths at which another row of cells begins; the first one is for depth 1."""
UNSCORED = 0.5
"""The confidence of a drafter that states none."""

PRIOR = 16.0
MEMORY = 160.0
"""Observations after which older ones fade."""

FADING_USUAL = 0.98
"""What a draft counts after the next where it is asked how much sooner than believed the paths of all rows end."""

LEAST, SURE = 1e-6, 0.995
"""Chances of siblings together that are believed."""

_KEEP = 1 - 1 / MEMORY
_ROWS, _DEEP = len(DEPTHS) + 1, DEPTHS[-1]
_ROW = tuple(bisect_right(DEPTHS, depth) for depth in range(_DEEP + 1))
"""By depth the row of cells; deeper ones have the last."""


@dataclass(slots=True)
class Share:
    """A decayed count of trials and hits."""

    trials: float = 0.0
    hits: float = 0.0

    def add(self, hit: float) -> None:
        """Count one more."""
        self.trials = self.trials * _KEEP + 1
        self.hits = self.hits * _KEEP + hit

    def on(self, line: tuple[float, float]) -> tuple[float, float]:
        """The share of hits with a prior, which is a line and stays one."""
        weight = self.trials + PRIOR
        return (self.hits + PRIOR * line[0]) / weight, PRIOR * line[1] / weight


class Belief:
    """The credit of one drafter under one kind of sampling."""

    def __init__(self) -> None:
        columns = range(len(CONFIDENCES) + 1)
        self._columns = [Share() for _ in columns]
        self._cells = [[Share() for _ in range(_ROWS)] for _ in columns]
        self._usual = Frailty(fading=FADING_USUAL)  # of all rows
        self._lines: list[list[tuple[float, float] | None]] = [[None] * _ROWS for _ in columns]

    def probabilities(self, tree: DraftTree, frailty: float = 1.0, least: float = 0.0) -> list[float]:
        """For each node the probability that the target's path goes through it.

        Args:
            frailty: factor on the hazard of a path at every node, the negative logarithm of its children's chances
                together, which are at most `SURE`.
            least: what follows a node of no more than this, as others fare, counts as 0.
        """
        parents, scores, depths, lines = tree.parents, tree.scores, tree.depths, self._lines
        count = len(parents)
        chances = [0.0] * count
        paths, together = [0.0] * count + [1.0], [0.0] * (count + 1)  # the last place, also [-1], is the root's
        sums = None if scores is None else [*scores, 0.0]
        exp = math.exp
        for node, parent in enumerate(parents):
            path = paths[parent]
            if path <= least:
                continue
            if sums is None:
                stated = UNSCORED
            else:
                stated = sums[node] - sums[parent]
                stated = exp(stated) if stated < 0.0 else 1.0
            column = bisect_right(CONFIDENCES, stated)
            depth = depths[node]
            row = _ROW[depth] if depth <= _DEEP else -1
            constant, slope = lines[column][row] or self._worked_out(column, row)
            chances[node] = chance = constant + slope * stated
            paths[node] = path * chance
            together[parent] += chance
        shares = [min(total, SURE) ** frailty / total if total else 0.0 for total in together]
        paths[-1] = 1.0
        for node, parent in enumerate(parents):
            paths[node] = paths[parent] * chances[node] * shares[parent]
        del paths[-1]
        return paths

    def frailty(self, row: Frailty) -> float:
        """A row's factor on hazards; a new one starts from that of the rows before, if their paths went on more often.

        A cell leans on what the drafter states until it has seen many tokens, and the drafter may be far too modest.
        One that is too sure needs no such help: its cells are soon filled with what was wrong.
        """
        return row.factor(min(self._usual.factor(), 1.0))

    def observe(
        self, tree: DraftTree, accepted: Sequence[int], frailty: Frailty | None = None, depth: int | None = None
    ) -> None:
        """Learn from one draft: every child of a node that was kept was right or wrong.

        Args:
            tree: the draft; accepted: its nodes that the target chose, from the root.
            frailty: the row's, which learns, too.
            depth: down to which it is known what the target chose; by default all of it.
        """
        kept = {-1, *accepted}
        parents, depths, lines = tree.parents, tree.depths, self._lines
        together: dict[int, float] = {}  # of children, by parents along the path
        seen: list[tuple[int, int, bool]] = []
        sums = None if tree.scores is None else [*tree.scores, 0.0]
        for node, parent in enumerate(parents):
            if parent not in kept or (depth is not None and depths[node] > depth):
                continue
            stated = UNSCORED if sums is None else math.exp(min(sums[node] - sums[parent], 0.0))
            column, level = bisect_right(CONFIDENCES, stated), depths[node]
            row = _ROW[level] if level <= _DEEP else -1
            constant, slope = lines[column][row] or self._worked_out(column, row)
            together[parent] = together.get(parent, 0.0) + constant + slope * stated
            seen.append((column, row, node in kept))
        for column, row, hit in seen:  # only now, or the first nodes would teach what is expected of the others
            self._cells[column][row].add(hit)
            self._columns[column].add(hit)
            lines[column] = [None] * _ROWS
        if frailty is not None:
            hazards = [-math.log(min(max(total, LEAST), SURE)) for total in together.values()]
            for each in (frailty, self._usual):
                each.observe(hazards, ended=len(hazards) > len(accepted))

    def _worked_out(self, column: int, row: int) -> tuple[float, float]:
        of_column, cell = self._columns[column], self._cells[column][row]
        line = of_column.on((0.0, 1.0)) if of_column.trials else (0.0, 1.0)
        self._lines[column][row] = line = cell.on(line) if cell.trials else line
        return line

