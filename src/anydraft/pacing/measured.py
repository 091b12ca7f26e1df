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
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from anydraft.crew import Crew
from anydraft.growth import Bounds
from anydraft.pacing.asking import Asking
from anydraft.pacing.choosing import Choice, Limits, Now, best, wanted
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.lessons import learn, learn_nothing, learn_plain
from anydraft.pacing.probing import due
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome
from anydraft.pacing.pruning import worth
from anydraft.pacing.report import PacingReport
from anydraft.row import Row

LEAST_PROBE = 3
"""Least width of a pass that verifies a draft made to find out."""

OVERHEAD = 0.01
"""Share of the time that finding out may cost."""

TOGETHER, SEASONED = 4, 24
"""Steps for which a choice stands, and of which is learned together, once a drafter has made so many drafts: between
passes of the model Python finds nothing in the caches, and the next of several lessons takes a third of the first."""


class Standing(NamedTuple):
    """A choice that pays, as it was made: at which step, and with what bounds."""

    now: Now
    choice: Choice
    bounds: list[Bounds]


@dataclass(slots=True)
class Course:
    """What one step leaves to the next of the same session.

    Attributes:
        rows: of the last step.
        before: drafters that were asked in it.
        wait: steps until costly drafters are thought of again.
        idled: steps without anybody asked of which nothing was learned yet.
        standing: the choice that stands.
        lessons: steps in which somebody was asked, of which nothing was learned yet.
    """

    rows: int = 0
    before: frozenset[int] = frozenset()
    wait: int = 0
    idled: int = 0
    standing: Standing | None = None
    lessons: list[tuple[Asking, Outcome]] = field(default_factory=list)


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
        # By first row: several sessions may take turns.
        self._courses: WeakKeyDictionary[Row, Course] = WeakKeyDictionary()

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """One draft per row, from whoever pays best, or from nobody."""
        count, known = len(rows), self.known
        course = self._courses.get(rows[0])
        if course is None or course.rows != count:
            course = self._courses[rows[0]] = Course(count)
            known.times.pad(crew.target.padded_width)
        awake = self._awake(crew)
        if course.standing is not None:
            if course.standing.choice.which in crew.working and not (awake or known.times.wants_plain(count)):
                return self._drafted_again(course, course.standing, rows, crew)
            self._learn(course)
        waits = course.wait > 0
        course.wait -= waits
        if waits and not awake:
            self._step = None
            return [NO_DRAFT] * count
        step = self._step = Asking(known, rows, crew, self._warm, course.before)
        if not crew.working or known.times.wants_plain(count):
            return step.drafts  # at times a plain pass, against which the others are measured
        for which in awake:
            step.ask_free(which, self.limits.bounds(count, self.limits.depth, (0.0,)))
        if waits and not (step.offered or step.costly):
            return step.drafts
        now = Now.of(known, rows)
        step.urgency = now.urgency
        width, free, offered = 1, [0.0] * count, step.offered
        if offered:
            width, tokens = now.best_width(step.chances)
            if tokens:
                free = [sum(sorted(row, reverse=True)[: width - 1]) for row in now.valued(step.chances)]
        choice = None
        if not waits:
            choice, value = best(known, now, crew, free, width)
            now = now._replace(worth=value)
            if choice is None:
                choice, course.wait = due(known, now, crew, free)
                if choice is None and any(free) and best(known, now, crew, [0.0] * count, 1)[0] is not None:
                    course.wait = 0  # only in this step, for what free drafters have, no costly one pays
                step.probing = choice is not None
                if choice is not None and choice.ledger is not None:
                    step.ledger = choice.ledger
        step.speed = now.worth / count
        if choice is not None:
            name, places = crew.names[choice.which], choice.places
            bounds = [wanted(known, now, name, i, len(places), self.limits, probing=step.probing) for i in places]
            if not (step.asked or step.probing) and known.drafters[name].record(rows[0]).drafts >= SEASONED:
                course.standing = Standing(now, choice, bounds)
            step.ask(choice.which, places, bounds)
        if not _prunes(crew):
            return step.drafts
        if choice is not None and step.probing:
            # What one row finds out is for all, so that it may be wider than would pay for one alone.
            rate = now.worth * len(choice.places) / count
            width = worth(step.chances, rate, now.ratios, least=LEAST_PROBE)[0]
        elif choice is not None:
            width = now.best_width(step.chances)[0]
        elif not offered:
            return step.drafts
        return step.pruned(width)

    def _drafted_again(self, course: Course, standing: Standing, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """Drafts as they were chosen in a step before."""
        now, choice, bounds = standing
        step = self._step = Asking(self.known, rows, crew, self._warm, course.before, at_once=False)
        step.urgency, step.speed = now.urgency, now.worth / len(rows)
        step.ask(choice.which, choice.places, bounds)
        return step.pruned(now.best_width(step.chances)[0]) if _prunes(crew) else step.drafts

    def _awake(self, crew: Crew) -> list[int]:
        """Free drafters that do not rest."""
        found = []
        for which in crew.working:
            drafter = self.known.drafters.get(crew.names[which])
            if drafter is not None and drafter.free and drafter.awake <= self.known.now:
                found.append(which)
        return found

    def observe(self, outcome: Outcome) -> None:
        """Learn the times of the step, and what its drafts were worth."""
        known, step = self.known, self._step
        course = self._courses.get(outcome.rows[0])
        if course is None:
            return  # nobody was to be chosen
        self._step = None
        plainly, self._plainly = self._plainly, outcome.width == 1 and (step is None or not step.costly)
        self._warm = course.before = frozenset() if step is None else frozenset([asked.which for asked in step.asked])
        if step is None or not step.asked:
            for row in outcome.rows:
                known.state(row).report.count("plain")
            course.idled += 1
            known.now += 1
            if step is None and course.wait % 4:
                return  # of many plain passes every fourth tells enough
        # A plain pass after a draft finds the machine's caches full of other things.
        if plainly and self._plainly:
            known.times.observe(len(outcome.rows), 1, outcome.seconds_pass)
        if course.idled:
            learn_plain(known, outcome.rows[0], course.idled)
            course.idled = 0
        if step is None or not step.asked:
            return
        course.lessons.append((step, outcome))
        last = len(course.lessons) >= TOGETHER or any(row.finish_reason is not None for row in outcome.rows)
        if last or course.standing is None:
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
            known.learning.add(learning)
            if step.costly:
                # Weighing free drafts is part of asking for them.
                asking = sum(asked.call if asked.costly else asked.seconds for asked in step.asked)
                deciding = max(0.0, outcome.seconds_draft - asking) + learning
                known.deciding.add(min(deciding, known.seconds(len(outcome.rows), 1)))

    def report(self, row: Row) -> PacingReport | None:
        """What was chosen for the row, and the figures on which it was."""
        course = self._courses.get(row)
        if course is not None:
            self._learn(course)  # the rows were given up
        return self.known.report(row)


def _prunes(crew: Crew) -> bool:
    """Whether it can be chosen how many nodes are verified.

    With fixed shapes there is one width, and with rejection what is verified must not depend on what was drawn.
    """
    return crew.target.fixed_width is None and crew.verification != "rejection"
