"""Serving: how often free drafters have something, and what that says about the worth of time and of tokens.

What the time of a step is worth is not the speed of plain decoding: where a copy of twenty tokens is found every other
step, five tokens in the time of four plain passes are a loss. Nor are all tokens worth the same. Where free drafters
have nothing there is a gap in what they copy, and a gap has a length: every token of it that is committed brings the
next copy nearer, and saves the time of a token of a gap. One beyond its end would have been copied for next to nothing.
This is the average-reward rule of decision theory, for two kinds of places in a text.
"""

from __future__ import annotations

from typing import NamedTuple

STEPS = 24.0
"""Steps after which what was served counts a third."""

START = 4.0
"""Tokens of a gap that are taken to have been before the first, and not to have ended it."""

GAPS = 64.0
"""Steps in gaps after which what was seen of their ends counts a third."""


class Gap(NamedTuple):
    """What the tokens of a row are worth that a step commits, in tokens on average over the text.

    Attributes:
        goes_on: chance that the next token is one of the gap, too.
        own: worth of a token of the gap; beyond: of one after its end.
    """

    goes_on: float = 1.0
    own: float = 1.0
    beyond: float = 1.0

    def token(self, depth: float) -> float:
        """Worth of the token after so many others of the step."""
        return self.beyond + (self.own - self.beyond) * float(self.goes_on**depth)

    def tokens(self, levels: int, by_level: float) -> list[float]:
        """Worth of the last token of each of so many levels, which bring so many tokens each."""
        return [self.token(by_level * level) for level in range(1, levels + 1)]

    def within(self, tokens: int) -> float:
        """How many of so many tokens are expected to be of the gap."""
        return tokens if self.goes_on == 1 else (1 - self.goes_on**tokens) / (1 - self.goes_on)

    def drafted(self, gain: float) -> float:
        """Worth of the tokens of a draft of which so many are expected to be kept, each with the same chance."""
        within = 1 / (1 - self.goes_on * gain / (1 + gain)) - 1
        return self.beyond * gain + (self.own - self.beyond) * within

    def committed(self, tokens: int) -> float:
        """Worth of so many tokens."""
        return self.beyond * tokens + (self.own - self.beyond) * self.within(tokens)


EVEN = Gap()
"""Where all tokens are worth the same."""


class Serving:
    """What free drafters had of late, per row.

    Attributes:
        speed: tokens of a row per plain pass, if plain passes are made whenever they have nothing.
    """

    def __init__(self) -> None:
        self._gap = START
        self._served = self._tokens = self._passes = 0.0
        self._looked, self._ends = START, 0.0
        self.speed = 1.0

    def add(self, served: float, tokens: float, passes: float, gap: float) -> None:
        """Count a step.

        Args:
            served: share of the rows with a free draft; tokens: accepted of them, per row.
            passes: time of the step's pass, in plain ones.
            gap: tokens of gaps that it committed, per row.
        """
        keep = 1 - 1 / STEPS
        self._gap = keep * self._gap + gap
        self._served = keep * self._served + served
        self._tokens = keep * self._tokens + tokens
        # Rows beside a copy would have had a plain pass anyway.
        self._passes = keep * self._passes + (passes - (1 - served) if served else 0.0)
        self.speed = max(1.0, self.with_other(1.0))

    def went(self, tokens: int, *, ended: bool) -> None:
        """A row in a gap went on by so many tokens, and had a free draft then, or had none."""
        keep = 1 - 1 / GAPS
        self._looked = keep * self._looked + ((tokens + 1) / 2 if ended else tokens)
        self._ends = keep * self._ends + ended

    @property
    def copied(self) -> float:
        """Time of a token that free drafters have, in plain passes; at most 1."""
        return min(1.0, self._passes / (self._served + self._tokens)) if self._served else 1.0

    def with_other(self, own: float) -> float:
        """Speed of the whole if a token of a gap takes so many plain passes."""
        return (self._gap + self._served + self._tokens) / max(self._gap * own + self._passes, 1e-9)

    def gap(self, own: float = 1.0) -> Gap:
        """What tokens of a row are worth for which free drafters have nothing.

        Args:
            own: plain passes that a token of a gap takes.
        """
        if not self._ends:
            return EVEN
        speed = max(1.0, self.with_other(own))
        return Gap(1 - self._ends / self._looked, speed * own, speed * min(own, self.copied))
