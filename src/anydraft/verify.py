"""Verification: what the target keeps of a draft. Pure functions.

`walk` is exact match over scores: the tokens are those of plain decoding, whatever was drafted.
`reject` is the classical rule: Leviathan et al. (arXiv 2211.17192) for a chain, recursive rejection without
replacement (arXiv 2402.14160) for a tree; exact in distribution, but not drafter-invariant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from anydraft.tree import DraftTree

Verification = Literal["exact", "rejection"]


@dataclass(frozen=True)
class Verdict:
    """Outcome for one row: nodes kept (root to leaf) and the next token, which the target chose itself."""

    accepted: tuple[int, ...]
    next_token: int


def walk(choice: Callable[[int], int], tree: DraftTree) -> Verdict:
    """Follow the target's choices from the root while the tree holds them.

    `choice(node)` is the target's next token after `node` (-1 = root); it is called once per visited node.
    """
    node = -1
    accepted: list[int] = []
    while True:
        token = choice(node)
        child = tree.children.get(node, {}).get(token)
        if child is None:
            return Verdict(tuple(accepted), token)
        accepted.append(child)
        node = child


def reject(
    target_probs: Callable[[int], torch.Tensor],
    tree: DraftTree,
    draft_probs: Mapping[int, torch.Tensor],
    uniform: Callable[[], float],
) -> Verdict:
    """Recursive rejection sampling without replacement.

    Args:
        target_probs: (vocab,) probabilities p of the target after a node (-1 = root).
        tree: siblings stand in the order in which they were drawn from q *without replacement*; whether a node
            has children must not depend on what is drawn at that node or below it.
        draft_probs: (vocab,) proposal q in the target's vocabulary, for every node that has children.
        uniform: draws from [0, 1).
    """
    node = -1
    accepted: list[int] = []
    siblings = _siblings(tree)
    while True:
        p = target_probs(node).to(torch.float64)
        p = p / p.sum()
        chosen = None
        if node in siblings:
            q = draft_probs[node].to(torch.float64).clone()
            for child in siblings[node]:
                token = tree.tokens[child]
                mass = q.sum()
                if mass <= 0:
                    break
                q /= mass
                if uniform() * float(q[token]) < float(p[token]):
                    chosen = child
                    break
                residual = (p - q).clamp_(min=0)
                total = residual.sum()
                # p == q leaves no residual; a rejection is then a rounding accident, and p itself is exact.
                p = residual / total if total > 0 else p
                q[token] = 0
        if chosen is None:
            return Verdict(tuple(accepted), draw(p, uniform()))
        accepted.append(chosen)
        node = chosen


def draw(p: torch.Tensor, u: float) -> int:
    """Inverse-CDF draw from probabilities p (vocab,) with u in [0, 1); never a token of probability zero."""
    cumulative = p.to(torch.float64).cumsum(0)
    token = int(torch.searchsorted(cumulative, u * float(cumulative[-1]), right=True))
    token = min(token, len(p) - 1)
    if p[token] <= 0:
        token = int(p.argmax())
    return token


def _siblings(tree: DraftTree) -> dict[int, Sequence[int]]:
    found: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents):
        found.setdefault(parent, []).append(node)
    return dict(found)
