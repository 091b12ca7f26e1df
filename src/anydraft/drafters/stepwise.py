"""Trees of a recurrent drafter, grown level by level: each is looked at before the next one is computed.

For CPUs, where a look costs nothing: `grow()` says which nodes go on, and only those are computed. On a GPU every look
waits for the device; there the whole search is enqueued at once (`beams.py`), and `grow()` is run over it to the same
trees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from anydraft.growth import Bounds, Children, Growing
from anydraft.networks.recall import Memory
from anydraft.networks.state import Steps

Pick = Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]
"""Children of all branches: (depth of the branches, logits (B, W, V')) to indices and log scores (B, W, k), best first,
and the proposals (B, V) from which they were drawn, if they were drawn."""


class GrowingRow(Growing):
    """One row's tree while it grows.

    Attributes:
        probs: the proposal behind each expanded node (-1 = root), where there are proposals.
    """

    def __init__(self, bounds: Bounds, enders: frozenset[int]) -> None:
        super().__init__(bounds)
        self.probs: dict[int, torch.Tensor] = {}
        self._enders = enders

    def children(self, tokens: Sequence[int], logs: Sequence[float]) -> Children:
        """Children of one node as `grow` wants them; those of score -inf are none."""
        enders = self._enders
        return [(token, log, token in enders) for token, log in zip(tokens, logs, strict=True) if log != -torch.inf]


def grown(
    steps: Steps,
    hidden: torch.Tensor,
    roots: torch.Tensor,
    pick: Pick,
    bounds: Sequence[Bounds],
    enders: frozenset[int],
    *,
    memory: Memory | None = None,
    vocabulary: torch.Tensor | None = None,
) -> list[GrowingRow]:
    """Grow the trees of several rows in lockstep.

    Args:
        hidden: (B, H) the target's last hidden states before the roots.
        roots: (B,) last committed tokens.
        bounds: of each row.
        enders: tokens that end the text and are never expanded.
        memory: what the network recalls of the text before.
        vocabulary: (V',) target ids of the logits; None = all of them.
    """
    rows = [GrowingRow(bound, enders) for bound in bounds]
    state, depth = steps.start(hidden, memory), 0
    tokens = roots[:, None]
    while True:
        logits, state = steps.step(state, tokens)
        index, logs, proposals = pick(depth, logits)
        ids, depth = index if vocabulary is None else vocabulary.take(index), depth + 1
        parents, fresh = [], []
        for i, (row, names, scores) in enumerate(zip(rows, ids.tolist(), logs.tolist(), strict=True)):
            expanded = row.frontier
            if proposals is not None:
                row.probs.update((node, proposals[i]) for node in expanded)
            if expanded:
                row.receive([row.children(names[branch], scores[branch]) for branch in range(len(expanded))])
            branches = {node: branch for branch, node in enumerate(expanded)}
            parents.append([branches[row.growth.parents[node]] for node in row.frontier])
            fresh.append([row.growth.tokens[node] for node in row.frontier])
        width = max(map(len, parents))
        if not width:
            return rows
        state = state.take(torch.tensor(_padded(parents, width), device=hidden.device))
        tokens = torch.tensor(_padded(fresh, width), device=hidden.device)


def _padded(lists: list[list[int]], width: int) -> list[list[int]]:
    """Lists of equal length; what is computed for the padding is not looked at."""
    return [[*numbers, *[0] * (width - len(numbers))] for numbers in lists]
