"""Pacing: how much to draft now. One interface, so that a measured cost model can take the simple rule's place.

The rule here: the depth follows what was accepted lately, and a draft ends where the drafter itself gives its
continuation too little chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from anydraft.row import Row
from anydraft.tree import Bounds, DraftTree


class Pacing(Protocol):
    """Decides the bounds of the next draft of every row; it can never change what is generated."""

    def plan(self, rows: Sequence[Row]) -> list[Bounds]:
        """Bounds per row; depth 0 means no draft."""

    def observe(
        self,
        rows: Sequence[Row],
        trees: Sequence[DraftTree],
        accepted: Sequence[int],
        seconds_draft: float,
        seconds_verify: float,
    ) -> None:
        """Learn from one step: drafts, accepted tokens per row, and wall times of drafting and verifying."""


class Steady:
    """Depth from a running mean of accepted tokens, a fixed number of nodes, and a floor on confidence.

    Args:
        depth: deepest draft, in the drafter's tokens.
        width: nodes expanded per level (1 = chain).
        nodes: nodes to verify.
        min_mass: the drafter stops where the estimated probability of going on falls below this.
        adaptive: let the depth follow what is accepted.
    """

    def __init__(
        self, depth: int = 16, width: int = 1, nodes: int = 24, min_mass: float = 0.15, *, adaptive: bool = True
    ) -> None:
        self.depth = depth
        self.width = width
        self.nodes = nodes
        self.min_mass = min_mass
        self.adaptive = adaptive
        self._means: WeakKeyDictionary[Row, float] = WeakKeyDictionary()

    def plan(self, rows: Sequence[Row]) -> list[Bounds]:
        """Bounds per row."""
        bounds = []
        for row in rows:
            depth = self.depth
            if self.adaptive:
                depth = min(depth, 4 + round(3 * self._means.get(row, float(self.depth))))
            bounds.append(Bounds(depth, self.width, self.nodes, self.min_mass))
        return bounds

    def observe(
        self,
        rows: Sequence[Row],
        trees: Sequence[DraftTree],
        accepted: Sequence[int],
        seconds_draft: float,
        seconds_verify: float,
    ) -> None:
        """Update the running mean of accepted tokens (weight 0.2 on the new value)."""
        for row, tree, count in zip(rows, trees, accepted, strict=True):
            if len(tree):
                mean = self._means.get(row, float(count))
                self._means[row] = mean + 0.2 * (count - mean)


class Fixed:
    """Always the same bounds (`draft_tokens=N`)."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds

    def plan(self, rows: Sequence[Row]) -> list[Bounds]:
        """The same bounds for every row."""
        return [self.bounds] * len(rows)

    def observe(
        self,
        rows: Sequence[Row],
        trees: Sequence[DraftTree],
        accepted: Sequence[int],
        seconds_draft: float,
        seconds_verify: float,
    ) -> None:
        """Nothing to learn."""
