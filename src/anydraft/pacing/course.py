"""Course: what the steps of one session leave to those that follow, and the choice that stands for some of them.

Between passes of the model Python finds nothing in the processor's caches, and deciding and learning take several times
as long as in a loop. So a choice that pays stands for some steps, of which is learned together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from anydraft.growth import Bounds
from anydraft.pacing.asking import Asking
from anydraft.pacing.choosing import Choice
from anydraft.pacing.now import Now
from anydraft.pacing.protocol import Outcome
from anydraft.row import Row

TOGETHER, SEASONED = 4, 24
"""Steps for which a choice stands, once its drafter has made so many drafts under the kind of sampling."""


class Standing(NamedTuple):
    """A choice as it was made: at which step, and with what bounds."""

    now: Now
    choice: Choice
    bounds: list[Bounds]


@dataclass
class Course:
    """What one step leaves to the next of the same session.

    Attributes:
        rows: of its steps; with others another one begins.
        before: drafters that were asked in it.
        wait: steps until costly drafters are thought of again.
        idled: steps without anybody asked of which nothing was learned yet.
        standing: the choice that stands.
        lessons: steps in which somebody was asked, of which nothing was learned yet.
    """

    rows: Sequence[Row]
    before: frozenset[int] = frozenset()
    wait: int = 0
    idled: int = 0
    standing: Standing | None = None
    lessons: list[tuple[Asking, Outcome]] = field(default_factory=list)

    @property
    def ahead(self) -> float:
        """Plain passes that those lessons were expected to take."""
        return 0.0 if self.standing is None else len(self.lessons) * self.standing.choice.passes

    def full(self, step: Asking, outcome: Outcome) -> bool:
        """Whether it is to be decided anew after this step, the last of the lessons.

        So it is if no choice stands, or for long enough; if its drafter broke; and if a row is finished, or wants a
        single token, for which nobody drafts.
        """
        if self.standing is None or len(self.lessons) >= TOGETHER:
            return True
        choice = self.standing.choice
        if choice.which not in step.crew.working:
            return True
        return any(row.finish_reason is not None or row.remaining <= 1 for row in outcome.rows)
