"""What is known of a drafter: its times, its credit, and what its drafts have brought, in general and for a row.

What a draft brings is estimated as a run that ends somewhere: tokens accepted over runs that ended. A draft that was
right to the end of what it was allowed has not ended, so that short drafts tell how long ones would do. A row's own
drafts count more with each; a new row starts from what the drafter made of others under the same kind of sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from anydraft.pacing.belief import Belief
from anydraft.pacing.draft_times import DraftTimes
from anydraft.pacing.frailty import Frailty
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.reach import Reach
from anydraft.pacing.sides import Sides
from anydraft.pacing.sums import Mean, Runs, Spread
from anydraft.row import Row

HOPE = 0.3
"""Tokens that a draft of an unknown drafter is expected to bring."""

GENERAL = (1.0, 4.0, 16.0)
"""What was made of all rows counts like so many drafts of the row at hand: the first where texts differ and change, the
last where it is all chance. Whichever has foretold drafts best is believed."""

PER_TEXT = 4.0
"""Drafts on which rests at most what is expected of a new text, for each one that was seen: whether texts differ is not
to be learned from one."""

FADING_ERRORS = 0.99
"""What the error of a forecast counts after the next."""

FADING_GENERAL = 0.997
"""What a draft of all rows counts after the next."""

FADING_IDLE = 0.95
"""What a row's drafts count after one token without any: a run of bad luck is no reason to stay away for long."""

GAINS_IN_HAND = 8.0
"""Plain passes gained by drafts, and of one drafter lost, that are remembered."""

FIRST_PAUSE, LONGEST_PAUSE = 4, 48
"""Tokens from a probe that did not pay to the next."""

TRIAL_PAUSE = 16
"""Tokens between drafts of a drafter on trial, at least."""

LONGEST_REST, USELESS, LONGER = 16.0, 0.004, 2.0
"""Longest time, in plain passes, for which a free drafter is not asked; where asking it would take more than this share
of the time, it is longer, up to so many times as long: texts begin to repeat themselves at any time."""


def _unknown() -> Runs:
    return Runs(HOPE, 3.0, 5.0, 1.0, FADING_GENERAL)


@dataclass
class Record:
    """What the drafts of one drafter brought under one kind of sampling.

    Attributes:
        drafts: so far; texts: of how many rows; trial_loss: plain passes lost by the first of them.
        errors: squared ones of forecasts, for each of `GENERAL`.
        profit: plain passes that the tokens of a step with a draft were worth beyond those that it took.
        gains: what its drafts have gained or lost against doing without it.
        use: of a free drafter, tokens that asking it gained a step, less what asking and verifying took.
    """

    belief: Belief = field(default_factory=Belief)
    reach: Reach = field(default_factory=Reach)
    sides: Sides = field(default_factory=Sides)
    runs: Runs = field(default_factory=_unknown)
    drafts: int = 0
    texts: int = 0
    trial_loss: float = 0.0
    errors: list[float] = field(default_factory=lambda: [0.0] * len(GENERAL))
    profit: Spread = field(default_factory=Spread)
    gains: Ledger = field(default_factory=lambda: Ledger(0.0, bank=GAINS_IN_HAND, worst=GAINS_IN_HAND))
    use: Mean = field(default_factory=lambda: Mean.of(0.0, 4.0))

    @property
    def general(self) -> float:
        """How much `runs` count for a row, as drafts of its own."""
        return GENERAL[self.errors.index(min(self.errors))]

    def foretold(self, own: Runs, tokens: int, *, ended: bool) -> None:
        """Hold what was to be expected of a draft of a row against what came of it.

        Args:
            ended: else more might have come of it.
        """
        of_all = self.runs.tokens / self.runs.ends
        for i, weight in enumerate(GENERAL):
            error = tokens - (own.tokens + weight * of_all) / (own.ends + weight)
            self.errors[i] = FADING_ERRORS * self.errors[i] + (error * error if ended or error > 0 else 0.0)


class Expected(NamedTuple):
    """A draft: tokens accepted, levels drafted, and the width of the pass that verifies it."""

    gain: float
    levels: float
    width: float


