"""Pacing: how much to draft now. One interface, so that a measured cost model can take the simple rule's place.

The rule here ends a draft where the drafter itself gives its continuation too little chance to be worth another step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
    """A tree of at most `nodes` nodes, ended where the drafter's confidence no longer pays for another step.

    Another draft step costs c_d of a target pass and yields about (probability of getting there) tokens, against
    the rate of tokens per pass that is had anyway; so drafting ends where that probability falls below about
    twice c_d, which is learned from measured times.

    Args:
        depth: deepest draft, in the drafter's tokens.
        width: nodes expanded per level (1 = chain).
        nodes: nodes to verify.
        branch: alternatives considered after each node.
        min_node: nodes less likely than this are not worth verifying.
        min_mass: fixed floor on the probability of going on; None learns it from the times.
    """

    START, LEAST, MOST = 0.1, 0.02, 0.6

    def __init__(
        self,
        depth: int = 20,
        width: int = 4,
        nodes: int = 31,
        *,
        branch: int = 8,
        min_node: float = 0.007,
        min_mass: float | None = None,
    ) -> None:
        self.depth = depth
        self.width = width
        self.nodes = nodes
        self.branch = branch
        self.min_node = min_node
        self.min_mass = min_mass
        self._draft_step: float | None = None
        self._verify: float | None = None

    def plan(self, rows: Sequence[Row]) -> list[Bounds]:
        """The same bounds for every row."""
        mass = self.min_mass
        if mass is None:
            mass = self.START
            if self._draft_step is not None and self._verify:
                mass = min(max(2 * self._draft_step / self._verify, self.LEAST), self.MOST)
        return [Bounds(self.depth, self.width, self.nodes, mass, self.min_node, self.branch)] * len(rows)

    def observe(
        self,
        rows: Sequence[Row],
        trees: Sequence[DraftTree],
        accepted: Sequence[int],
        seconds_draft: float,
        seconds_verify: float,
    ) -> None:
        """Learn the times of a draft step and of a pass (weight 0.1 on the new values)."""
        levels = max((tree.depth for tree in trees), default=0)
        if levels:
            self._draft_step = _mean(self._draft_step, seconds_draft / levels)
            self._verify = _mean(self._verify, seconds_verify)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + 0.1 * (new - old)


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
