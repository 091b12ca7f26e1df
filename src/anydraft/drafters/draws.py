"""How a drafter with the target's vocabulary picks children: by shared noise, or by sampling from a recorded q."""

from __future__ import annotations

import torch

from anydraft.growth import Bounds, Children
from anydraft.row import Row


def warped(row: Row, logits: torch.Tensor) -> torch.Tensor:
    """Draft logits (n, vocab), float32, under the row's own temperature and cuts (they help, no more)."""
    scores = logits.to(torch.float32)
    for warper in row.processors.by_scores:
        scores = warper(torch.zeros((len(scores), 0), dtype=torch.long), scores)
    return scores


def shared(scores: torch.Tensor, noise: torch.Tensor | None, branch: int, enders: frozenset[int]) -> list[Children]:
    """The `branch` likeliest choices of the target per node, given the noise it will use.

    Args:
        scores: (n, vocab) draft scores; noise: (vocab,) or None when greedy.

    Returns:
        children scored by the log-softmax of their perturbed score: how likely each is to be the target's choice.
    """
    perturbed = scores if noise is None else scores + noise
    logs, tokens = torch.topk(perturbed, min(branch, perturbed.shape[-1]), dim=-1)
    logs = logs - perturbed.logsumexp(-1, keepdim=True)
    return [
        [(t, s, t in enders) for t, s in zip(row_t, row_s, strict=True) if s != float("-inf")]
        for row_t, row_s in zip(tokens.tolist(), logs.tolist(), strict=True)
    ]


def sampled(
    scores: torch.Tensor, row: Row, position: int, branch: int, enders: frozenset[int]
) -> tuple[list[Children], torch.Tensor]:
    """Draw `branch` children without replacement from q = softmax(scores) (1, vocab), with noise of their own.

    Returns:
        the children of the one node in the order drawn, and q (vocab,) float64. The first drawn child
        scores 0 and the others -1e9, so that one node a level is expanded: the first that does not end the text.
    """
    q = scores[0].to(torch.float64).softmax(-1)
    if row.noise is None:
        order = [int(q.argmax())]
        q = torch.nn.functional.one_hot(q.argmax(), len(q)).to(torch.float64)
    else:
        keys = q.log() + row.noise.own(position, len(q), stream=2).to(q.device)
        count = min(branch, int((q > 0).sum()))
        order = torch.topk(keys, count).indices.tolist()
    return [[(token, 0.0 if i == 0 else SIBLING, token in enders) for i, token in enumerate(order)]], q


SIBLING = -1e9


def siblings(bound: Bounds) -> int:
    """Children drawn per node, for `sampled`."""
    return 1 if bound.chain_only else max(1, min(bound.branch, bound.width, bound.nodes))


def drawn_bounds(bound: Bounds, count: int) -> Bounds:
    """Bounds of a draft with `count` children per node drawn: one node is expanded per level.

    Whether a node is expanded must not depend on what is drawn there, so no limit looks at scores.
    """
    return Bounds(min(bound.depth, bound.target_depth, bound.nodes // count), 1, 1 << 30)


def recorded(q: torch.Tensor, vocab_size: int, vocabulary: torch.Tensor | None = None) -> torch.Tensor:
    """Proposals (..., V') over the target's vocabulary (..., vocab_size).

    Args:
        vocabulary: (V',) target ids of q; None where q has the target's own, from 0 on.
    """
    whole = q.new_zeros((*q.shape[:-1], vocab_size))
    if vocabulary is not None:
        return whole.index_copy_(-1, vocabulary.to(q.device), q)
    count = min(q.shape[-1], vocab_size)
    whole[..., :count] = q[..., :count]
    return whole
