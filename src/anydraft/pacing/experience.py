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
    """

    drafts: float = 0.0
    hits: float = 0.0
    steps: float = 0.0
    nodes: float = 0.0
    luck: Luck = field(default_factory=Luck)
    due: int = 0
    gap: int = FIRST_GAP

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

    def probed(self, position: int, *, paid: bool, on_trial: bool = False) -> None:
        """Set when the next probe is due."""
        if on_trial:
            self.gap = 2 * FIRST_GAP
        else:
            self.gap = FIRST_GAP // 2 if paid else min(2 * self.gap, LONGEST_GAP)
        self.due = position + self.gap


class Experience:
    """All that is known of one drafter.

    Attributes:
        times: of its drafts by level, and of reading a prompt.
        call: seconds of a call, whatever came of it.
    """

    def __init__(self) -> None:
        self.times = DraftTimes()
        self.call: Mean | None = None
        self._records: dict[float, Record] = {}

    def record(self, row: Row) -> Record:
        """What it brought under the row's kind of sampling: greedy, or a temperature to the nearest quarter."""
        heat = 0.0 if row.noise is None else 0.25 + round(4 * row.params.temperature) / 4
        return self._records.setdefault(heat, Record())

    def called(self, rows: int, levels: int, seconds: float) -> None:
        """Learn from one call."""
        if self.call is None:
            self.call = Mean.of(seconds, 0.5, 0.9)
        self.call.add(min(seconds, 4 * self.call.value))
        if levels:
            self.times.observe(rows, levels, seconds)
