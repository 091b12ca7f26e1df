"""A machine and drafters that exist as numbers only: what a pacing makes of them can be told exactly, and at once.

Time passes as the world says, with noise; a drafter's tokens are right as often as it says. So a pacing's losses and
gains are those of its decisions, and no test waits for, or depends on, a real clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from anydraft.crew import Crew
from anydraft.growth import Bounds
from anydraft.noise import Noise
from anydraft.pacing import Outcome, Pacing
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.tree import DraftTree

RIGHT = 1
"""The token that the target chooses, everywhere; all others are wrong."""


@dataclass
class Simulated:
    """A drafter of chains.

    Attributes:
        right: chance that the next drafted token is right, given the position of the row.
        stated: what the drafter says that chance is.
        step, fixed, start: seconds of a level, of a call, of reading a prompt.
        behind: seconds a token of reading what was said since the last call.
        by_row: whether a level takes as much for every row.
        lost: rows in which it is never right.
    """

    name: str
    right: Callable[[int], float]
    stated: Callable[[float], float] = lambda right: right
    step: float = 0.1
    fixed: float = 0.0
    start: float = 0.0
    behind: float = 0.0
    by_row: bool = False
    lost: Callable[[Row], bool] = lambda row: False
    calls: int = 0


@dataclass
class World:
    """A target with simulated drafters.

    Attributes:
        cost: seconds of a pass by rows and width.
        noise: standard deviation of the logarithm of every time; one in fifty is five times as long.
    """

    drafters: list[Simulated]
    cost: Callable[[int, int], float] = lambda rows, width: 1.0 + 0.02 * (rows * width - 1)
    noise: float = 0.1
    verification: str = "exact"
    seed: int = 0
    seconds_start: float = 0.0
    seconds_last: float = 0.0
    seconds: float = 0.0
    passes: int = 0
    tokens: int = 0
    target: Any = field(default_factory=lambda: SimpleNamespace(fixed_width=None, padded_width=unpadded))

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.names = [drafter.name for drafter in self.drafters]
        self.working = list(range(len(self.drafters)))
        self.known: set[tuple[int, Row]] = set()
        self.read: dict[tuple[int, Row], int] = {}
        self.kept: dict[Row, Any] = {}

    def met(self, which: int, row: Row) -> bool:
        return (which, row) in self.known

    def propose(self, which: int, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        drafter = self.drafters[which]
        drafter.calls += 1
        for row in rows:
            if not self.met(which, row):
                self.known.add((which, row))
                self.seconds_start += self._noisy(drafter.start)
                self.seconds += drafter.start
        trees = [self._tree(drafter, row, bound) for row, bound in zip(rows, bounds, strict=True)]
        taken = drafter.fixed + drafter.step * max((tree.levels for tree in trees), default=0)
        taken *= len(rows) if drafter.by_row else 1
        for row in rows:
            taken += drafter.behind * (row.position - self.read.get((which, row), row.position))
            self.read[which, row] = row.position
        self.seconds += taken
        self.seconds_last = self._noisy(taken)
        return trees

    def _tree(self, drafter: Simulated, row: Row, bound: Bounds) -> DraftTree:
        tokens, scores, masses, total = [], [], [], 0.0
        for ahead in range(min(bound.depth, bound.nodes, row.remaining - 1)):
            masses.append(math.exp(total))
            right = 0.0 if drafter.lost(row) else drafter.right(row.position + ahead)
            total += math.log(max(drafter.stated(right), 1e-9))
            tokens.append(RIGHT if self.rng.random() < right else 0)
            scores.append(total)
            if math.exp(total) < bound.min_mass(ahead + 1):
                break
        parents = tuple(range(-1, len(tokens) - 1))
        return DraftTree(tuple(tokens), parents, tuple(scores), levels=len(tokens), masses=tuple(masses))

    def run(self, pacing: Pacing, tokens: int, rows: int = 1) -> float:
        """Decode so many tokens in each of some rows; the speed, as a multiple of plain decoding's."""
        before = self.seconds
        plain = sum(self.steps(pacing, [row_of(i, tokens) for i in range(rows)]))
        return plain / (self.seconds - before)

    def steps(self, pacing: Pacing, active: list[Row]) -> Iterator[float]:
        """Decode rows step by step; of each the seconds that plain decoding would have taken."""
        while active:
            drafts = pacing.draft(active, cast(Crew, self))
            kept = []
            for row, draft in zip(active, drafts, strict=True):
                accepted: list[int] = []
                for node, token in enumerate(draft.tree.tokens):
                    if token != RIGHT or len(accepted) + 1 >= row.remaining:
                        break
                    accepted.append(node)
                kept.append(accepted)
                row.tokens += [RIGHT] * (1 + len(accepted))
                row.finish_reason = "length" if row.remaining <= 0 else None
                row.stats.record(1 + len(accepted), len(draft.tree), draft.tree.depth, len(accepted))
            width = 1 + max(len(draft.tree) for draft in drafts)
            taken = self.cost(len(active), width)
            self.seconds += taken
            self.passes += 1
            positions = [row.position for row in active]
            pacing.observe(Outcome(active, drafts, kept, self.seconds_last, self._noisy(taken), positions))
            yield self.cost(len(active), 1) * sum(1 + len(accepted) for accepted in kept) / len(active)
            active = [row for row in active if row.remaining > 0]

    def _noisy(self, seconds: float) -> float:
        stray = 5.0 if self.rng.random() < 0.02 else 1.0
        return seconds * stray * math.exp(self.rng.gauss(0.0, self.noise))


def unpadded(width: int, rows: int) -> int:
    """A target that pads no pass."""
    return width


def row_of(index: int, tokens: int, temperature: float = 0.0) -> Row:
    """A row that wants so many tokens."""
    params = SamplingParams(max_new_tokens=tokens, temperature=temperature)
    noise = Noise(0, 2, "cpu") if temperature else None
    return Row(index=index, prompt=[0] * 100, params=params, processors=cast(Any, None), noise=noise)
