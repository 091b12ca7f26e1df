"""Measured: the default pacing. Who drafts and how much follows from times and acceptance measured while decoding.

A step commits 1 + A tokens and takes a draft D and a pass V; plain decoding commits one and takes V(1). Time is worth
what the best mixture of steps brings in it (`serving`). Who drafts is whoever has the most expected tokens beyond that,
or nobody. How deep: a level is drafted while what it brings is worth its time. What is verified: the nodes that pay for
what they add to the pass.

Whoever is not asked is probed now and then, and what probing may lose is bounded (`ledger`): decoding stays within a
few percent of plain decoding with any drafter. The tokens are the same whatever is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anydraft.crew import Crew
from anydraft.pacing.choosing import Limits, Now, best, due, due_free, length, wanted
from anydraft.pacing.experience import Experience
from anydraft.pacing.knowledge import TRIAL_LOSS, Knowledge, State
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome
from anydraft.pacing.pruning import kept, worth
from anydraft.pacing.report import PacingReport
from anydraft.row import Row
from anydraft.tree import Bounds, DraftTree

MOST_LOST = 10.0
"""Plain passes that one event counts at most: what happens once, such as building tables, says little."""

FIRST_CALLS = 3
"""Calls of a drafter that count a plain pass at most: they build tables and kernels."""

UNLIKELY = 0.01
"""What follows a node of a free draft that is no likelier than this is not looked at."""


@dataclass(slots=True)
class _Asked:
    """One call of a drafter in the step at hand.

    `seconds`: with what it took to read what is new of known rows, and for a free one to weigh its drafts; `call`:
    without that; `bound`: levels that were allowed.
    """

    which: int
    name: str
    rows: Sequence[Row]
    trees: Sequence[DraftTree]
    levels: int
    bound: int
    call: float
    seconds: float
    costly: bool


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
        overhead: float = 0.012,
        known: Knowledge | None = None,
    ) -> None:
        self.limits = Limits(depth, width, nodes, branch, min_node)
        self.known = Knowledge(overhead, depth) if known is None else known
        # Of the step at hand:
        self._asked: list[_Asked] = []
        self._before: set[int] = set()
        self._probing = False
        self._speed = 1.0
        self._idle = self._plainly = False
        self._wait = 0
        self._rows = 0

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """One draft per row, from whoever pays best, or from nobody."""
        self._before = {asked.which for asked in self._asked}
        self._asked, self._probing, self._idle = [], False, False
        count, known = len(rows), self.known
        drafts = [NO_DRAFT] * count
        if self._rows != count or not rows[0].tokens:
            self._rows, self._wait = count, 0
        waits = self._wait > 0
        self._wait -= waits
        awake = []
        for which in crew.working:
            drafter = known.drafters.get(crew.names[which])
            if drafter is not None and drafter.free and not drafter.resting():
                awake.append(which)
        self._idle = waits and not awake
        if self._idle or not crew.working or known.times.wants_plain(count):
            return drafts  # at times a plain pass, against which the others are measured
        now = Now.of(known, rows)
        chances: list[list[float]] = [[] for _ in rows]
        for which in awake:
            self._ask_free(which, crew, now, drafts, chances)
        width, free = 1, [0.0] * count
        if any(chances):
            width, tokens, _ = worth(chances, now.worth, now.ratios)
            free = [sum(sorted(row, reverse=True)[: width - 1]) for row in chances] if tokens else free
        choice = None
        if not waits:
            choice, value = best(known, now, crew, free, width)
            now = replace(now, worth=value)
            if choice is None and (width == 1 or not all(free)):
                choice, self._wait = due(known, now, crew)
                self._probing = choice is not None
        if choice is None and width == 1 and any(chances) and due_free(known, now, crew, drafts):
            self._probing = True
        self._speed = now.worth / count
        if choice is not None:
            chosen, name = [rows[i] for i in choice.places], crew.names[choice.which]
            bounds = [
                wanted(known, now, name, row, len(chosen), self.limits, probing=self._probing) for row in chosen
            ]
            trees = self._ask(crew, choice.which, chosen, bounds)
            self._take(choice.which, choice.places, rows, trees, drafts, chances)
        if crew.target.fixed_width is not None or crew.verification == "rejection":
            return drafts  # there is one width, or what is verified must not depend on what was drawn
        if choice is not None or self._probing:
            width = worth(chances, now.worth, now.ratios, least=3 if self._probing else 1)[0]
        elif not any(chances):
            return drafts
        return [
            draft
            if len(draft.tree) < width
            else Draft(draft.tree.keep(kept(likely, width)), draft.drafter if width > 1 else None)
            for draft, likely in zip(drafts, chances, strict=True)
        ]

    def _ask_free(
        self, which: int, crew: Crew, now: Now, drafts: list[Draft], chances: list[list[float]]
    ) -> None:
        """Drafts of a free drafter for all rows, and what asking and weighing them took."""
        started, reading = time.perf_counter(), crew.seconds_start
        count = len(now.rows)
        bounds = [self.limits.bounds(count, self.limits.depth, 0.0)] * count
        trees = self._ask(crew, which, now.rows, bounds)
        self._take(which, range(count), now.rows, trees, drafts, chances, least=UNLIKELY)
        reading = crew.seconds_start - reading
        self._asked[-1].seconds = time.perf_counter() - started - reading

    def _ask(self, crew: Crew, which: int, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """Drafts of one drafter, timed."""
        name, count = crew.names[which], len(rows)
        new = [row for row in rows if not crew.met(which, row)]
        reading = crew.seconds_start
        trees = crew.propose(which, rows, bounds)
        drafter = self.known.drafters.setdefault(name, Experience())
        if new:
            read = sum(length(row) for row in new)
            drafter.times.observe_start(crew.seconds_start - reading, read)
            passes = min(drafter.times.start(read) / self.known.seconds(count, 1), MOST_LOST)
            self.known.safety.lost(passes)
            record = drafter.record(rows[0])
            if self.known.on_trial(record):
                record.trial_loss += passes
            elif self._probing:
                self.known.exploring.lost(passes)
        levels = max((tree.levels or tree.depth for tree in trees), default=0)
        seconds = crew.seconds_last + (0.0 if new else crew.seconds_start - reading)
        drafter.called(count, levels, seconds, warm=which in self._before and not new)
        self.known.price(drafter, count)
        bound = max(bound.depth for bound in bounds)
        self._asked.append(_Asked(which, name, rows, trees, levels, bound, crew.seconds_last, seconds, not drafter.free))
        return trees

    def _take(
        self,
        which: int,
        places: Sequence[int],
        rows: Sequence[Row],
        trees: Sequence[DraftTree],
        drafts: list[Draft],
        chances: list[list[float]],
        least: float = 0.0,
    ) -> None:
        """Put drafts where they promise more than what is there, or are to be tried."""
        name = self._asked[-1].name
        for i, tree in zip(places, trees, strict=True):
            if not len(tree):
                continue
            belief = self.known.drafters[name].record(rows[i]).belief
            likely = belief.probabilities(tree, self.known.form(rows[i], name).luck.factor, least)
            if self._probing or sum(likely) > sum(chances[i]):
                drafts[i], chances[i] = Draft(tree, which), likely

    def observe(self, outcome: Outcome) -> None:
        """Learn the times of the step, and what its drafts were worth."""
        started = time.perf_counter()
        known, count, width = self.known, len(outcome.rows), outcome.width
        plainly, self._plainly = self._plainly, width == 1 and not any(asked.costly for asked in self._asked)
        if self._idle and self._wait % 4:  # of many plain passes every fourth tells enough
            self._passed(outcome, 1.0)
            return
        if plainly or width > 1:  # a plain pass after a draft finds the caches of the machine full of other things
            known.times.observe(count, width, outcome.seconds_pass)
        tokens = sum(1 + len(accepted) for accepted in outcome.accepted) / count
        if not self._asked:
            self._passed(outcome, known.seconds(count, width) / known.seconds(count, 1))
            return
        plain = known.seconds(count, 1)
        passed = known.seconds(count, width) / plain
        costly = any(asked.costly for asked in self._asked)
        taken = (sum(map(self._drafting, self._asked)) + costly * known.deciding.value) / plain + passed
        speed = self._speed
        if self._probing and not self._on_trial():
            known.exploring.lost(min(max(0.0, taken - tokens / speed), MOST_LOST))
        known.safety.lost(taken - tokens)
        known.safety.passed(taken)
        known.exploring.passed(taken)
        names = {asked.which: asked.name for asked in self._asked}
        drew = {draft.drafter for draft in outcome.drafts}
        free = [asked for asked in self._asked if not asked.costly]
        for asked in free:
            self._offered(asked, outcome, passed, wanted=asked.which in drew)
        self._serve(outcome, {asked.which for asked in free}, passed)
        for row, draft, accepted in zip(outcome.rows, outcome.drafts, outcome.accepted, strict=True):
            name = "plain" if draft.drafter is None else names[draft.drafter]
            state = known.state(row)
            state.rows = count
            state.report.count(name, len(draft.tree), probe=self._probing and draft.drafter is not None)
            for asked in self._asked:
                if row in asked.rows and (asked.name == name or asked.costly):
                    self._learn(row, state, asked, draft, accepted, taken * speed)
        if costly:
            deciding = max(0.0, outcome.seconds_draft - sum(asked.call for asked in self._asked))
            known.deciding.add(min(deciding + time.perf_counter() - started, plain))

    def _passed(self, outcome: Outcome, taken: float) -> None:
        """A step in which nobody was asked."""
        known = self.known
        known.safety.passed(taken)
        known.exploring.passed(taken)
        known.serving(outcome.rows[0]).add(0.0, 0.0, 1.0)
        for row in outcome.rows:
            known.state(row).report.count("plain")

    def _drafting(self, asked: _Asked) -> float:
        """Seconds of a call: as they are modelled, which strays less, where anything was drafted."""
        drafter, modelled = self.known.drafters[asked.name], None
        if asked.costly and asked.levels:
            modelled = drafter.times.seconds(asked.levels, len(asked.rows))
        most = MOST_LOST if drafter.calls > FIRST_CALLS else 1.0
        return min(modelled or asked.seconds, most * self.known.seconds(len(asked.rows), 1))

    def _serve(self, outcome: Outcome, free: set[int], passed: float) -> None:
        """Count what free drafters had for the rows."""
        mine = [draft.drafter in free for draft in outcome.drafts]
        count, tokens = len(mine), sum(len(a) for a, is_mine in zip(outcome.accepted, mine, strict=True) if is_mine)
        self.known.serving(outcome.rows[0]).add(sum(mine) / count, tokens / count, passed)

    def _offered(self, asked: _Asked, outcome: Outcome, passed: float, *, wanted: bool) -> None:
        """A free drafter was asked; whether that is of use is the tokens it gained less what its time was worth."""
        drafter, count = self.known.drafters[asked.name], len(outcome.rows)
        gained = 0.0
        if wanted:
            mine = [d.drafter == asked.which for d in outcome.drafts]
            gained = sum(len(a) for a, is_mine in zip(outcome.accepted, mine, strict=True) if is_mine) / count
            gained -= passed - 1
        use = drafter.record(outcome.rows[0]).use
        use.add(gained - min(asked.seconds / self.known.seconds(count, 1), 1.0))
        drafter.offered(wanted=wanted, useful=use.value > 0)

    def _learn(
        self, row: Row, state: State, asked: _Asked, draft: Draft, accepted: Sequence[int], worth_of_step: float
    ) -> None:
        """What a draft brought one row, in a step whose time was worth so many tokens of it."""
        drafter, form = self.known.drafters[asked.name], state.form(asked.name)
        record, tree, tokens = drafter.record(row), draft.tree, len(accepted)
        mine = draft.drafter == asked.which
        verified = mine or draft.drafter is None  # else another one's draft was
        known, on_trial = self.known, self.known.on_trial(record)
        record.drafts += 1
        if on_trial:
            lost = max(0.0, worth_of_step - 1 - (tokens if verified else 0)) / len(asked.rows)
            record.trial_loss += min(lost, TRIAL_LOSS / 4)
        warm = asked.which in self._before
        form.probed(row.position, paid=verified and 1 + tokens > worth_of_step, on_trial=on_trial, warm=warm)
        if not verified:
            return
        without = known.serving(row).speed
        record.gains.lost((worth_of_step / self._speed - (1 + tokens) / without) / len(asked.rows))
        # A draft that was right to the end of what was allowed would have gone on being right.
        ended = not mine or tokens < tree.depth or asked.levels < asked.bound
        for runs in (form.runs, record.runs):
            runs.add(tokens, asked.levels, len(tree), ended=ended)
        if mine:
            drafted = asked.trees[asked.rows.index(row)]
            record.belief.observe(tree, accepted, form.luck)
            record.reach.observe(tree, drafted.depth, tokens)

    def _on_trial(self) -> bool:
        """Whether a drafter of this step is on trial: what that may lose is bounded by itself."""
        drafters = self.known.drafters
        return any(self.known.on_trial(drafters[a.name].record(row)) for a in self._asked for row in a.rows)

    def report(self, row: Row) -> PacingReport | None:
        """What was chosen for the row, and the figures on which it was."""
        return self.known.report(row)
