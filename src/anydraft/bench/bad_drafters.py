"""Drafters that nobody should use, to see what they cost: pacing has to notice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from anydraft.growth import Bounds
from anydraft.row import Row
from anydraft.tree import DraftTree

SURE = math.log(0.99)


class WrongDrafter:
    """Proposes one token, over and over, and is sure of it.

    Args:
        token: one that the target never says, such as a padding token.
    """

    name = "wrong"

    def __init__(self, token: int) -> None:
        self.token = token

    def start(self, rows: Sequence[Row]) -> None:
        """Nothing to read."""

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """As deep a chain as is allowed."""
        return [self._chain(min(bound.depth, bound.nodes, bound.target_depth)) for bound in bounds]

    def stop(self, rows: Sequence[Row]) -> None:
        """Nothing to forget."""

    def _chain(self, depth: int) -> DraftTree:
        tokens = tuple(self._next() for _ in range(depth))
        return DraftTree(tokens, tuple(range(-1, depth - 1)), tuple(SURE * (node + 1) for node in range(depth)))

    def _next(self) -> int:
        return self.token


class RandomDrafter(WrongDrafter):
    """Proposes tokens drawn from the whole vocabulary, and is sure of them."""

    name = "random"

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self.vocab_size = vocab_size
        self._random = random.Random(seed)

    def _next(self) -> int:
        return self._random.randrange(self.vocab_size)
