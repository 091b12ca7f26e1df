"""Whom to ask for drafts, for which rows and how deep, from what is known.

Free drafters are asked anyway; here it is decided about one costly drafter per step: the one that pays best. Who is to
be looked at again if none does is in `probing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from anydraft.crew import Crew
from anydraft.growth import SIDE, Bounds
from anydraft.pacing.knowledge import FEWEST, TRIAL_LOSS, Knowledge, most_nodes
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.now import Free, Now
from anydraft.pacing.reach import LEAST
from anydraft.pacing.serving import Gap
from anydraft.row import Row

ADVANTAGE, PATIENCE = 0.01, 0.5
"""Tokens of a row by which drafting must be expected to be better than not drafting, if that is certain; and standard
errors by which it may be expected to be worse, for it may be bad luck (and what that may cost is bounded)."""

FIRST, PROBE = 3, 6
"""Levels of a drafter's very first draft, and at most of a later one that is made to find out."""

DARING, BOLD = 0.7, 0.35
"""Share of the least mass of a level at which a draft that is made to find out still goes on; and the most that it asks
for, whatever was learned of levels, or a drafter that was wrong at first would never show how far it is right."""

SHORTEST = 3
"""Levels of a draft that is made to find out, whatever is stated: of one level nothing is learned of the next."""

DEEPER = 2
"""Times the levels of the deepest draft so far that a next one may have: nobody knows what deeper ones take."""

