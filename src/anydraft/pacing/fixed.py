"""Pacings that measure little or nothing: the same bounds always, or a draft that ends where it stops paying.

Both ask the first drafter of the crew at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

from anydraft.crew import Crew
from anydraft.growth import Bounds
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome
from anydraft.pacing.report import PacingReport
from anydraft.row import Row


class Fixed:
    """Always the same bounds (`draft_tokens=N`)."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds

    @classmethod
    def chain(cls, tokens: int) -> Fixed:
        """A chain of so many tokens at every step."""
        return cls(Bounds(tokens, 1, tokens, branch=1))

    def plan(self, rows: Sequence[Row]) -> list[Bounds]:
        """The same bounds for every row."""
        return [self.bounds] * len(rows)

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """A draft of the first drafter for every row."""
        return first_drafts(rows, crew, self.plan(rows))

    def observe(self, outcome: Outcome) -> None:
        """Nothing to learn."""

    def report(self, row: Row) -> PacingReport | None:
        """Nothing was chosen."""
        return None


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
        return [Bounds(self.depth, self.width, self.nodes, (mass,), self.min_node, self.branch)] * len(rows)

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """A draft of the first drafter for every row."""
        return first_drafts(rows, crew, self.plan(rows))

    def observe(self, outcome: Outcome) -> None:
        """Learn the times of a draft step and of a pass (weight 0.1 on the new values)."""
        levels = max((draft.tree.levels or draft.tree.depth for draft in outcome.drafts), default=0)
        if levels:
            self._draft_step = _mean(self._draft_step, outcome.seconds_draft / levels)
            self._verify = _mean(self._verify, outcome.seconds_pass)

    def report(self, row: Row) -> PacingReport | None:
        """Nothing was chosen."""
        return None


def first_drafts(rows: Sequence[Row], crew: Crew, bounds: Sequence[Bounds]) -> list[Draft]:
    """Drafts of the crew's first drafter; none when it is broken or there is none."""
    if not crew.working or crew.working[0] != 0:
        return [NO_DRAFT] * len(rows)
    return [Draft(tree, 0) for tree in crew.propose(0, rows, bounds)]


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + 0.1 * (new - old)
