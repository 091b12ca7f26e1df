"""Measured: the default pacing. Who drafts and how much follows from times and acceptance measured while decoding.

A step commits 1 + A tokens and takes a draft D and a pass V; plain decoding commits one and takes V(1). Who drafts is
whoever has the most expected tokens per second, or nobody. How deep: a level is drafted while the chance of getting
there is worth its time at the present rate. What is verified: the nodes that pay for what they add to the pass.

Whoever is not asked is probed now and then, and what probing may lose is bounded (`ledger`): decoding stays within a
few percent of plain decoding with any drafter. The tokens are the same whatever is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anydraft.crew import Crew
from anydraft.pacing.choosing import Limits, best, due, due_free, length, wanted
from anydraft.pacing.experience import Experience
from anydraft.pacing.knowledge import TRIAL_LOSS, Knowledge, State
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome
from anydraft.pacing.pruning import kept, worth
from anydraft.pacing.report import PacingReport
from anydraft.row import Row
from anydraft.tree import Bounds, DraftTree

MOST_LOST = 10.0
"""Plain passes that one event counts at most: what happens once, such as building tables, says little."""

HOPELESS = 0.15
"""A free drafter is passed over for some steps when it is not believed even this much."""


@dataclass(slots=True)
class _Asked:
    """One call of a drafter in the step at hand.

    `capped`: it drafted as deep as it was allowed to; `stale`: it had to catch up first; `chance`: of the likeliest
    first token.
    """

    which: int
    name: str
    rows: Sequence[Row]
    levels: int
    seconds: float
    costly: bool
    capped: bool
    stale: bool
    chance: float = 0.0


class Measured:
    """Pacing from measured times and acceptance.

    Args:
        depth: deepest draft, in the drafter's tokens.
        width: nodes expanded per level for a single row; fewer as rows fill the machine.
        nodes: most nodes of a draft.
        branch: alternatives considered after each node.
        min_node: nodes that the drafter gives less than this are left out.
        overhead: share of the time that finding out may cost.
        known: what another one has measured with the same target and drafters, and both go on learning; for when
            several sessions run at the same time, each of which needs a pacing of its own.
    """

    def __init__(
        self,
        depth: int = 20,
        width: int = 4,
        nodes: int = 31,
        *,
        branch: int = 8,
        min_node: float = 0.007,
        overhead: float = 0.01,
        known: Knowledge | None = None,
    ) -> None:
        self.limits = Limits(depth, width, nodes, branch, min_node)
        self.known = Knowledge(overhead) if known is None else known
        # Of the step at hand:
        self._asked: list[_Asked] = []
        self._probing = False
        self._rate = 0.0
        self._rests = 0
        self._rows = 0

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """One draft per row, from whoever pays best, or from nobody."""
        self._asked, self._probing = [], False
        if self._rests and self._rows == len(rows) and rows[0].tokens:
            self._rests -= 1
            return [NO_DRAFT] * len(rows)
        self._rests, self._rows = 0, len(rows)
        count, known = len(rows), self.known
        drafts = [NO_DRAFT] * count
        if not crew.working or known.times.wants_plain(count):
            return drafts  # a plain pass, against which the others are measured
        chances: list[list[float]] = [[] for _ in rows]
        everyone = range(count)
        for which in crew.working:
            name = crew.names[which]
            if known.free(name, count) and not known.drafters[name].resting():
                bounds = [self.limits.bounds(count, self.limits.depth, 0.0)] * count
                self._take(which, crew, everyone, rows, self._ask(crew, which, rows, bounds), drafts, chances)
        plain = count / known.seconds(count, 1)
        width, tokens = worth(chances, plain, lambda w: known.seconds(count, w))
        self._rate = max(plain, (count + tokens) / known.seconds(count, width))
        free = [sum(sorted(row, reverse=True)[: width - 1]) for row in chances]
        choice = best(known, rows, crew, free, width, self._rate)
        if choice is None:
            choice = due(known, rows, crew, self._rate)
            self._probing = choice is not None or (width == 1 and due_free(known, rows, crew, drafts))
            if choice is None and not self._asked:
                self._rests = known.rest(crew.names, count)
        if choice is not None:
            self._rate = choice.rate
            chosen, name = [rows[i] for i in choice.places], crew.names[choice.which]
            bounds = [
                wanted(known, name, row, len(chosen), self._rate, self.limits, probing=self._probing) for row in chosen
            ]
            trees = self._ask(crew, choice.which, chosen, bounds)
            self._take(choice.which, crew, choice.places, rows, trees, drafts, chances)
        if crew.target.fixed_width is not None or crew.verification == "rejection":
            return drafts  # there is one width, or what is verified must not depend on what was drawn
        return self._pruned(drafts, chances)

    def _ask(self, crew: Crew, which: int, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """Drafts of one drafter, timed."""
        name, count = crew.names[which], len(rows)
        new = [row for row in rows if not crew.met(which, row)]
        reading = crew.seconds_start
        trees = crew.propose(which, rows, bounds)
        drafter = self.known.drafters.setdefault(name, Experience())
        if new:
            seconds = crew.seconds_start - reading
            drafter.times.observe_start(seconds, sum(length(row) for row in new))
            passes = min(seconds / self.known.seconds(count, 1), MOST_LOST)
            self.known.safety.lost(passes)
            record = drafter.record(rows[0])
            if self.known.on_trial(record):
                record.trial_loss += passes
            elif self._probing:
                self.known.exploring.lost(passes)
        levels = max((tree.levels or tree.depth for tree in trees), default=0)
        stale = any(self.known.form(row, name).stale(row.position) for row in rows)
        drafter.called(count, levels, crew.seconds_last, stale=stale)
        costly = not self.known.free(name, count)
        capped = 1 < levels >= max(bound.depth for bound in bounds)
        self._asked.append(_Asked(which, name, rows, levels, crew.seconds_last, costly, capped, stale))
        return trees

    def _take(
        self,
        which: int,
        crew: Crew,
        places: Sequence[int],
        rows: Sequence[Row],
        trees: Sequence[DraftTree],
        drafts: list[Draft],
        chances: list[list[float]],
    ) -> None:
        """Put drafts where they promise more than what is there, or are to be tried."""
        name, asked = crew.names[which], self._asked[-1]
        for i, tree in zip(places, trees, strict=True):
            belief = self.known.drafters[name].record(rows[i]).belief
            likely = belief.probabilities(tree, self.known.form(rows[i], name).luck.factor)
            asked.chance = max(asked.chance, likely[0] if likely else 0.0)
            if len(tree) and (self._probing or sum(likely) > sum(chances[i])):
                drafts[i], chances[i] = Draft(tree, which), likely

    def _pruned(self, drafts: list[Draft], chances: list[list[float]]) -> list[Draft]:
        """The drafts without what does not pay to verify."""
        count = len(drafts)
        least = 3 if self._probing else 1
        width, _ = worth(chances, self._rate, lambda w: self.known.seconds(count, w), least=least)
        return [
            draft
            if len(draft.tree) < width
            else Draft(draft.tree.keep(kept(likely, width)), draft.drafter if width > 1 else None)
            for draft, likely in zip(drafts, chances, strict=True)
        ]

    def observe(self, outcome: Outcome) -> None:
        """Learn the times of the step, and what its drafts were worth."""
        known, count, width = self.known, len(outcome.rows), outcome.width
        if self._rests % 4:  # of many plain passes every fourth tells enough
            known.exploring.tokens(1.0)
            known.safety.tokens(1.0)
            for row in outcome.rows:
                known.state(row).report.count("plain")
            return
        known.times.observe(count, width, outcome.seconds_pass)
        tokens = sum(1 + len(accepted) for accepted in outcome.accepted)
        known.exploring.tokens(tokens / count)
        known.safety.tokens(tokens / count)
        if not self._asked:
            for row in outcome.rows:
                known.state(row).report.count("plain")
            return
        plain = known.seconds(count, 1)
        taken = (sum(map(self._drafting, self._asked)) + known.seconds(count, width)) / plain
        known.safety.lost(taken - tokens / count)
        if self._probing and not self._on_trial():
            known.exploring.lost(min(max(0.0, taken - tokens / max(self._rate * plain, 1e-9)), MOST_LOST))
        names = {asked.which: asked.name for asked in self._asked}
        drew = {draft.drafter for draft in outcome.drafts}
        for asked in self._asked:
            if not asked.costly and asked.levels:  # a free one that is offered and not wanted rests, longer each time
                known.drafters[asked.name].offered(hopeless=asked.which not in drew and asked.chance < HOPELESS)
        for row, draft, accepted in zip(outcome.rows, outcome.drafts, outcome.accepted, strict=True):
            name = "plain" if draft.drafter is None else names[draft.drafter]
            state = known.state(row)
            state.report.count(name, len(draft.tree), probe=self._probing and draft.drafter is not None)
            if draft.drafter is not None:
                known.drafters[name].record(row).belief.observe(draft.tree, accepted, state.form(name).luck)
            state.rows = count
            for asked in self._asked:
                if row in asked.rows and (asked.name == name or asked.costly):
                    mine = asked.name == name or draft.drafter is None
                    self._learn(row, state, asked, draft.tree if mine else None, len(accepted), taken)

    def _drafting(self, asked: _Asked) -> float:
        """Seconds of a call: as they are modelled, which strays less, where anything was drafted."""
        if not asked.costly or not asked.levels or asked.stale:
            return min(asked.seconds, MOST_LOST * self.known.seconds(len(asked.rows), 1))
        return self.known.drafters[asked.name].times.seconds(asked.levels, len(asked.rows)) or asked.seconds

    def _learn(
        self, row: Row, state: State, asked: _Asked, tree: DraftTree | None, accepted: int, taken: float
    ) -> None:
        """What a draft brought one row, in a step that took so many plain passes; None: another one was verified."""
        record, form = self.known.drafters[asked.name].record(row), state.form(asked.name)
        on_trial = self.known.on_trial(record)
        if on_trial:
            lost = max(0.0, taken - 1 - (accepted if tree is not None else 0)) / len(asked.rows)
            record.trial_loss += min(lost, TRIAL_LOSS / 3)
        record.drafts += 1
        paid = tree is not None and accepted > taken - 1
        form.probed(row.position, paid=paid, on_trial=on_trial, stale=asked.stale and self._probing)
        if tree is None:
            return
        # A short draft that was right to its end would have gone on being right for a while.
        more = 2 if self._probing and asked.capped and accepted == tree.depth else 1
        form.add(more * accepted, more * asked.levels, 1 + more * len(tree))
        record.gain.add(more * accepted)
        record.levels.add(more * asked.levels)
        record.width.add(1 + more * len(tree))

    def _on_trial(self) -> bool:
        """Whether a drafter of this step is on trial: what that may lose is bounded by itself."""
        drafters = self.known.drafters
        return any(self.known.on_trial(drafters[a.name].record(row)) for a in self._asked for row in a.rows)

    def report(self, row: Row) -> PacingReport | None:
        """What was chosen for the row, and the figures on which it was."""
        return self.known.report(row)
