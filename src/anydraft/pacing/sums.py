"""Sums that fade: means, what drafts brought, and how far values stray."""

from __future__ import annotations

import math
from dataclasses import dataclass

FADING = 0.8
"""What a draft of a row counts after the next."""

FADING_SPREAD = 0.97
"""What a value counts after the next where it is asked how far they stray."""


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
        return self.total / self.weight if self.weight else 0.0


@dataclass(slots=True)
class Runs:
    """Decayed sums over drafts: tokens accepted, levels drafted, nodes verified, and runs that ended."""

    tokens: float = 0.0
    levels: float = 0.0
    nodes: float = 0.0
    ends: float = 0.0
    fading: float = FADING

    def add(self, tokens: float, levels: float, nodes: float, *, ended: bool) -> None:
        """Count one draft."""
        fading = self.fading
        self.tokens = fading * self.tokens + tokens
        self.levels = fading * self.levels + levels
        self.nodes = fading * self.nodes + nodes
        self.ends = fading * self.ends + ended

    def fade(self, keep: float) -> None:
        """Let all so far count for a share."""
        self.tokens *= keep
        self.levels *= keep
        self.nodes *= keep
        self.ends *= keep


@dataclass(slots=True)
class Spread:
    """How far single values stray from their decayed mean."""

    weight: float = 1.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Count one more."""
        self.weight = FADING_SPREAD * self.weight + 1
        self.total = FADING_SPREAD * self.total + value
        self.squares = FADING_SPREAD * self.squares + value * value

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(max(0.0, self.squares / self.weight - (self.total / self.weight) ** 2))
