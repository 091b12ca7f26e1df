"""Drafts as trees: tokens and parents, parents first. `grow()` is the one routine that expands them.

A `DraftTree` is a pure value; the mask, the depths and the paths follow from the parents. A chain is a tree of
width one. `from_beams` merges equal prefixes (the "dynamic tree attention" of ReDrafter, arXiv 2403.09919);
`grow` keeps the best nodes by cumulative score (the dynamic tree of EAGLE-2, arXiv 2406.16858), closed under
ancestors.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
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
        new: dict[int, int] = {-1: -1}
        tokens: list[int] = []
        parents: list[int] = []
        scores: list[float] = []
        for node in nodes:
            new[node] = len(tokens)
            tokens.append(self.tokens[node])
            parents.append(new[self.parents[node]])
            if self.scores is not None:
                scores.append(self.scores[node])
        probs = None if self.probs is None else {new[n]: q for n, q in self.probs.items() if n in new}
        kept_scores = None if self.scores is None else tuple(scores)
        return DraftTree(tuple(tokens), tuple(parents), kept_scores, probs, self.levels, self.masses)

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


def visibility(parents: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Ancestor matrix (n, n) of a list of parents; the diagonal is true."""
    n = len(parents)
    matrix = np.zeros((n, n), dtype=np.bool_)
    for node, parent in enumerate(parents):
        if parent >= 0:
            matrix[node] = matrix[parent]
        matrix[node, node] = True
    return matrix


SIDE = 0.1
"""What a further branch adds to the time of a level, in levels, as a rule."""


@dataclass(frozen=True)
class Bounds:
    """How far `grow` may go: levels, nodes expanded per level, nodes kept, and when a level no longer pays.

    `depth` counts the drafter's own tokens, `target_depth` the target's (what the row still wants).
    `min_mass`: stop when the estimated probability that the target goes on inside the frontier is below it.
    Nodes less likely than `SIDE` of it are not expanded: they cost a part of a level and bring less than that part.
    `branch`: alternatives considered after each node; 1 makes a chain.
    `min_node`: leave out nodes whose estimated probability of being kept is below it.
    `chain_only`: one path, no alternatives.
    """

    depth: int
    width: int = 1
    nodes: int = 64
    min_mass: float = 0.0
    min_node: float = 0.0
    branch: int = 4
    target_depth: int = 1 << 30
    chain_only: bool = False

    @property
    def min_expand(self) -> float:
        """Least probability of a node that is expanded beside the likeliest one, as a logarithm."""
        return math.log(SIDE * self.min_mass) if self.min_mass > 0 else -math.inf

    def within(self, depth: int, nodes: int, chain_only: bool) -> Bounds:
        """These bounds, tightened to what the row still wants and the target can verify."""
        return Bounds(
            min(self.depth, 2 * nodes) if chain_only else self.depth,
            1 if chain_only else self.width,
            max(0, min(self.nodes, nodes)),
            self.min_mass,
            self.min_node,
            1 if chain_only else self.branch,
            target_depth=max(0, depth),
            chain_only=chain_only,
        )


@dataclass
class Growth:
    """A tree while it grows: parallel lists over all candidates seen, parents first.

    `branch` says how many children to score a node, `masses` the probability of the nodes of which the drafter was asked
    for children, per level.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    final: list[bool] = field(default_factory=list)
    branch: int = 4
    masses: list[float] = field(default_factory=list)

    @property
    def levels(self) -> int:
        """How often the drafter was asked."""
        return len(self.masses)

    def depth(self, node: int) -> int:
        """Depth of a node; 0 for the root (-1)."""
        depth = 0
        while node >= 0:
            depth, node = depth + 1, self.parents[node]
        return depth

    def best(self, nodes: int, floor: float = 0.0) -> list[int]:
        """Indices (ascending) of the best `nodes` candidates by score: closed under ancestors, ties to the elder.

        Candidates of probability below `floor` are left out.
        """
        least = math.log(floor) if floor > 0 else -math.inf
        kept = [node for node, score in enumerate(self.scores) if score >= least]
        if len(kept) > nodes:
            kept = sorted(sorted(kept, key=lambda node: (-self.scores[node], node))[:nodes])
        return kept

    def tree(self, nodes: int, floor: float = 0.0) -> DraftTree:
        """The best nodes as a tree, the likeliest path first.

        So its nodes lie in the cache where plain decoding would put them, and a pass in half precision rounds as it would.
        """
        masses = tuple(self.masses)
        whole = DraftTree(tuple(self.tokens), tuple(self.parents), tuple(self.scores), None, len(masses), masses)
        kept = self.best(nodes, floor)
        likeliest: dict[int, int] = {}
        for node in kept:
            rival = likeliest.get(self.parents[node])
            if rival is None or self.scores[node] > self.scores[rival]:
                likeliest[self.parents[node]] = node
        main, node = [], -1
        while node in likeliest:
            node = likeliest[node]
            main.append(node)
        return whole.keep([*main, *sorted(set(kept) - set(main))])


Children = Sequence[tuple[int, float, bool]]
"""Children of one node, best first: (token, log score given its parent, whether it ends the draft)."""


def grow(bounds: Bounds, growth: Growth | None = None) -> Generator[list[int], list[Children], Growth]:
    """Expand a tree level by level; the caller scores.

    A generator, so that many rows can grow in lockstep with one batched model pass per level. It yields the
    nodes to expand (indices into the growth, -1 = root), expects their children in the same order, and returns
    the `Growth` (the one given, if any). Scores of children must not be positive, so that no child beats its parent.

    Raises:
        DraftError: a score is not a number.
    """
    growth = Growth() if growth is None else growth
    growth.branch = bounds.branch
    floor = math.log(bounds.min_node) if bounds.min_node > 0 else -math.inf
    frontier, mass, least_expanded = [-1], 1.0, bounds.min_expand
    for _ in range(bounds.depth):
        fresh: list[int] = []
        received = yield frontier
        growth.masses.append(mass)
        for parent, children in zip(frontier, received, strict=True):
            base = growth.scores[parent] if parent >= 0 else 0.0
            for token, score, final in children:
                total = base + min(score, 0.0)
                if total != total:
                    raise DraftError("gave scores that are not numbers (NaN)")
                if total < floor:
                    continue  # never worth verifying, and neither is what follows it
                fresh.append(len(growth.tokens))
                growth.tokens.append(token)
                growth.parents.append(parent)
                growth.scores.append(total)
                growth.final.append(final)
        open_nodes = [node for node in fresh if not growth.final[node]]
        frontier = heapq.nlargest(bounds.width, open_nodes, key=lambda node: (growth.scores[node], -node))
        if not frontier:
            break
        if len(growth.tokens) > bounds.nodes:
            # A node outside the best `nodes` is never verified, and neither are its children.
            least = heapq.nlargest(bounds.nodes, growth.scores)[-1]
            frontier = [node for node in frontier if growth.scores[node] >= least]
        frontier = [node for node in frontier if growth.scores[node] >= least_expanded] or frontier[:1]
        mass = sum(math.exp(growth.scores[node]) for node in frontier)
        if not frontier or mass < bounds.min_mass:
            break
    return growth