DEEPEST_DEBT = 6.0
"""Plain passes (and one a row) behind plain decoding at which a drafter that seems to pay is no longer believed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is ever drafted for a single row; for more rows it is less.

    Attributes:
        depth: levels; width: nodes expanded per level; nodes: of a draft; branch: alternatives after each node.
        min_node: nodes that the drafter gives less than this are left out.

    Raises:
        ValueError: one of them is below 1, or `min_node` no probability.
    """

    depth: int
    width: int
    nodes: int
    branch: int
    min_node: float

    def __post_init__(self) -> None:
        for name in ("depth", "width", "nodes", "branch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}; for none, give no drafter")
        if not 0 <= self.min_node <= 1:
            raise ValueError(f"min_node is a probability, from 0 to 1, got {self.min_node}")

    def deep(self, gain: float) -> int:
        """Levels worth drafting for a gain that is expected: room for twice as many, and some more."""
        return min(self.depth, math.ceil(2 * gain) + 4)

    def bounds(
        self, rows: int, depth: int, min_masses: tuple[float, ...], side: float = SIDE, width: float = math.inf
    ) -> Bounds:
        """Bounds of a draft for one of so many rows.

        Args:
            width: of the pass that is expected to verify it, of which the draft has twice as many nodes at most.
        """
        nodes = most_nodes(self.nodes, rows)
        if nodes > 2 * width:
            nodes = max(FEWEST, 2 * round(width))
        expanded = max(1, self.width // (1 + rows // 3))
        return Bounds(
            min(depth, self.depth), expanded, min(nodes, self.nodes), min_masses, self.min_node, self.branch, side=side
        )


class Choice(NamedTuple):
    """A costly drafter, the rows it is asked for (places), and what is expected.

    Attributes:
        gains: tokens of its drafts, by place; passes: time of the step, in plain ones.
        ledger: where a draft that is made to find out is entered.
    """

    which: int
    places: list[int]
    gains: Sequence[float] = ()
    passes: float = 0.0
    ledger: Ledger | None = None

    def tokens(self, now: Now, free: Free) -> float:
        """What the tokens of all rows are worth that are expected."""
        found = now.first + sum(free.tokens)
        for i, gain in zip(self.places, self.gains, strict=True):
            found += now.gaps[i].drafted(gain) * now.urgency[i] - free.tokens[i]
        return found

    def of_gap(self, now: Now, gap: Gap, copied: float) -> float:
        """Plain passes that a token takes if it drafts like this in gaps.

        Args:
            copied: plain passes that one takes beyond the end of a gap.
        """
        counted, count = gap._replace(own=1.0, beyond=0.0), len(now.rows)
        tokens = within = float(count)
        for i, gain in zip(self.places, self.gains, strict=True):
            tokens += now.urgency[i] * gain
            within += now.urgency[i] * counted.drafted(gain)
        own = (count * self.passes - copied * (tokens - within)) / within
        return own if own > copied else count * self.passes / tokens


def best(known: Knowledge, now: Now, crew: Crew, free: Free) -> tuple[Choice | None, Now]:
    """The costly drafter that pays best at present, or None when none pays, and the step with what is worth what then.

    Args:
        free: what free drafters have.
    """
    count, serving = len(now.rows), known.serving(now.rows[0])
    gap = serving.gap()
    plain = now = now.in_gaps(gap, free)
    if known.safety.debt > DEEPEST_DEBT + count:
        return None, plain
    offers = [offer for which in crew.working if (offer := _offer(known, now, crew, which, free)) is not None]
    own = min((offer.of_gap(now, gap, serving.copied) for offer in offers), default=1.0)
    if own < 1:
        now = now.in_gaps(serving.gap(own), free)._replace(worth=count * max(1.0, serving.with_other(own)))
    found, most = None, now.first + sum(free.tokens) - now.worth * now.passes(free.width)
    for offer in offers:
        # Of several rows, whose luck differs, the mean is surer than of one.
        patience = PATIENCE * now.worth * known.doubt(now.rows[0], crew.names[offer.which]) / math.sqrt(count)
        value = offer.tokens(now, free) - now.worth * offer.passes + patience - count * ADVANTAGE
        if value > most:
            found, most = offer, value
    return found, plain if found is None else now


def _offer(known: Knowledge, now: Now, crew: Crew, which: int, free: Free) -> Choice | None:
    """What a costly drafter would bring, for as many rows as pay; None if it is unknown or free."""
    rows, count, name = now.rows, len(now.rows), crew.names[which]
    drafter = known.drafters.get(name)
    if drafter is None or drafter.free or not drafter.times.step(count):
        return None
    drafts = [known.expected(row, name, count) for row in rows]
    gains = [
        gap.drafted(draft.gain) * urgent for gap, draft, urgent in zip(now.gaps, drafts, now.urgency, strict=True)
    ]
    order = [i for i in range(count) if rows[i].remaining > 1]
    order.sort(key=lambda i: free.tokens[i] - gains[i])
    tokens, starting, levels, wide = now.first + sum(free.tokens), 0.0, 0.0, float(free.width)
    found, most = None, -math.inf
    for place, i in enumerate(order, start=1):
        if gains[i] <= free.tokens[i]:
            break
        tokens += gains[i] - free.tokens[i]
        if not crew.met(which, rows[i]):  # reading the prompt is paid for by all that is still to come
            share = (1 + drafts[i].gain) / max(1, rows[i].remaining)
            starting += share * known.reading(drafter, length(rows[i]), count)
        levels, wide = max(levels, drafts[i].levels), max(wide, drafts[i].width)
        drafting = (drafter.times.seconds(levels, place) or 0.0) + known.deciding.value
        passes = drafting / now.plain + starting + now.passes(wide)
        value = tokens - now.worth * passes
        if value > most:
            found, most = Choice(which, order[:place], [drafts[j].gain for j in order[:place]], passes), value
    return found


def length(row: Row) -> int:
    """Tokens of a row so far, which a drafter reads when it meets it."""
    return len(row.prompt) + len(row.tokens)


def wanted(known: Knowledge, now: Now, name: str, place: int, rows: int, limits: Limits, *, probing: bool) -> Bounds:
    """Bounds of a draft of a costly drafter for the row at a place, one of so many that are drafted for.

    Args:
        probing: only to find out.
    """
    row, drafter = now.rows[place], known.drafters.get(name)
    step = None if drafter is None else drafter.times.step(rows)
    if drafter is None or step is None:
        return limits.bounds(rows, FIRST, (0.1,))
    record, draft, step = drafter.record(row), known.expected(row, name, rows), step / now.plain
    hazards, frailties = record.reach.hazards(), record.reach.frailties(known.form(row, name).frailty.factor())
    value = rows * now.urgency[place]
    hits = now.worth * step / value  # a further level is worth its time if it brings what a token is worth so often
    gap, per_level = now.gaps[place], hazards.tokens
    # In a batch one row is asked for what is learned for all.
    if probing and hits * value < len(now.rows) * gap.token(per_level):
        left = max(1, int((TRIAL_LOSS - record.trial_loss) / step)) if known.on_trial(record) else PROBE
        masses = hazards.least_masses(hits, gap.tokens(PROBE, per_level), *frailties)
        asked = (min(DARING * mass, BOLD) for mass in masses)
        least = tuple(LEAST if level < SHORTEST else mass for level, mass in enumerate(asked))
        return limits.bounds(rows, min(PROBE, left), least, record.sides.share)
    depth = min(limits.deep(draft.gain), DEEPER * max(drafter.times.deepest, FIRST))
    verifying = now.node(draft.width) * (draft.width - 1) / max(draft.levels, 1.0)
    hits += now.worth * verifying / value  # and its nodes take their time, or the place of others
    least = hazards.least_masses(hits, gap.tokens(depth, per_level), *frailties)
    return limits.bounds(rows, depth, least, record.sides.share, draft.width)
