"""Asking: the step at hand, with the calls of drafters in it and the best draft of each row so far."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

from anydraft.crew import Crew
from anydraft.growth import Bounds
from anydraft.pacing.choosing import length
from anydraft.pacing.experience import Experience
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.protocol import NO_DRAFT, Draft
from anydraft.pacing.pruning import kept
from anydraft.pacing.serving import EVEN, Gap
from anydraft.row import Row
from anydraft.tree import DraftTree

UNLOOKED = 0.01
"""What follows a node of a free draft that is no likelier than this is not looked at."""


@dataclass(slots=True)
class Asked:
    """One call of a drafter.

    Attributes:
        levels: of the deepest draft; allowed: per row, levels of the deepest that it could have been.
        call: seconds of the call; seconds: with reading what is new of known rows, and for a free one with weighing
            its drafts.
        costly: whether it is not free.
        warm: whether it was asked in the step before, too; again: in that of the same session.
        broke: whether the drafter broke in it: how long that took says nothing.
    """

    which: int
    name: str
    rows: Sequence[Row]
    trees: Sequence[DraftTree]
    levels: int
    allowed: Sequence[int]
    call: float
    seconds: float
    costly: bool
    warm: bool
    again: bool
    broke: bool = False


class Asking:
    """One step.

    Args:
        warm: drafters that were asked in the step before, of whatever session; before: in that of the same session.
        at_once: whether what calls took is learned at once; else with what the step brought.

    Attributes:
        asked: the calls so far.
        drafts, chances: per row the draft that promises most, and what its nodes are expected to bring.
        costly: whether a drafter was asked that is not free.
        probing: whether drafts are verified to find out; ledger: where what that loses is entered.
        speed: tokens of a row that a plain pass is worth.
        urgency: per row, what its tokens are worth, 1 on average; spared: share of that which free drafts save.
        served: per row, whether free drafters have something that is worth verifying by itself.
        gaps: per row, what its tokens are worth by their place.
    """

    def __init__(
        self,
        known: Knowledge,
        rows: Sequence[Row],
        crew: Crew,
        warm: Set[int],
        before: Set[int],
        *,
        at_once: bool = True,
    ) -> None:
        self.known, self.rows, self.crew, self.warm, self.before = known, rows, crew, warm, before
        self.at_once = at_once
        self.asked: list[Asked] = []
        self.drafts = [NO_DRAFT] * len(rows)
        self.chances: list[list[float]] = [[] for _ in rows]
        self.probing = self.costly = False
        self.ledger = known.exploring
        self.speed = 1.0
        self.urgency: Sequence[float] = [1.0] * len(rows)
        self.spared = 1.0
        self.served = [False] * len(rows)
        self.gaps: Sequence[Gap] = [EVEN] * len(rows)

    @property
    def offered(self) -> bool:
        """Whether any drafter had a draft so far."""
        return any(len(tree) for asked in self.asked for tree in asked.trees)

    def gained(self, accepted: Sequence[float]) -> float:
        """What so many tokens of each row are worth, in tokens of a row."""
        return sum(urgent * tokens for urgent, tokens in zip(self.urgency, accepted, strict=True)) / len(accepted)

    def committed(
        self, accepted: Sequence[int], served: Sequence[bool], copied: float, otherwise: Gap | None = None
    ) -> float:
        """What the tokens of the step are worth if so many of each row's draft were kept, in tokens of a row.

        Args:
            served: rows with free drafts; copied: worth of a token of those.
            otherwise: what tokens are worth in gaps, if not as when it was decided.
        """
        found = 0.0
        for gap, urgent, tokens, free in zip(self.gaps, self.urgency, accepted, served, strict=True):
            if free:
                found += copied * (1 + self.spared * urgent * tokens)
                continue
            worth = gap if otherwise is None or gap == EVEN else otherwise
            found += worth.own + urgent * (worth.committed(1 + tokens) - worth.own)
        return found / len(accepted)

    def value(self, gaps: Sequence[Gap]) -> None:
        """Tokens of each row are worth this by their place, those of drafts that there are, too."""
        self.gaps = gaps
        for i, (draft, gap) in enumerate(zip(self.drafts, gaps, strict=True)):
            if len(draft.tree):
                self.chances[i] = _valued(self.chances[i], draft.tree, gap)

    def ask_free(self, which: int, bounds: Bounds) -> None:
        """Ask a free drafter about all rows; its time is that of asking and of weighing what it says."""
        started, reading = time.perf_counter(), self.crew.seconds_start
        self.ask(which, range(len(self.rows)), [bounds] * len(self.rows), least=UNLOOKED)
        reading = self.crew.seconds_start - reading
        self.asked[-1].seconds = time.perf_counter() - started - reading

    def ask(self, which: int, places: Sequence[int], bounds: Sequence[Bounds], least: float = 0.0) -> None:
        """Ask a drafter about some rows, and put its drafts where they promise more or are to be tried.

        Args:
            least: what follows a node that is no likelier is not looked at.
        """
        crew, name = self.crew, self.crew.names[which]
        rows = [self.rows[i] for i in places]
        new = [row for row in rows if not crew.met(which, row)]
        reading = crew.seconds_start
        trees = crew.propose(which, rows, bounds)
        reading = crew.seconds_start - reading
        drafter = self.known.drafters.get(name)
        if drafter is None:
            drafter = self.known.drafters[name] = Experience()
        if new:
            self._read(drafter, new, reading)
        levels = max((tree.levels or tree.depth for tree in trees), default=0)
        seconds = crew.seconds_last + (0.0 if new else reading)
        warm, again = which in self.warm and not new, which in self.before and not new
        allowed = [min(bound.depth, bound.nodes, row.remaining - 1) for row, bound in zip(rows, bounds, strict=True)]
        broke = which not in crew.working
        asked = Asked(which, name, rows, trees, levels, allowed, crew.seconds_last, seconds, True, warm, again, broke)
        if self.at_once:
            self.timed(asked)
        asked.costly = not drafter.free
        self.costly = self.costly or asked.costly
        self.asked.append(asked)
        for i, row, tree in zip(places, rows, trees, strict=True):
            if not len(tree):
                continue
            belief = drafter.record(row).belief
            frailty = belief.frailty(self.known.form(row, name).frailty_nodes)
            likely = belief.probabilities(tree, frailty, least)
            valued = _valued(likely, tree, self.gaps[i])
            if self.probing or sum(valued) > sum(self.chances[i]):
                self.drafts[i], self.chances[i] = Draft(tree, which), valued

    def timed(self, asked: Asked) -> None:
        """Learn what a call took."""
        if not asked.broke:
            drafter = self.known.drafters[asked.name]
            drafter.called(len(asked.rows), asked.levels, asked.seconds, warm=asked.warm)
            self.known.price(drafter, len(self.rows))

    def pruned(self, width: int) -> list[Draft]:
        """The drafts with as many of their likeliest nodes as a pass of that width holds."""
        return [
            draft
            if len(draft.tree) < width
            else Draft(draft.tree.keep(kept(likely, width)), draft.drafter if width > 1 else None)
            for draft, likely in zip(self.drafts, self.chances, strict=True)
        ]

    def _read(self, drafter: Experience, new: Sequence[Row], seconds: float) -> None:
        """A drafter has met rows."""
        known, tokens = self.known, sum(map(length, new))
        drafter.times.observe_start(seconds, tokens)
        passes = known.reading(drafter, tokens, len(self.rows))
        known.safety.lost(passes)
        record = drafter.record(new[0])
        if known.on_trial(record):
            record.trial_loss += passes
        elif self.probing:
            self.ledger.lost(passes)


def _valued(chances: list[float], tree: DraftTree, gap: Gap) -> list[float]:
    """What nodes are expected to bring, by their chances."""
    if gap == EVEN:
        return chances
    worth = [gap.token(depth) for depth in range(tree.depth + 1)]
    return [chance * worth[depth] for chance, depth in zip(chances, tree.depths, strict=True)]
