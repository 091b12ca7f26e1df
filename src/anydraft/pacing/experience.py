"""What is known of a drafter: its times, its credit, and what its drafts have brought, in general and for a row.

Gains are tokens accepted per draft. A row's own ones count more with each draft; a new row starts from what the drafter
made of others under the same kind of sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anydraft.pacing.belief import Belief, Luck
from anydraft.pacing.times import DraftTimes
from anydraft.row import Row

HOPE = 0.3
"""Tokens that a draft of an unknown drafter is expected to bring."""

GENERAL = 3.0
"""What was made of other rows counts like so many drafts of this one."""

FADING = 0.88
"""What a draft of a row counts after the next."""

FIRST_GAP, LONGEST_GAP = 4, 48
"""Tokens from a probe that did not pay to the next."""

STALE = 4
"""Tokens by which a drafter may be behind without its call counting as a slow one."""

TRIAL_GAP = 8
"""Tokens between drafts of a drafter on trial."""

LONGEST_REST = 16
"""Most steps in a row that a free drafter is not asked."""


@dataclass
class Mean:
    """A decayed mean that starts from a guess of a given weight."""

    total: float
    weight: float = 1.0
    decay: float = 0.97

    @classmethod
    def of(cls, guess: float, weight: float = 1.0, decay: float = 0.97) -> Mean:
        """A mean that is a guess so far."""
        return cls(guess * weight, weight, decay)

    def add(self, value: float) -> None:
        """Count one more."""
        self.total = self.total * self.decay + value
        self.weight = self.weight * self.decay + 1

    @property
    def value(self) -> float:
        """The mean."""
        return self.total / self.weight


@dataclass
class Record:
    """What the drafts of one drafter brought under one kind of sampling.

    `trial_loss`: plain passes lost by its first drafts.
    """

    belief: Belief = field(default_factory=Belief)
    gain: Mean = field(default_factory=lambda: Mean.of(HOPE))
    levels: Mean = field(default_factory=lambda: Mean.of(3.0))
    width: Mean = field(default_factory=lambda: Mean.of(6.0))
    drafts: int = 0
    trial_loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Expected:
    """A draft: tokens accepted, levels drafted, and the width of the pass that verifies it."""

    gain: float
    levels: float
    width: float


@dataclass
class Form:
    """How one drafter does on one row at present.

    Attributes:
        due: position of the row from which on a probe is due.
        gap: tokens from a probe that did not pay to the next.
        seen: position up to which the drafter has read.
        again: the last probe found the drafter behind; the next step tells what it is like when it is not.
    """

    drafts: float = 0.0
    hits: float = 0.0
    steps: float = 0.0
    nodes: float = 0.0
    luck: Luck = field(default_factory=Luck)
    due: int = 0
    gap: int = FIRST_GAP
    seen: int = -STALE
    again: bool = False

    def stale(self, position: int) -> bool:
        """Whether the drafter has fallen behind, so that its next call takes longer than those that follow."""
        return position - self.seen > STALE

    def add(self, gain: float, levels: float, width: float) -> None:
        """Count one draft."""
        self.drafts = FADING * self.drafts + 1
        self.hits = FADING * self.hits + gain
        self.steps = FADING * self.steps + levels
        self.nodes = FADING * self.nodes + width

    def expected(self, record: Record) -> Expected:
        """What the next draft is expected to bring and to take."""
        weight = self.drafts + GENERAL
        return Expected(
            gain=(self.hits + GENERAL * record.gain.value) / weight,
            levels=(self.steps + GENERAL * record.levels.value) / weight,
            width=(self.nodes + GENERAL * record.width.value) / weight,
        )

    def probed(self, position: int, *, paid: bool, on_trial: bool = False, stale: bool = False) -> None:
        """Set when the next probe is due."""
        self.seen, self.again = position, stale
        if stale:
            self.due = position
            return
        if on_trial:
            self.gap = TRIAL_GAP
        else:
            self.gap = FIRST_GAP // 2 if paid else min(2 * self.gap, LONGEST_GAP)
        self.due = position + self.gap


class Experience:
    """All that is known of one drafter.

    Attributes:
        times: of its drafts by level, and of reading a prompt.
        call: seconds of a call, whatever came of it.
        rests: steps in which it is passed over from now on, if free.
        settled: whether a call was timed that had nothing to catch up with.
        free: whether calls take next to no time; then it is asked at every step.
    """

    def __init__(self) -> None:
        self.times = DraftTimes()
        self.call: Mean | None = None
        self._records: dict[float, Record] = {}
        self._calls = self._rest = self.rests = 0
        self.free = self.settled = False

    def record(self, row: Row) -> Record:
        """What it brought under the row's kind of sampling: greedy, or a temperature to the nearest quarter."""
        heat = 0.0 if row.noise is None else 0.25 + round(4 * row.params.temperature) / 4
        return self._records.setdefault(heat, Record())

    def resting(self) -> bool:
        """Whether a free drafter is passed over in this step, because its last drafts were hopeless."""
        if self.rests:
            self.rests -= 1
            return True
        return False

    def offered(self, *, hopeless: bool) -> None:
        """A free draft was offered: if it was hopeless, the drafter rests, longer each time."""
        self._rest = min(2 * self._rest + 1, LONGEST_REST) if hopeless else 0
        self.rests = self._rest

    def called(self, rows: int, levels: int, seconds: float, *, stale: bool) -> None:
        """Learn from one call; from one that had to catch up only while nothing better is known."""
        if stale and self.settled:
            return
        if not stale and levels and not self.settled:
            self.settled, self.times = True, self.times.anew()
        self._calls += 1
        if self.call is None:
            self.call = Mean.of(seconds, 1.0, 0.9)
        elif self._calls == 2:  # the first one may have had tables to build
            self.call = Mean.of(min(seconds, self.call.value), 1.0, 0.9)
        else:
            self.call.add(min(seconds, 4 * self.call.value))
        if levels:
            self.times.observe(rows, levels, seconds)
