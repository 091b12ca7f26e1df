"""What a session asks of a pacing: who drafts how much, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from anydraft.crew import Crew
from anydraft.pacing.report import PacingReport
from anydraft.row import Row
from anydraft.tree import DraftTree


@dataclass(frozen=True, slots=True)
class Draft:
    """What will be verified for a row, and which drafter of the crew proposed it (None: nobody was asked)."""

    tree: DraftTree
    drafter: int | None = None


NO_DRAFT = Draft(DraftTree.EMPTY)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One step: the drafts of the rows, and what the target made of them.

    Attributes:
        rows, drafts: as the pacing gave them.
        accepted: per row, nodes that were kept, root to leaf.
        seconds_draft: the time of `Pacing.draft`, without what drafters took to read prompts.
        seconds_pass: the rest of the step: the target's forward, choosing and keeping.
        positions: of the rows, after the step.
    """

    rows: Sequence[Row]
    drafts: Sequence[Draft]
    accepted: Sequence[Sequence[int]]
    seconds_draft: float
    seconds_pass: float
    positions: Sequence[int]

    @property
    def width(self) -> int:
        """Nodes of the pass per row, root included."""
        return 1 + max((len(draft.tree) for draft in self.drafts), default=0)


class Pacing(Protocol):
    """Decides who drafts and how much; it can never change what is generated."""

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """One draft per row, from one of the crew or from nobody."""

    def observe(self, outcome: Outcome) -> None:
        """Learn from one step, now or with those that follow."""

    def report(self, row: Row) -> PacingReport | None:
        """What was chosen for a row and why; None when there was nothing to choose.

        A session asks before a row leaves, finished or given up: what is to be learned of it is learned then.
        """