@dataclass
class Form:
    """How one drafter does on one row at present.

    Attributes:
        frailty: of its paths by what is stated of levels; frailty_nodes: by what is stated of nodes.
        drafted: whether there was any draft.
        position: of the row after its last draft, or up to which the time without any was counted.
        due: position of the row from which on a probe is due.
        pause: tokens from a probe that did not pay to the next.
    """

    runs: Runs = field(default_factory=Runs)
    frailty: Frailty = field(default_factory=Frailty)
    frailty_nodes: Frailty = field(default_factory=Frailty)
    drafted: bool = False
    position: int = 0
    due: int = 0
    pause: int = FIRST_PAUSE

    def idle(self, position: int) -> None:
        """The row has come so far without further drafts."""
        if position > self.position:
            self.runs.fade(FADING_IDLE ** (position - self.position))
            self.position = position

    def expected(self, record: Record, depth: int) -> Expected:
        """What the next draft, of at most so many levels, is expected to bring and to take."""
        own, general, counts = self.runs, record.runs, record.general
        weight = counts / general.ends
        ends = own.ends + counts
        gain = (own.tokens + weight * general.tokens) / ends
        levels = (own.levels + weight * general.levels) / ends
        nodes = (own.nodes + weight * general.nodes) / ends
        # A run with the same chance of going on everywhere goes beyond the limit so often:
        beyond = (gain / (1 + gain)) ** depth
        limited = min(1.0, depth / max(levels, 1e-9))
        return Expected(gain * (1 - beyond), levels * limited, 1 + nodes * limited)

    def rests(self, record: Record) -> float:
        """Drafts on which rests what the next one is expected to bring: where texts differ, few but the row's own."""
        return min(record.drafts, self.runs.ends + min(record.general, PER_TEXT * record.texts))

    def doubt(self, record: Record) -> float:
        """Standard error of what a draft of the row is expected to bring, in plain passes."""
        return record.profit.deviation / math.sqrt(max(1.0, self.rests(record)))

    def probed(self, position: int, lost: float, *, paid: bool, on_trial: bool, again: bool) -> None:
        """Set when the next probe is due: at once, if the drafter had not drafted in the step before.

        Args:
            lost: plain passes; what a trial may lose is spread over the text.
        """
        if not again:
            self.due = position
            return
        if on_trial:
            self.pause = min(round(TRIAL_PAUSE * max(1.0, lost)), LONGEST_PAUSE)
        else:
            self.pause = FIRST_PAUSE // 2 if paid else min(2 * self.pause, LONGEST_PAUSE)
        self.due = position + self.pause


class Experience:
    """All that is known of one drafter.

    Attributes:
        times: of its drafts by level, and of reading a prompt.
        call: seconds of a call, whatever came of it.
        drafted: whether it ever drafted anything.
        settled: whether a call was timed that followed another one at once.
        awake: when it is asked again, if free.
        free: whether calls take next to no time; then it is asked at every step in which it does not rest.
    """

    def __init__(self) -> None:
        self.times = DraftTimes()
        self.call: Mean | None = None
        self.calls = 0
        self.awake = self._rest = 0.0
        self._asking = Mean.of(0.0, 0.0)
        self.free = self.settled = self.drafted = False
        self._records: dict[float, Record] = {}

    def record(self, row: Row) -> Record:
        """What it brought under the row's kind of sampling."""
        key = kind(row)
        record = self._records.get(key)
        if record is None:  # not `setdefault`, which would make one to throw away at every question
            record = self._records[key] = Record()
        return record

    def offered(self, now: float, cost: float, *, wanted: bool, right: bool, useful: bool) -> None:
        """A free drafter was asked: it rests, longer each time, if nothing was wanted and it is of no use as a rule.

        Args:
            now: time in plain passes, the step in which it was asked included; cost: those that asking took.
            wanted: some of its nodes were verified; right: some would have been kept that were not.
        """
        self._asking.add(cost)
        if wanted or useful:
            self._rest = 0.0
        elif right:
            self._rest //= 2
        else:
            longest = min(max(LONGEST_REST, self._asking.value / USELESS), LONGER * LONGEST_REST)
            self._rest = min(2 * self._rest + 1, longest)
        self.awake = now + self._rest

    def called(self, rows: int, levels: int, seconds: float, *, warm: bool) -> None:
        """Learn from one call.

        One that does not follow another at once finds the machine's caches full of other things, and may have to catch
        up: it says little of calls in a row, and counts only until there was one of those.
        """
        self.calls += 1
        if levels and not self.drafted:  # until now it only said nothing, which may take less time
            self.drafted, self.call = True, None
        if self.call is None:
            self.call = Mean.of(seconds, 1.0, 0.9)
        elif self.calls == 2:  # the first one may have had tables to build
            self.call = Mean.of(min(seconds, self.call.value), 1.0, 0.9)
        else:
            self.call.add(min(seconds, 4 * self.call.value))
        if not levels or (self.settled and not warm):
            return
        if warm and not self.settled:
            self.settled = True
            self.times.forget()
        self.times.observe(rows, levels, seconds)


def kind(row: Row) -> float:
    """The row's kind of sampling: 0 for greedy, or a temperature to the nearest quarter, and a quarter."""
    return 0.0 if row.noise is None else 0.25 + round(4 * row.params.temperature) / 4
