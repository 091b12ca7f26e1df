"""Probing: which costly drafter that does not pay it is time to look at again, and whether there are means for it."""

from __future__ import annotations

import math
from typing import NamedTuple

from anydraft.crew import Crew
from anydraft.pacing.choosing import PROBE, Choice, length
from anydraft.pacing.experience import LONGEST_PAUSE, Expected, Experience
from anydraft.pacing.knowledge import TRIAL_LOSS, Knowledge
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.now import Free, Now

OVERDRAFT = 3.0
"""Plain passes of debt with probes of drafters in doubt that are allowed, beyond what the text's rest will pay back."""

DOUBT, KNOWN, MOST_HOPED = 2.0, 33, 0.98
"""Standard errors by which a drafter's tokens may be right more often than it seemed so far: if drafts of it would then
pay, it is in doubt. Drafts on which that rests at most, for older ones fade; and the most that is hoped for."""

DOUBTED = (1, 2, 4, 8)
"""Levels of drafts that are thought of then."""

BEATEN = 192
"""Tokens for which a drafter that is due waits where free drafters have something better than it can be hoped to have.
In their gaps it does not wait; but some texts have none."""

LONGEST_WAIT = 32
"""Most steps that go by without a question once it was decided that no costly drafter pays and none is due."""


class Look(NamedTuple):
    """What a drafter may be asked about a row to find out.

    Attributes:
        name, drafter: who, and what is known of it; place: of the row.
        free: what free drafters have.
    """

    known: Knowledge
    now: Now
    free: Free
    name: str
    drafter: Experience
    place: int

    def loss(self, draft: Expected) -> float:
        """Plain passes that such a draft is expected to lose against the step without it."""
        known, now, drafter, free = self.known, self.now, self.drafter, self.free
        drafting = drafter.times.seconds(draft.levels, 1) or (drafter.call.value if drafter.call else 0.0)
        drafting += known.deciding.value
        wide = max(draft.width, free.width) if len(now.rows) > 1 else draft.width
        tokens = now.gaps[self.place].drafted(draft.gain) - free.tokens[self.place]
        return drafting / now.plain + now.passes(wide) - now.passes(free.width) - tokens / now.worth

    def may_pay(self, draft: Expected, drafts: float) -> bool:
        """Whether drafts of some length would pay if their tokens were right as often as chance may have hidden so far.

        Args:
            draft: what is expected of the next one; drafts: on how many that rests.
        """
        right = draft.gain / (1 + draft.gain)
        tokens = (1 + draft.gain) * min(max(1.0, drafts), KNOWN)
        hoped = min(right + DOUBT * math.sqrt(right * (1 - right) / tokens), MOST_HOPED)
        per_level, deepest = self.drafter.record(self.now.rows[self.place]).reach.hazards().tokens, self.known.depth
        for levels in (*DOUBTED, deepest) if self.free.tokens[self.place] else DOUBTED:
            depth = per_level * min(levels, deepest)
            best = Expected(hoped * (1 - hoped**depth) / (1 - hoped), min(levels, deepest), 1 + depth)
            if self.loss(best) < 0:
                return True
        return False

    def means(self, start: float) -> Means:
        """Whether it can be paid for.

        Args:
            start: plain passes of reading the prompt.
        """
        known, row = self.known, self.now.rows[self.place]
        record, form = self.drafter.record(row), known.form(row, self.name)
        in_doubt = self.may_pay(known.expected(row, self.name, len(self.now.rows)), form.rests(record))
        beaten = self.free.tokens[self.place] > 0 and not in_doubt
        if known.on_trial(record) and start <= TRIAL_LOSS - record.trial_loss:
            return Means(beaten, -math.inf)
        loss = start + self.loss(form.expected(record, PROBE))
        ledger, most = known.exploring, 1.0
        if in_doubt:
            ledger, most = known.doubting, OVERDRAFT + known.doubting.share * row.remaining
        if record.gains.debt + loss <= -1 and not beaten:
            ledger = record.gains
        if ledger is record.gains or ledger.allows(loss, most):
            return Means(beaten, loss, ledger)
        owed = min(ledger.debt, ledger.debt + loss - most)
        return Means(beaten, loss, wait=math.ceil(owed / ledger.share))


class Means(NamedTuple):
    """How a look is paid for.

    Attributes:
        beaten: whether what free drafters have is better than it can be hoped to be.
        loss: plain passes that are expected to be lost; ledger: where they are entered, if not in the trial's.
        wait: steps until it may be paid for; 0 if it can be.
    """

    beaten: bool
    loss: float
    ledger: Ledger | None = None
    wait: int = 0


def due(
    known: Knowledge, now: Now, crew: Crew, free: Free, besides: int | None = None
) -> tuple[Choice | None, int]:
    """A costly drafter and rows for which it is time to look again; None when there is none, or no means.

    Args:
        free: what free drafters have; a row of which they have something waits longer, but not for ever.
        besides: a drafter that pays, beside which only those are looked at that are unknown or on trial.

    Returns:
        the choice, and if it is None how many steps may go by without the question.
    """
    found: list[tuple[float, int, int]] = []
    ledgers: dict[tuple[int, int], Ledger | None] = {}
    rows, wait = now.rows, LONGEST_WAIT
    for which in crew.working:
        name = crew.names[which]
        drafter = known.drafters.get(name)
        if which == besides or (drafter is not None and drafter.free):
            continue
        if besides is not None and drafter is not None and not known.on_trial(drafter.record(rows[0])):
            continue
        met = any(crew.met(which, row) for row in rows)
        for i, row in enumerate(rows):
            if (met and not crew.met(which, row)) or row.remaining <= 1:
                continue
            waited = row.position - known.form(row, name).due
            if free.tokens[i] and waited < LONGEST_PAUSE:
                continue
            if waited < 0:
                wait = min(wait, -waited)
                continue
            means = Means(False, -math.inf)
            if drafter is not None:
                start = 0.0 if met else known.reading(drafter, length(row), len(rows))
                means = Look(known, now, free, name, drafter, i).means(start)
            if means.beaten and waited < BEATEN:
                continue
            if means.wait:
                wait = min(wait, means.wait)
                continue
            found.append((means.loss, which, i))
            ledgers[which, i] = means.ledger
    if not found:
        return None, 0 if all(free.tokens) else wait  # in the next step they may have nothing
    _, which, first = min(found)
    # Others who have met the drafter come along: that costs little more and tells much more.
    others = [i for _, who, i in found if who == which and i != first and crew.met(which, rows[i])]
    return Choice(which, sorted([first, *others]), ledger=ledgers[which, first]), 0
