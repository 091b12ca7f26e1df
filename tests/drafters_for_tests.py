"""Drafters that no one would ship: always wrong, sometimes right, always right. Losslessness must survive all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from anydraft.growth import Bounds
from anydraft.row import Row
from anydraft.tree import DraftTree

Truth = Mapping[int, Sequence[int]]
"""Plain decoding's tokens by row index."""


class Scripted:
    """Base: knows what plain decoding says (when told), and counts the rows that came and went."""

    name = "scripted"

    def __init__(self, vocab: int, truth: Truth | None = None, seed: int = 0) -> None:
        self.vocab = vocab
        self.truth = truth or {}
        self.rng = random.Random(seed)
        self.known: list[Row] = []
        self.calls = 0

    def start(self, rows: Sequence[Row]) -> None:
        self.known.extend(rows)

    def stop(self, rows: Sequence[Row]) -> None:
        self.known = [row for row in self.known if row not in rows]

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        assert all(row in self.known and row.finish_reason is None for row in rows)
        self.calls += 1
        return [self.draft(row, bound) for row, bound in zip(rows, bounds, strict=True)]

    def draft(self, row: Row, bound: Bounds) -> DraftTree:
        raise NotImplementedError

    def next(self, row: Row, ahead: int = 0) -> int | None:
        """Plain decoding's token, `ahead` positions from now."""
        told = self.truth.get(row.index, ())
        place = row.position + ahead
        return told[place] if place < len(told) else None

    def wrong(self, right: int | None) -> int:
        token = self.rng.randrange(self.vocab)
        while token == right:
            token = self.rng.randrange(self.vocab)
        return token


class Oracle(Scripted):
    """Plain decoding's own continuation; with `decoys`, behind wrong siblings that come first."""

    name = "oracle"

    def __init__(self, vocab: int, truth: Truth, depth: int = 6, decoys: int = 0, seed: int = 0) -> None:
        super().__init__(vocab, truth, seed)
        self.depth = depth
        self.decoys = decoys

    def draft(self, row: Row, bound: Bounds) -> DraftTree:
        tokens: list[int] = []
        parents: list[int] = []
        node = -1
        for ahead in range(self.depth):
            right = self.next(row, ahead)
            if right is None:
                break
            for _ in range(self.decoys):
                tokens.append(self.wrong(right))
                parents.append(node)
                # What is right one place later stands under the decoy, too: it must not be reached from here.
                tokens.append(right)
                parents.append(len(tokens) - 2)
            tokens.append(right)
            parents.append(node)
            node = len(tokens) - 1
        return DraftTree(tuple(tokens), tuple(parents))


class Adversarial(Scripted):
    """Never right: wide random trees, deep chains, equal siblings, the right tokens one place too late."""

    name = "adversarial"

    def draft(self, row: Row, bound: Bounds) -> DraftTree:
        kind = self.rng.randrange(5)
        first = self.wrong(self.next(row))
        if kind == 0:  # too wide, of random shape
            size = self.rng.randint(1, 14)
            parents = [-1] + [self.rng.randint(-1, node - 1) for node in range(1, size)]
            tokens = [self.wrong(self.next(row)) for _ in parents]
            return DraftTree(tuple(tokens), tuple(parents))
        if kind == 1:  # too deep
            return DraftTree.chain([first] + [self.wrong(None) for _ in range(11)])
        if kind == 2:  # equal siblings
            return DraftTree((first,) * 5 + (first,) * 3, (-1,) * 5 + (0, 0, 3))
        if kind == 3:  # the truth, behind a wrong token
            truth = [token for ahead in range(4) if (token := self.next(row, ahead)) is not None]
            return DraftTree.chain([first, *truth])
        return DraftTree.EMPTY


class Noisy(Scripted):
    """Random trees in which every token is right with some probability; equal siblings happen."""

    name = "noisy"

    def __init__(self, vocab: int, truth: Truth, right: float = 0.6, seed: int = 0) -> None:
        super().__init__(vocab, truth, seed)
        self.right = right

    def draft(self, row: Row, bound: Bounds) -> DraftTree:
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        for node in range(self.rng.randrange(16)):
            parent = self.rng.randint(max(-1, node - 4), node - 1)
            depth = depths[parent] + 1 if parent >= 0 else 0
            right = self.next(row, depth)
            good = right is not None and self.rng.random() < self.right
            tokens.append(right if good and right is not None else self.wrong(right))
            parents.append(parent)
            depths.append(depth)
        return DraftTree(tuple(tokens), tuple(parents))


class Fixed(Scripted):
    """Always the same draft, whatever it is."""

    name = "fixed"

    def __init__(self, tree: DraftTree, vocab: int = 1) -> None:
        super().__init__(vocab)
        self.tree = tree

    def draft(self, row: Row, bound: Bounds) -> DraftTree:
        return self.tree
