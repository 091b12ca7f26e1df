"""Reach: how the right path through drafts ends, by depth and by what the drafter said of getting there.

Before each level a drafter states the probability that the target's path is among the nodes from which it goes on
(`DraftTree.masses`). Where a draft should end follows from what such a statement is worth. The path is taken for
something that may end at every level, with a hazard of two parts: one for the depth alone, and one for each unit by
which the logarithm of the stated mass falls there. A drafter that is honest has 1 for the second and little for the
first; one that is sure and wrong has much for the first; one that is modest and right has next to nothing for both, and
its drafts go on whatever it says. Both parts are learned from verified drafts, in which a path that was right to the
end of the draft has not ended (censored exponential times). A row has a factor of its own on all of it, its `frailty`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import NamedTuple

from anydraft.pacing.frailty import survived
from anydraft.tree import DraftTree

DEPTHS = (1, 2, 3, 5, 8, 12)
"""Levels (from 0) at which another hazard of depth begins."""

NATS, LEVELS = 1.5, 5.0
"""What is believed of a drafter before counts like so many nats of stated mass, and levels of each range of depth."""

GUESSED_DEPTH = 0.1
"""Guessed hazard of a first level; further ranges of depth lean on the one before."""

LEAST_DEPTH = 0.005
"""Least hazard of a level that is believed."""

GUESSED_DROP = 0.2
"""Nats by which the stated mass falls at a level, before any was seen."""

FADING = 0.98
"""What a draft counts after the next."""

FADING_SURPRISE = 0.99
"""What the surprise of a draft counts after the next, where it is asked what a row's factor is good for."""

LEAST, NONE = 0.002, 2.0
"""Lowest least mass, and one that no level has."""

_RANGES = len(DEPTHS) + 1
_PLACE = tuple(bisect_right(DEPTHS, level) for level in range(DEPTHS[-1] + 1))


def _place(level: int) -> int:
    return _PLACE[level] if level < len(_PLACE) else _RANGES - 1


class Along(NamedTuple):
    """Hazards of the levels of a path, in two parts: for what is stated, and for depth."""

    stated: list[float]
    depth: list[float]

    @property
    def together(self) -> list[float]:
        """By level."""
        return [*map(add, self.stated, self.depth)]


@dataclass(frozen=True, slots=True)
class Hazards:
    """How paths end.

    Attributes:
        stated: for each nat by which the stated mass falls.
        depth: of a level, by range of depth.
        drop: nats by which the mass falls at a level, on average.
        tokens: of the target that a level of the drafter brings; less than 1 where its tokens are shorter.
    """

    stated: float = 1.0
    depth: tuple[float, ...] = (GUESSED_DEPTH,) * _RANGES
    drop: float = GUESSED_DROP
    tokens: float = 1.0

    def least_masses(
        self, hits: float, worth: Sequence[float], frailty: float = 1.0, of_stated: float = 1.0
    ) -> tuple[float, ...]:
        """By level of the drafter, the stated mass down to which it brings so much; `NONE` where it does not.

        Args:
            hits: what it has to bring; worth: of a token, by level.
            frailty: factor on hazards of depth; of_stated: on those of what is stated.
        """
        found: list[float] = []
        lost, rate = 0.0, max(of_stated * self.stated, 1e-6)
        for level, token in enumerate(worth):
            lost += frailty * self.tokens * self.depth[_place(int(self.tokens * level))]
            left = math.log(max(self.tokens * token, 1e-9) / max(hits, 1e-9)) - lost
            nats = left / rate - self.tokens * self.drop
            if nats < 0:
                return (*found, *[NONE] * (len(worth) - level))
            found.append(max(math.exp(-min(nats, 50.0)), LEAST))
        return tuple(found)

    def along(self, path: Path) -> Along:
        """Hazards of the levels of a path, and of the one at which it ended."""
        levels = range(path.survived + path.ended)
        drops = [*path.drops, *[self.drop] * (len(levels) - len(path.drops))]
        return Along([self.stated * drops[level] for level in levels], [self.depth[_place(level)] for level in levels])


GUESSED = Hazards()


