"""The target's distribution over the tokens that a drafter knows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from anydraft.hidden import OutputHead

IGNORED = -100
"""Label of a token that is left out, as everywhere in torch."""


class Teacher:
    """The target's probabilities over the drafter's vocabulary.

    Args:
        head: the target's.
        vocabulary: (V',) target ids of the drafter's head; None for all.
    """

    def __init__(self, head: OutputHead, vocabulary: Tensor | None) -> None:
        size = len(head.weight)
        self.size = size if vocabulary is None else len(vocabulary)
        self.rows: Tensor | None = None
        """(V,) row of the drafter's head for each target id, at or above `size` where it has none."""
        self.head = head
        if vocabulary is not None:
            # Permuted once: the drafter's part of every softmax is then a slice instead of a gather.
            ids = vocabulary.to(head.weight.device)
            others = torch.ones(size, dtype=torch.bool, device=ids.device)
            others[ids] = False
            order = torch.cat([ids, others.nonzero()[:, 0]])
            self.head = copy.copy(head)
            self.head.weight = head.weight[order]
            self.head.bias = None if head.bias is None else head.bias[order]
            self.rows = torch.empty_like(order)
            self.rows[order] = torch.arange(size, device=order.device)

    def probabilities(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of hidden states (n, H): p / m (n, V') float32, m (n,), and the negative entropy of p / m (n,)."""
        logits = self.head.logits(hidden)
        part = logits[:, : self.size].log_softmax(-1)
        if self.size == logits.shape[1]:
            mass = torch.ones(len(logits), device=logits.device)
        else:
            rest = torch.logsumexp(logits[:, self.size :], -1)
            mass = torch.sigmoid(logits[:, 0] - part[:, 0] - rest)
        p = part.exp()
        return p, mass, torch.linalg.vecdot(p, part)

    def labels(self, tokens: Tensor) -> Tensor:
        """Rows of the drafter's head for target ids; IGNORED where it has none."""
        if self.rows is None:
            return tokens
        rows = self.rows[tokens]
        return torch.where(rows < self.size, rows, IGNORED)
