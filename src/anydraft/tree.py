"""Drafts as trees: tokens and parents, parents first. How they grow is in `growth.py`.

A `DraftTree` is a pure value; the mask, the depths and the paths follow from the parents. A chain is a tree of
width one. `from_beams` merges equal prefixes (the "dynamic tree attention" of ReDrafter, arXiv 2403.09919).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from anydraft.errors import DraftError


@dataclass(frozen=True)
class DraftTree:
    """Proposed tokens of one row.

    Args:
        tokens: token ids in the target's vocabulary, length n.
        parents: index of each node's parent, -1 for the root (the last committed token); a parent comes
            before its children.
        scores: cumulative log scores (estimated log probability that the node is kept), optional.
        probs: for `verification="rejection"`, the proposal q (vocab,) from which the children of a node were
            drawn without replacement, by node (-1 = root).
        levels: steps that the drafter took for it; by default its depth.
        masses: per level, the probability that the drafter gave to the nodes from which it went on (1 for the first).
            They end before levels that may be wrong only because the draft ends there.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    scores: tuple[float, ...] | None = field(default=None, compare=False)
    probs: Mapping[int, torch.Tensor] | None = field(default=None, compare=False, repr=False)
    levels: int = field(default=0, compare=False)
    masses: tuple[float, ...] = field(default=(), compare=False, repr=False)

    EMPTY: ClassVar[DraftTree]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.parents):
            raise DraftError(f"a draft of {len(self.tokens)} tokens needs as many parents, got {len(self.parents)}")
        for node, parent in enumerate(self.parents):
            if not -1 <= parent < node:
                raise DraftError(f"parents come before their children, got parent {parent} for node {node}")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Depth of each node; children of the root have depth 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return tuple(depths)

    @cached_property
    def children(self) -> dict[int, dict[int, int]]:
        """For each node (-1 = root) its children as {token: node}; of equal siblings the first counts."""
        found: dict[int, dict[int, int]] = {}
        for node, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            found.setdefault(parent, {}).setdefault(token, node)
        return found

    @property
    def is_chain(self) -> bool:
        """Whether every node continues the one before it."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    @property
    def depth(self) -> int:
        """Length of the longest path."""
        return max(self.depths, default=0)

    def path(self, node: int) -> list[int]:
        """Nodes from the root's child down to `node`."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]

    def ancestors(self) -> npt.NDArray[np.bool_]:
        """(n, n) matrix: entry (i, j) says whether node i sees node j (itself and its ancestors)."""
        return visibility(self.parents)

    def cut(self, depth: int) -> DraftTree:
        """The nodes of depth at most `depth`."""
        if self.depth <= depth:
            return self
        return self.keep([node for node, d in enumerate(self.depths) if d <= depth])

    def keep(self, nodes: Iterable[int]) -> DraftTree:
        """The subtree of the given nodes (parents first, closed under ancestors)."""
        kept = list(nodes)
        scores, probs = self.scores, self.probs
        if probs is not None:
            new = {node: place for place, node in enumerate(kept)} | {-1: -1}
            probs = {new[node]: q for node, q in probs.items() if node in new}
        return DraftTree(
            tuple([self.tokens[node] for node in kept]),
            renumbered(self.parents, kept),
            None if scores is None else tuple([scores[node] for node in kept]),
            probs,
            self.levels,
            self.masses,
        )

    @classmethod
    def chain(cls, tokens: Sequence[int], *, levels: int = 0) -> DraftTree:
        """A tree of one path."""
        return cls(tuple(tokens), tuple(range(-1, len(tokens) - 1)), levels=levels)

    @classmethod
    def from_beams(cls, beams: Iterable[Sequence[int]]) -> DraftTree:
        """Merge beams (token sequences) that share prefixes into one tree; the first beam comes first."""
        index: dict[tuple[int, int], int] = {}
        tokens: list[int] = []
        parents: list[int] = []
        for beam in beams:
            node = -1
            for token in beam:
                key = (node, token)
                if key not in index:
                    index[key] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                node = index[key]
        return cls(tuple(tokens), tuple(parents))


DraftTree.EMPTY = DraftTree()


def renumbered(parents: Sequence[int], nodes: Sequence[int]) -> tuple[int, ...]:
    """Parents of the given nodes (closed under ancestors), by their places among them."""
    places = {node: place for place, node in enumerate(nodes)} | {-1: -1}
    return tuple([places[parents[node]] for node in nodes])


def visibility(parents: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Ancestor matrix (n, n) of a list of parents; the diagonal is true."""
    n = len(parents)
    matrix = np.zeros((n, n), dtype=np.bool_)
    for node, parent in enumerate(parents):
        if parent >= 0:
            matrix[node] = matrix[parent]
        matrix[node, node] = True
    return matrix
