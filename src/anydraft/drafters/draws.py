"""How a drafter with the target's vocabulary picks children: by shared noise, or by sampling from a recorded q."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anydraft.row import Row
from anydraft.tree import Children


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
        [(t, s, t in enders) for t, s in zip(row_t, row_s, strict=True) if s > float("-inf")]
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


def recorded(probs: Sequence[torch.Tensor], vocab_size: int) -> list[torch.Tensor]:
    """Proposals padded or cut to the target's vocabulary."""
    fitted = []
    for q in probs:
        padded = q.new_zeros(vocab_size)
        count = min(len(q), vocab_size)
        padded[:count] = q[:count]
        fitted.append(padded)
    return fitted
