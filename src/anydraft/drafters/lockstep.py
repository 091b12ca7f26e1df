"""Scores of several rows that draft in lockstep: warped, perturbed by each row's noise, and the best of them picked.

Everything is a tensor operation over (rows, branches, vocabulary) without a host sync. The vocabulary may be a part
of the target's: noise is then gathered at its ids, and proposals are zero elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.generation import TemperatureLogitsWarper

from anydraft.drafters.draws import SIBLING, recorded, warped
from anydraft.row import Row


class Lockstep:
    """Rows of one draft, and how the children of their nodes are picked.

    Args:
        rows: the rows, in the order of the tensors.
        branch: children per node.
        vocab_size: of the target.
        vocabulary: (V',) target ids of the scores; None = all of them.
        device: of the scores.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        branch: int,
        *,
        vocab_size: int,
        vocabulary: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        self.rows = rows
        self.branch = branch
        self.vocab_size = vocab_size
        self.vocabulary = vocabulary
        self.device = device
        warpers = [row.processors.by_scores for row in rows]
        # Temperatures alone, the usual case, are one division for all rows.
        self._simple = all(isinstance(warper, TemperatureLogitsWarper) for chain in warpers for warper in chain)
        self._temperatures: torch.Tensor | None = None
        if self._simple and any(warpers):
            values = [[[float(chain[0].temperature) if chain else 1.0]] for chain in warpers]  # type: ignore[attr-defined]
            self._temperatures = torch.tensor(values, device=device)

    def shared(self, depth: int, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """The likeliest choices of the target, given the noise it will use.

        Args:
            depth: of the nodes whose children are picked (0 = root).
            logits: (B, W, V').

        Returns:
            indices (B, W, k) of the children, best first, and the log-softmax of their perturbed scores.
        """
        scores = self._warped(logits)
        noise = self._noise(depth)
        if noise is not None:
            scores = scores + noise
        index = scores.topk(min(self.branch, scores.shape[-1]), dim=-1).indices
        return index, scores.log_softmax(-1).gather(-1, index), None

    def drawn(self, depth: int, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Children drawn without replacement from q = softmax(scores), with noise of each row's own.

        Returns:
            indices (B, 1, k) in the order drawn, scores that have the first one expanded (and -inf where q has no
            more tokens), and q (B, V) float64 over the target's vocabulary.
        """
        scores = self._warped(logits)[:, 0].double()
        own = []
        for i, row in enumerate(self.rows):
            if row.noise is None:
                best = scores[i].argmax(-1, keepdim=True)
                scores[i] = torch.full_like(scores[i], -torch.inf).index_fill_(0, best, 0.0)
                own.append(torch.zeros_like(scores[i]))
            else:
                noise = row.noise.own(row.position + depth, scores.shape[-1], stream=2)
                own.append(noise.to(scores.device, torch.float64))
        logs = scores.log_softmax(-1)
        keys, index = (logs + torch.stack(own)).topk(min(self.branch, scores.shape[-1]), dim=-1)
        ranks = torch.full_like(keys, SIBLING)
        ranks[:, 0] = 0.0
        ranks = ranks.masked_fill(keys == -torch.inf, -torch.inf)
        return index[:, None], ranks[:, None], recorded(logs.exp(), self.vocab_size, self.vocabulary)

    def _warped(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits.float()
        if self._temperatures is not None:
            return scores / self._temperatures
        if self._simple:
            return scores
        return torch.stack([warped(row, own) for row, own in zip(self.rows, scores, strict=True)])

    def _noise(self, depth: int) -> torch.Tensor | None:
        """Shared noise (B, 1, V') of the tokens after nodes of a depth; None when all rows are greedy."""
        vectors = [None if row.noise is None else row.noise.at(row.position + depth) for row in self.rows]
        known = next((vector for vector in vectors if vector is not None), None)
        if known is None:
            return None
        if len(vectors) == 1:
            stacked = known[None]
        else:
            stacked = torch.stack([torch.zeros_like(known) if vector is None else vector for vector in vectors])
        if self.vocabulary is not None:
            stacked = stacked.index_select(1, self.vocabulary.to(stacked.device))
        return stacked[:, None].to(self.device)