@dataclass(frozen=True, slots=True)
class Path:
    """The right path through a draft.

    Attributes:
        levels: of the drafter, 0 where they say nothing of the depth; depth: in the target's tokens.
        survived: depth that it got through, of that.
        ended: whether it is known to have ended at the level after those.
        drops: by level of those, nats by which the stated mass fell there, where it is stated.
    """

    levels: int
    depth: int
    survived: int
    ended: bool
    drops: tuple[float, ...]

    @classmethod
    def of(cls, tree: DraftTree, depth: int, accepted: int, most: int | None = None) -> Path:
        """Of a verified draft. Beyond what was verified nobody knows: there the path has not ended.

        Args:
            tree: what was verified.
            depth: of the draft before anything was left out of it.
            accepted: tokens kept.
            most: tokens that were wanted at all.
        """
        masses = tree.masses
        levels = 0 if most is not None and depth >= most else tree.levels or depth
        known = min(len(masses), tree.depth)
        survived, ended = min(accepted, known), accepted < known
        logs = [math.log(max(mass, 1e-9)) for mass in masses[: survived + ended + 1]]
        drops = tuple([max(0.0, before - after) for before, after in pairwise(logs)])
        return cls(levels, max(depth, len(masses)), survived, ended, drops)


class Reach:
    """Ends of right paths, and what they had survived, of one drafter."""

    def __init__(self, fading: float = FADING) -> None:
        self.fading = fading
        self._nats = self._stated = self._seen = 0.0
        self._drafted = self._tokens = LEVELS
        self._levels = [0.0] * _RANGES
        self._ends = [0.0] * _RANGES
        self._hazards: Hazards | None = None
        self._surprise = [0.0, 0.0]

    def frailties(self, factor: float) -> tuple[float, float]:
        """A row's factors on hazards of depth, and on those of what is stated.

        In some rows, such as texts that repeat themselves, paths end less often whatever the drafter states. In others
        its word holds as ever, and only what it does not see is different. So it is tried which of the two foretells.
        """
        return factor, factor if self._surprise[1] < self._surprise[0] else 1.0

    def foretold(self, path: Path, hazards: Along, factor: float) -> None:
        """Hold what a row's factor said of a draft, with and without what is stated, against what came of it."""
        stated, depth = sum(hazards.stated), sum(hazards.depth)
        for i, of_stated in enumerate((1.0, factor)):
            surprise = of_stated * stated + factor * depth
            if path.ended:
                last = of_stated * hazards.stated[-1] + factor * hazards.depth[-1]
                surprise -= last + math.log(max(-math.expm1(-last), LEAST))
            self._surprise[i] = FADING_SURPRISE * self._surprise[i] + surprise

    def hazards(self) -> Hazards:
        """What was learned."""
        if self._hazards is None:
            self._hazards = self._learned()
        return self._hazards

    def _learned(self) -> Hazards:
        depth, believed = [], GUESSED_DEPTH
        for ends, levels in zip(self._ends, self._levels, strict=True):
            believed = max((ends + LEVELS * believed) / (levels + LEVELS), LEAST_DEPTH)
            depth.append(believed)
        stated = (self._stated + NATS * GUESSED.stated) / (self._nats + NATS)
        drop = (self._nats + LEVELS * GUESSED_DROP) / (self._seen + LEVELS)
        return Hazards(stated, tuple(depth), drop, self._tokens / self._drafted)

    def observe(self, path: Path, hazards: Along) -> None:
        """Learn from one draft; what was believed before says to which part of a hazard an end is laid."""
        drop = self.hazards().drop
        self._hazards = None
        fading = self.fading
        self._nats *= fading
        self._stated *= fading
        self._seen *= fading
        self._levels = [fading * levels for levels in self._levels]
        self._ends = [fading * ends for ends in self._ends]
        if path.levels:
            self._drafted = fading * self._drafted + path.levels
            self._tokens = fading * self._tokens + path.depth
        for level in range(path.survived):
            self._survive(level, path.drops, drop, 1.0)
        if path.ended:
            level, own = path.survived, hazards.depth[-1]
            hazard = hazards.stated[-1] + own
            self._survive(level, path.drops, drop, survived(hazard))
            self._stated += 1 - own / hazard
            self._ends[_place(level)] += own / hazard

    def _survive(self, level: int, drops: Sequence[float], unknown: float, share: float) -> None:
        self._nats += share * (drops[level] if level < len(drops) else unknown)
        self._seen += share
        self._levels[_place(level)] += share
