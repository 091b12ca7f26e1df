"""Beam search over a recurrent drafter, for several rows in lockstep, and the trees of the best nodes in it.

For GPUs. The search is a generator of levels with fixed shapes and no host sync. Each level is a small table: the
children of every branch, and which of them were expanded. All levels are enqueued and their tables copied once; then
`grow()` is replayed over them, so that the best n nodes are picked by the same rule as for every other drafter. On a
CPU `grow()` leads the network instead (`stepwise.py`), to the same trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch

from anydraft.drafters.stepwise import GrowingRow, Pick
from anydraft.growth import Bounds, Children
from anydraft.networks.recall import Memory
from anydraft.networks.state import Steps


class BeamLevel(NamedTuple):
    """One level of the search.

    Attributes:
        tokens: (B, W, k) target ids of the children of each branch.
        logs: (B, W, k) their log scores given the branch; -inf where there is no child.
        expanded: (B, W') the children that are branches of the next level, as indices into W * k.
        proposals: (B, V), or None.
    """

    tokens: torch.Tensor
    logs: torch.Tensor
    expanded: torch.Tensor
    proposals: torch.Tensor | None


class Table(NamedTuple):
    """A level as nested lists."""

    tokens: list[list[list[int]]]
    logs: list[list[list[float]]]
    expanded: list[list[int]]
    proposals: torch.Tensor | None


def search(
    steps: Steps,
    hidden: torch.Tensor,
    roots: torch.Tensor,
    pick: Pick,
    width: int,
    *,
    memory: Memory | None = None,
    vocabulary: torch.Tensor | None = None,
    closed: torch.Tensor | None = None,
) -> Iterator[BeamLevel]:
    """Levels of a beam search, without end.

    Args:
        hidden: (B, H) the target's last hidden states before the roots.
        roots: (B,) last committed tokens.
        width: branches expanded per level.
        memory: what the network recalls of the text before.
        vocabulary: (V',) target ids of the logits; None = all of them.
        closed: (V',) -inf for tokens that end the text and are never expanded, else 0; None = no such tokens.
    """
    state, tokens = steps.start(hidden, memory), roots[:, None]
    # Float64 and the same order of sums as in `grow`, so that both expand the same nodes.
    totals: torch.Tensor | None = None
    depth = 0
    while True:
        logits, state = steps.step(state, tokens)
        index, logs, proposals = pick(depth, logits)
        ids = index if vocabulary is None else vocabulary.take(index)
        sums = logs.double().clamp(max=0.0)
        if totals is not None:
            sums = sums + totals[..., None]
        if closed is not None:
            sums = sums + closed.take(index)
        best, order = sums.flatten(1).sort(dim=1, descending=True, stable=True)
        totals, expanded = best[:, :width], order[:, :width]
        yield BeamLevel(ids, logs, expanded, proposals)
        state = state.take(expanded // index.shape[-1])
        tokens = ids.flatten(1).gather(1, expanded)
        depth += 1


def tables(levels: Iterator[BeamLevel], depth: int) -> list[Table]:
    """The first `depth` levels as lists, with one copy to the host."""
    enqueued = list(islice(levels, depth))
    parts = [part for level in enqueued for part in level[:3]]
    copied = torch.cat([part.flatten().double() for part in parts]).cpu()  # ids are exact in float64
    pieces = torch.split(copied, [part.numel() for part in parts])
    shaped = iter([piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)])
    return [
        Table(next(shaped).long().tolist(), next(shaped).tolist(), next(shaped).long().tolist(), level.proposals)
        for level in enqueued
    ]


class Replay(GrowingRow):
    """One row's growth over the tables."""

    def __init__(self, bounds: Bounds, enders: frozenset[int]) -> None:
        super().__init__(bounds, enders)
        self._branches = {-1: 0}
        """Where the tables keep the children of each node that the search expanded."""

    def replay(self, row: int, table: Table) -> None:
        """Grow by one level, that of the given row of the table."""
        tokens, logs = table.tokens[row], table.logs[row]
        children: list[Children] = []
        for node in self.frontier:
            branch = self._branches.get(node)
            if branch is None:  # only where scores tie
                children.append([])
                continue
            children.append(self.children(tokens[branch], logs[branch]))
            if table.proposals is not None:
                self.probs[node] = table.proposals[row]
        self.receive(children)
        places = {}
        for branch, place in enumerate(table.expanded[row]):
            parent, child = divmod(place, len(tokens[0]))
            places[parent, tokens[parent][child]] = branch
        parents, names, before = self.growth.parents, self.growth.tokens, self._branches
        found = {node: places.get((before[parents[node]], names[node])) for node in self.frontier}
        self._branches = {node: branch for node, branch in found.items() if branch is not None}


def replayed(levels: Iterator[BeamLevel], bounds: Sequence[Bounds], enders: frozenset[int]) -> list[Replay]:
    """Grow the trees of all rows over the levels of their search."""
    rows = [Replay(bound, enders) for bound in bounds]
    depth = max((bound.depth for row, bound in zip(rows, bounds, strict=True) if row.frontier), default=0)
    for table in tables(levels, depth) if depth else ():
        for i, row in enumerate(rows):
            if row.frontier:
                row.replay(i, table)
        if not any(row.frontier for row in rows):
            break
    return rows
