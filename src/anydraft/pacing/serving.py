"""Serving: how often free drafters have something, and what that says about the worth of time.

A step is good if its tokens are more than would have been had in its time anyway. What is had anyway is not the speed
of plain decoding: where a copy of twenty tokens is found every other step, five tokens in the time of four plain passes
are a loss. So steps are compared by their tokens less the speed of the whole times their time (the average-reward
rule), and the speed of the whole is that of the best thing to do where free drafters have nothing.
"""

from __future__ import annotations

STEPS = 24.0
"""Steps after which what was served counts a third."""

START = 4.0
"""Steps without anything that are taken to have been before the first."""


class Serving:
    """What free drafters had of late, per row.

    Attributes:
        speed: tokens of a row per plain pass, if plain passes are made whenever they have nothing.
    """

    def __init__(self) -> None:
        self._steps = START
        self._served = self._tokens = self._passes = 0.0
        self.speed = 1.0

    def add(self, served: float, tokens: float, passes: float) -> None:
        """Count a step.

        Args:
            served: share of the rows with a free draft.
            tokens: accepted of them, per row.
            passes: time of the step's pass, in plain ones.
        """
        keep = 1 - 1 / STEPS
        self._steps = keep * self._steps + 1
        self._served = keep * self._served + served
        self._tokens = keep * self._tokens + tokens
        self._passes = keep * self._passes + served * passes
        self.speed = max(1.0, self.with_other(1.0, 1.0))

    def with_other(self, tokens: float, passes: float) -> float:
        """Speed of the whole if steps in which they have nothing bring a row so many tokens in so many plain passes."""
        others = self._steps - self._served
        return (self._served + self._tokens + others * tokens) / max(self._passes + others * passes, 1e-9)
