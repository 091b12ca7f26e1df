"""Whom to ask for drafts, for which rows and how deep, from what is known.

Free drafters are asked anyway; here it is decided about one costly drafter per step: the one that pays best, or one
that it is time to look at again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anydraft.crew import Crew
from anydraft.pacing.knowledge import TRIAL_LOSS, Knowledge
from anydraft.pacing.protocol import Draft
from anydraft.row import Row
from anydraft.tree import Bounds

ADVANTAGE = 1.01
"""By how much drafting must be expected to be faster than not drafting."""

GOING_ON = 0.8
"""Guessed share of the chance of getting to a level that is left at the next."""

FIRST, PROBE = 3, 6
"""Levels of a drafter's very first draft, and at most of a later one that is made to find out."""

NEARLY = 0.8
"""Plain passes that a probe may be expected to lose when it is paid for by what drafts have gained before."""

DEEPEST_DEBT = 6.0
"""Plain passes (and one a row) behind plain decoding at which a drafter that seems to pay is no longer believed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is ever drafted for a single row; for more rows it is less.

    Attributes:
        depth: levels; width: nodes expanded per level; nodes: of a draft; branch: alternatives after each node.
        min_node: nodes that the drafter gives less than this are left out.
    """

    depth: int
    width: int
    nodes: int
    branch: int
    min_node: float

    def deep(self, gain: float) -> int:
        """Levels worth drafting for a gain that is expected: room for twice as many, and some more."""
        return min(self.depth, math.ceil(2 * gain) + 4)

    def bounds(self, rows: int, depth: int, min_mass: float) -> Bounds:
        """Bounds of a draft for one of so many rows."""
        width = max(1, self.width // (1 + rows // 3))
        nodes = max(7, self.nodes * 2 // (rows + 1))
        return Bounds(depth, width, nodes, min_mass, self.min_node, self.branch)


@dataclass(frozen=True, slots=True)
class Choice:
    """A costly drafter, the rows it is asked for (places), and tokens per second that are expected with it."""

    which: int
    places: list[int]
    rate: float


def best(
    known: Knowledge, rows: Sequence[Row], crew: Crew, free: Sequence[float], width: int, rate: float
) -> Choice | None:
    """The costly drafter that pays best at present, and the rows for which it does; None when none pays.

    Args:
        free: per row the tokens expected of free drafts.
        width: of a pass over those.
        rate: tokens per second, of all rows, without a costly drafter.
    """
    count = len(rows)
    if known.safety.debt > DEEPEST_DEBT + count:
        return None
    found: Choice | None = None
    rate *= ADVANTAGE
    for which in crew.working:
        name = crew.names[which]
        drafter = known.drafters.get(name)
        if drafter is None or not drafter.times.step(count) or known.free(name, count):
            continue
        drafts = [known.expected(row, name) for row in rows]
        order = sorted(range(count), key=lambda i: free[i] - drafts[i].gain)
        tokens, starting, levels, wide = count + sum(free), 0.0, 0.0, width
        for place, i in enumerate(order, start=1):
            gain = drafts[i].gain
            if gain <= free[i]:
                break
            tokens += gain - free[i]
            if not crew.met(which, rows[i]):  # reading the prompt is paid for by all that is still to come
                starting += drafter.times.start(length(rows[i])) * (1 + gain) / max(1, rows[i].remaining)
            levels, wide = max(levels, drafts[i].levels), max(wide, round(drafts[i].width))
            drafting = drafter.times.seconds(levels, place) or 0.0
            with_it = tokens / (drafting + starting + known.seconds(count, wide))
            if with_it > rate:
                rate, found = with_it, Choice(which, order[:place], with_it)
    return found


def length(row: Row) -> int:
    """Tokens of a row so far, which a drafter reads when it meets it."""
    return len(row.prompt) + len(row.tokens)


def due(known: Knowledge, rows: Sequence[Row], crew: Crew, rate: float) -> Choice | None:
    """A costly drafter and rows for which it is time to look again; None when there is none, or no means."""
    candidates: list[tuple[float, int, int]] = []
    count = len(rows)
    plain = known.seconds(count, 1)
    for which in crew.working:
        name = crew.names[which]
        drafter = known.drafters.get(name)
        if known.free(name, count):
            continue
        met = any(crew.met(which, row) for row in rows)
        for i, row in enumerate(rows):
            if drafter is None:
                candidates.append((-math.inf, which, i))
                continue
            if known.form(row, name).due > row.position or (met and not crew.met(which, row)):
                continue
            start = 0.0 if met else drafter.times.start(length(row))
            record = drafter.record(row)
            if known.on_trial(record) and start / plain <= TRIAL_LOSS - record.trial_loss:
                candidates.append((-math.inf, which, i))
                continue
            draft = known.expected(row, name)
            levels = min(draft.levels, PROBE)
            drafting = drafter.times.seconds(levels, 1) or (drafter.call.value if drafter.call else 0.0)
            taken = drafting + start + known.seconds(count, round(min(draft.width, levels)))
            loss = taken / plain - 1 - draft.gain / count
            in_hand = loss < NEARLY and known.safety.debt + loss <= -1  # gains so far pay for it
            if in_hand or known.form(row, name).again or known.exploring.allows(loss):
                candidates.append((loss, which, i))
    if not candidates:
        return None
    _, which, first = min(candidates)
    # Others who have met the drafter come along: that costs little more and tells much more.
    others = [i for _, who, i in candidates if who == which and i != first and crew.met(which, rows[i])]
    return Choice(which, sorted([first, *others]), rate)


def due_free(known: Knowledge, rows: Sequence[Row], crew: Crew, drafts: Sequence[Draft]) -> bool:
    """Whether it is time to verify a free draft again of which nothing is expected."""
    count = len(rows)
    if not known.exploring.allows(known.seconds(count, 3) / known.seconds(count, 1) - 1):
        return False
    offered = ((row, draft.drafter) for row, draft in zip(rows, drafts, strict=True) if draft.drafter is not None)
    return any(known.form(row, crew.names[which]).due <= row.position for row, which in offered)


def wanted(known: Knowledge, name: str, row: Row, rows: int, rate: float, limits: Limits, *, probing: bool) -> Bounds:
    """Bounds of a draft of a costly drafter for one of so many rows.

    Args:
        rate: tokens per second that are had anyway, which is what a second of drafting must bring.
        probing: only to find out.
    """
    drafter = known.drafters.get(name)
    if drafter is None or not drafter.settled:
        return limits.bounds(rows, FIRST, 0.1)
    record, draft = drafter.record(row), known.expected(row, name)
    step = drafter.times.step(rows) or 0.0
    mass = rate * step / (GOING_ON * rows)
    if mass < 1 and (probing or known.on_trial(record)):
        # How far it is right is to be found out, whatever it says.
        left = max(1, int((TRIAL_LOSS - record.trial_loss) * known.seconds(rows, 1) / max(step, 1e-9)))
        return limits.bounds(rows, min(PROBE, left) if known.on_trial(record) else PROBE, 0.1)
    # A further level is worth its time if the chance of getting there is; above 1 none is but the first.
    bounds = limits.bounds(rows, limits.deep(draft.gain), max(record.belief.as_stated(mass), 0.01))
    return replace(bounds, nodes=min(bounds.nodes, max(7, 2 * round(draft.width))))
