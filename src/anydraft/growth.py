"""How drafts grow: `grow()` is the one routine that expands trees, between `Bounds`, while the caller scores.

It keeps the best nodes by cumulative score (the dynamic tree of EAGLE-2, arXiv 2406.16858), closed under ancestors. A
chain is a tree of width one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from anydraft.errors import DraftError
from anydraft.tree import DraftTree, renumbered

SIDE = 0.1
"""What a further branch adds to the time of a level, in levels, as a rule."""


@dataclass(frozen=True)
class Bounds:
    """How far `grow` may go: levels, nodes expanded per level, nodes kept, and when a level no longer pays.

    `depth` counts the drafter's own tokens, `target_depth` the target's (what the row still wants).
    `min_masses`: by level, stop when the estimated probability that the target goes on inside the frontier is below it;
    the last one is for all levels after it.
    `side`: where the least mass is above 0, nodes less likely than this share of it, or of the likeliest one, are not
    expanded beside that one: they cost a part of a level and bring less than that part.
    `branch`: alternatives considered after each node; 1 makes a chain.
    `min_node`: leave out nodes whose estimated probability of being kept is below it.
    `chain_only`: one path, no alternatives.
    """

    depth: int
    width: int = 1
    nodes: int = 64
    min_masses: tuple[float, ...] = (0.0,)
    min_node: float = 0.0
    branch: int = 4
    target_depth: int = 1 << 30
    chain_only: bool = False
    side: float = SIDE

    def __post_init__(self) -> None:
        if not 0 < self.side <= 1:
            raise ValueError(f"side is a share of a probability, above 0 and at most 1, got {self.side}")

    def min_mass(self, level: int) -> float:
        """Least mass at which a level (from 0) is drafted."""
        return self.min_masses[min(level, len(self.min_masses) - 1)]

    def min_beside(self, level: int, likeliest: float) -> float:
        """Least probability, as a logarithm, at which a node is expanded at a level beside one that has `likeliest`."""
        least = self.min_mass(level)
        return max(math.log(self.side * least) if least > 0 else -math.inf, likeliest + math.log(self.side))

    def within(self, depth: int, nodes: int, chain_only: bool) -> Bounds:
        """These bounds, tightened to what the row still wants and the target can verify."""
        return Bounds(
            min(self.depth, 2 * nodes) if chain_only else self.depth,
            1 if chain_only else self.width,
            max(0, min(self.nodes, nodes)),
            self.min_masses,
            self.min_node,
            1 if chain_only else self.branch,
            target_depth=max(0, depth),
            chain_only=chain_only,
            side=self.side,
        )


@dataclass
class Growth:
    """A tree while it grows: parallel lists over all candidates seen, parents first.

    `branch` says how many children to score a node, `masses` per level the probability of the nodes of which the
    drafter was asked for children.
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

        So its nodes lie in the cache where plain decoding would put them, and half precision rounds as it does there.
        """
        parents, scores = self.parents, self.scores
        kept = self.best(nodes, floor)
        likeliest: dict[int, int] = {}
        for node in kept:
            rival = likeliest.get(parents[node])
            if rival is None or scores[node] > scores[rival]:
                likeliest[parents[node]] = node
        main, node = [], -1
        while node in likeliest:
            node = likeliest[node]
            main.append(node)
        order = [*main, *sorted(set(kept) - set(main))]
        return DraftTree(
            tuple([self.tokens[node] for node in order]),
            renumbered(parents, order),
            tuple([scores[node] for node in order]),
            None,
            len(self.masses),
            tuple(self.masses),
        )


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
    frontier, mass = [-1], 1.0
    for level in range(bounds.depth):
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
        min_mass = bounds.min_mass(level + 1)
        if frontier and min_mass > 0:
            beside = bounds.min_beside(level + 1, growth.scores[frontier[0]])
            frontier = [node for node in frontier if growth.scores[node] >= beside] or frontier[:1]
        mass = sum(math.exp(growth.scores[node]) for node in frontier)
        if not frontier or mass < min_mass:
            break
    return growth


class Growing:
    """A tree that `grow` expands, one level at a time.

    Attributes:
        growth: all candidates so far.
        frontier: the nodes whose children are wanted next (-1 = root); none when the draft is complete.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.growth = Growth()
        self._steps = grow(bounds, self.growth)
        self.frontier: list[int] = next(self._steps, []) if bounds.nodes > 0 else []

    def receive(self, children: list[Children]) -> None:
        """Go on by one level, from the children of each node of the frontier."""
        try:
            self.frontier = self._steps.send(children)
        except StopIteration:
            self.frontier = []
