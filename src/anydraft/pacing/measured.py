"""Measured: the default pacing. Who drafts and how much follows from times and acceptance measured while decoding.

A step commits 1 + A tokens and takes a draft D and a pass V; plain decoding commits one and takes V(1). Time is worth
what the best mixture of steps brings in it, and tokens what time they save (`serving`). Who drafts is whoever has the
most expected tokens beyond that, or nobody. How deep: a level is drafted while what it brings is worth its time. What
is verified: the nodes that pay for what they add to the pass.

Whoever is not asked is probed now and then, and what probing may lose is bounded (`ledger`): decoding stays within a
few percent of plain decoding with any drafter. The tokens are the same whatever is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary, ref

from anydraft.crew import Crew
from anydraft.pacing.asking import Asking
from anydraft.pacing.choosing import Choice, Limits, best, wanted
from anydraft.pacing.course import SEASONED, Course, Standing
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.lessons import learn, learn_nothing, learn_plain
from anydraft.pacing.now import Free, Now
from anydraft.pacing.probing import due
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome
from anydraft.pacing.pruning import worth
from anydraft.pacing.report import PacingReport
from anydraft.row import Row

LEAST_PROBE = 3
"""Least width of a pass that verifies a draft made to find out."""

OVERHEAD = 0.01
"""Share of the time that finding out may cost."""


class Measured:
    """Pacing from measured times and acceptance.

    Args:
        depth: deepest draft, in the drafter's tokens.
        width: nodes expanded per level for a single row; fewer as rows fill the machine.
        nodes: most nodes of a draft.
        branch: alternatives considered after each node.
        min_node: nodes that the drafter gives less than this are left out.
        overhead: share of the time that finding out may cost, most of it for drafters that may well pay; and as much
            again that estimates which were wrong may cost. By default `OVERHEAD`.
        known: what another one has measured with the same target and drafters (its `known`), to go on from there. Of
            those who share it only one at a time may decode, and its overhead is theirs.

    Raises:
        ValueError: a limit is below 1, `overhead` is not above 0, or does not fit what is known.
    """

    def __init__(
        self,
        depth: int = 20,
        width: int = 4,
        nodes: int = 31,
        *,
        branch: int = 8,
        min_node: float = 0.007,
        overhead: float | None = None,
        known: Knowledge | None = None,
    ) -> None:
        self.limits = Limits(depth, width, nodes, branch, min_node)
        if known is not None and (overhead is not None or (known.depth, known.nodes) != (depth, nodes)):
            raise ValueError(
                f"with known, leave out overhead, and let depth and nodes be its own ({known.depth} and {known.nodes})"
            )
        self.known = Knowledge(OVERHEAD if overhead is None else overhead, depth, nodes) if known is None else known
        self._step: Asking | None = None  # the one at hand
        # In the step before, of whatever session: who was asked; and if nobody costly was, and nothing was verified.
        self._warm: frozenset[int] = frozenset()
        self._plainly = False
        # By row, for several sessions may take turns. They are kept by their crews, whose rows they know.
        self._courses: WeakKeyDictionary[Row, ref[Course]] = WeakKeyDictionary()

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """One draft per row, from whoever pays best, or from nobody."""
        count, known, course = len(rows), self.known, self._found(rows[0])
        if course is None or len(course.rows) != count:
            course = crew.kept[rows[0]] = Course(list(rows))
            for row in rows:
                self._courses[row] = ref(course)
            known.times.pad(crew.target.padded_width)
        if course.standing is not None:
            return self._drafted_again(course, course.standing, rows, crew)
        awake = self._awake(crew, known.now)
        waits = course.wait > 0
        course.wait -= waits
        if waits and not awake:
            self._step = None
            return [NO_DRAFT] * count
        self._learn_idle(course)
        step = self._step = Asking(known, rows, crew, self._warm, course.before)
        if not crew.working or known.times.wants_plain(count):
            return step.drafts  # at times a plain pass, against which the others are measured
        for which in awake:
            step.ask_free(which, self.limits.bounds(count, self.limits.depth, (0.0,)))
        offered = step.offered
        if waits and not (offered or step.costly):
            return step.drafts
        now = Now.of(known, rows)
        step.urgency, step.spared = now.urgency, now.spared
        choice, now = self._chosen(course, step, now, waits=waits)
        step.speed = now.worth / count
        step.value(now.gaps)
        if choice is not None:
            name, places = crew.names[choice.which], choice.places
            bounds = [wanted(known, now, name, i, len(places), self.limits, probing=step.probing) for i in places]
            if not (step.asked or step.probing) and known.drafters[name].record(rows[0]).drafts >= SEASONED:
                course.standing = Standing(now, choice, bounds)
            step.ask(choice.which, places, bounds)
        if not _prunes(crew) or (choice is None and not offered):
            return step.drafts
        if choice is not None and step.probing:
            # What one row finds out is for all, so that it may be wider than would pay for one alone.
            rate = now.worth * len(choice.places) / count
            return step.pruned(worth(step.chances, rate, now.ratios, least=LEAST_PROBE)[0])
        return step.pruned((now.of_free() if choice is None else now).best_width(step.chances)[0])

    def _drafted_again(self, course: Course, standing: Standing, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """Drafts as they were chosen in a step before."""
        now, choice, bounds = standing
        step = self._step = Asking(self.known, rows, crew, self._warm, course.before, at_once=False)
        step.urgency, step.speed, step.gaps = now.urgency, now.worth / len(rows), now.gaps
        step.ask(choice.which, choice.places, bounds)
        return step.pruned(now.best_width(step.chances)[0]) if _prunes(crew) else step.drafts

    def _chosen(self, course: Course, step: Asking, now: Now, *, waits: bool) -> tuple[Choice | None, Now]:
        """The costly drafter to ask, to gain or to find out, and what time is worth then; None where nobody is."""
        known, crew, count = self.known, step.crew, len(step.rows)
        free = Free.nothing(count)
        if step.offered:
            alone = now.of_free()
            width, tokens = alone.best_width(step.chances)
            if tokens:
                valued = alone.valued(step.chances)
                free = Free([sum(sorted(row, reverse=True)[: width - 1]) for row in valued], width)
        step.served = [tokens > 0 for tokens in free.tokens]
        if waits:
            return None, now.in_gaps(known.serving(step.rows[0]).gap(), free)
        choice, now = best(known, now, crew, free)
        # Beside one that pays another one may pay more, of which nothing is known yet.
        probe, wait = due(known, now, crew, free, besides=None if choice is None else choice.which)
        if probe is not None:
            step.probing, choice = True, probe
            step.ledger = probe.ledger or step.ledger
        elif choice is None:
            course.wait = wait
        return choice, now

    def _found(self, row: Row) -> Course | None:
        found = self._courses.get(row)
        return None if found is None else found()

    def _awake(self, crew: Crew, now: float) -> list[int]:
        """Free drafters that do not rest."""
        found = []
        for which in crew.working:
            drafter = self.known.drafters.get(crew.names[which])
            if drafter is not None and drafter.free and drafter.awake <= now:
                found.append(which)
        return found

    def observe(self, outcome: Outcome) -> None:
        """Learn the times of the step, and what its drafts were worth."""
        known, step, course = self.known, self._step, self._found(outcome.rows[0])
        if course is None:
            return  # nobody was to be chosen
        self._step = None
        plainly, self._plainly = self._plainly, outcome.width == 1 and (step is None or not step.costly)
        self._warm = course.before = frozenset() if step is None else frozenset([asked.which for asked in step.asked])
        if step is None or not step.asked:
            course.idled += 1
            known.now += 1
            if step is None and course.wait % 8:
                return  # of many plain passes every eighth tells enough
        # A plain pass after a draft finds the machine's caches full of other things.
        if plainly and self._plainly:
            known.times.observe(len(outcome.rows), 1, outcome.seconds_pass)
        if step is None or not step.asked:
            return
        course.lessons.append((step, outcome))
        if course.full(step, outcome) or self._awake(step.crew, known.now + course.ahead):
            self._learn(course)

    def _learn(self, course: Course) -> None:
        """Learn from the steps of which nothing was learned yet, and let no choice stand that was made before."""
        known, lessons = self.known, course.lessons
        course.standing, course.lessons = None, []
        for step, outcome in lessons:
            started = time.perf_counter()
            if outcome.width > 1:
                known.times.observe(len(outcome.rows), outcome.width, outcome.seconds_pass)
            if not step.at_once:
                for asked in step.asked:
                    step.timed(asked)
            if step.costly or step.offered:
                learn(known, step, outcome)
            else:
                learn_nothing(known, step, outcome)
            learning = time.perf_counter() - started
            if outcome is lessons[0][1]:  # as long as one by itself
                known.learning.add(learning)
            if step.costly:
                # Weighing free drafts is part of asking for them.
                asking = sum(asked.call if asked.costly else asked.seconds for asked in step.asked)
                deciding = max(0.0, outcome.seconds_draft - asking) + learning
                known.deciding.add(min(deciding, known.seconds(len(outcome.rows), 1)))

    def _learn_idle(self, course: Course) -> None:
        """Learn from the steps in which nobody was asked, once it is decided again."""
        if course.idled:
            learn_plain(self.known, course.rows, course.idled)
            course.idled = 0

    def report(self, row: Row) -> PacingReport | None:
        """What was chosen for the row, and the figures on which it was."""
        course = self._found(row)
        if course is not None:  # of what is to be reported nothing stays unlearned
            self._learn_idle(course)
            self._learn(course)
        return self.known.report(row)


def _prunes(crew: Crew) -> bool:
    """Whether it can be chosen how many nodes are verified.

    With fixed shapes there is one width, and with rejection what is verified must not depend on what was drawn.
    """
    return crew.target.fixed_width is None and crew.verification != "rejection"
