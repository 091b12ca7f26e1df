"""Probing: which costly drafter that does not pay it is time to look at again, and whether there are means for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anydraft.crew import Crew
from anydraft.pacing.choosing import PROBE, Choice, Now, length
from anydraft.pacing.experience import LONGEST_GAP, Expected, Experience, Record
from anydraft.pacing.knowledge import TRIAL_LOSS, Knowledge
from anydraft.pacing.ledger import Ledger

OVERDRAFT = 3.0
"""Plain passes of debt with probes of drafters in doubt that are allowed, beyond what the text's rest will pay back."""

DOUBT, KNOWN, MOST_HOPED = 2.0, 33, 0.98
"""Standard errors by which a drafter's tokens may be right more often than it seemed so far: if drafts of it would then
pay, it is in doubt. Drafts on which that rests at most, for older ones fade; and the most that is hoped for."""

DOUBTED = (1, 2, 4, 8)
"""Levels of drafts that are thought of then."""

BEATEN = 192
"""Tokens for which a drafter waits where free drafters have something better than it can be hoped to have: it will be
found out in their gaps, but if there are none."""

LONGEST_WAIT = 16
"""Most steps that go by without a question once it was decided that no costly drafter pays and none is due."""


def due(known: Knowledge, now: Now, crew: Crew, free: Sequence[float]) -> tuple[Choice | None, int]:
    """A costly drafter and rows for which it is time to look again; None when there is none, or no means.

    Args:
        free: per row the tokens expected of free drafts; such a row waits, but not for ever.

    Returns:
        the choice, and if it is None the steps until there may be one.
    """
    candidates: list[tuple[float, int, int]] = []
    ledgers: dict[tuple[int, int], Ledger] = {}
    rows, wait = now.rows, LONGEST_WAIT
    for which in crew.working:
        name = crew.names[which]
        drafter = known.drafters.get(name)
        if drafter is not None and drafter.free:
            continue
        met = any(crew.met(which, row) for row in rows)
        for i, row in enumerate(rows):
            if (met and not crew.met(which, row)) or row.remaining <= 1:
                continue
            ahead = known.form(row, name).due - row.position + (LONGEST_GAP if free[i] else 0)
            if ahead > 0:
                wait = min(wait, ahead)
                continue
            if drafter is None:
                candidates.append((-math.inf, which, i))
                continue
            start = 0.0 if met else known.reading(drafter, length(row), len(rows))
            record = drafter.record(row)
            draft, rests = known.expected(row, name, len(rows)), known.form(row, name).rests(record)
            in_doubt = may_pay(known, now, i, drafter, draft, record, rests, free[i])
            beaten = free[i] > 0 and not in_doubt
            if beaten and BEATEN + ahead > LONGEST_GAP:
                wait = min(wait, BEATEN + ahead - LONGEST_GAP)
                continue
            if known.on_trial(record) and start <= TRIAL_LOSS - record.trial_loss:
                candidates.append((-math.inf, which, i))
                continue
            loss = start + free[i] / now.worth
            loss += _loss(known, now, i, drafter, known.form(row, name).expected(record, PROBE))
            ledger, most = known.exploring, 1.0
            if in_doubt:
                ledger, most = known.doubting, OVERDRAFT + known.doubting.share * row.remaining
            if record.gains.debt + loss <= -1 and not beaten:
                ledger = record.gains
            if ledger is record.gains or ledger.allows(loss, most):
                candidates.append((loss, which, i))
                ledgers[which, i] = ledger
            else:
                owed = min(ledger.debt, ledger.debt + loss - most)
                wait = min(wait, math.ceil(owed / ledger.share))
    if not candidates:
        return None, wait
    _, which, first = min(candidates)
    # Others who have met the drafter come along: that costs little more and tells much more.
    others = [i for _, who, i in candidates if who == which and i != first and crew.met(which, rows[i])]
    return Choice(which, sorted([first, *others]), ledger=ledgers.get((which, first))), 0


def may_pay(
    known: Knowledge,
    now: Now,
    place: int,
    drafter: Experience,
    draft: Expected,
    record: Record,
    drafts: float,
    free: float = 0.0,
) -> bool:
    """Whether drafts of some length would pay if their tokens were right as often as chance may have hidden so far.

    Args:
        place: of the row.
        draft: what is expected of the next one; drafts: on how many that rests.
        free: tokens expected of free drafts instead.
    """
    right = draft.gain / (1 + draft.gain)
    tokens = (1 + draft.gain) * min(max(1.0, drafts), KNOWN)
    hoped = min(right + DOUBT * math.sqrt(right * (1 - right) / tokens), MOST_HOPED)
    for levels in (min(levels, known.depth) for levels in DOUBTED):
        depth = record.reach.hazards().tokens * levels
        best = Expected(hoped * (1 - hoped**depth) / (1 - hoped), levels, 1 + depth)
        if _loss(known, now, place, drafter, best) + free / now.worth < 0:
            return True
    return False


def _loss(known: Knowledge, now: Now, place: int, drafter: Experience, draft: Expected) -> float:
    """Plain passes that a draft for the row at a place is expected to lose."""
    drafting = drafter.times.seconds(draft.levels, 1) or (drafter.call.value if drafter.call else 0.0)
    drafting += known.deciding.value
    tokens = now.first + now.gaps[place].drafted(draft.gain)
    return drafting / now.plain + now.passes(draft.width) - tokens / now.worth
