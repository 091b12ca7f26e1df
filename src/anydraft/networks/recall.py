"""Recall: a drafting state looks up what followed similar places of the text, at the price of one small attention.

A recurrent drafter starts from one hidden state and cannot copy from the text before it. The target's earlier hidden
states are at hand anyway: token m gives a key from h_m and a value from h_m and the token that followed it. A state
that has read drafted tokens asks with a query of its own and finds places where the text went on like this (an
induction head, arXiv 2209.11895, over the target's features). Only committed tokens are remembered, so nothing has to
be rolled back; every level reads 2 * heads * 64 numbers a token of context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

HEAD_DIM = 64


class Memory(Protocol):
    """What was remembered of several rows."""

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """What queries (B, W, heads * 64) find, of the same shape."""


class Recall(nn.Module):
    """Keys and values of committed tokens, queries of drafting states.

    Args:
        hidden_size: H.
        state_size: r.
        heads: of 64 numbers each.
    """

    def __init__(self, hidden_size: int, state_size: int, heads: int) -> None:
        super().__init__()
        width = heads * HEAD_DIM
        self.heads = heads
        self.key = nn.Linear(hidden_size, width, bias=False)
        self.value = nn.Linear(hidden_size, width, bias=False)
        self.follower = nn.Linear(hidden_size, width, bias=False)
        self.query = nn.Linear(state_size, width, bias=False)
        self.out = nn.Linear(width, state_size, bias=False)
        for linear in (self.key, self.value, self.follower):
            nn.init.normal_(linear.weight, std=hidden_size**-0.5)
        nn.init.normal_(self.query.weight, std=state_size**-0.5)
        nn.init.zeros_(self.out.weight)  # training starts from the drafter without it

    def remembered(self, hidden: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (n, heads * 64) of normalised hidden states and normalised embeddings of the next tokens."""
        return self.key(hidden), self.value(hidden) + self.follower(following)

    def forward(self, cell: torch.Tensor, memory: Memory) -> torch.Tensor:
        """What states (B, W, r), normalised, find in the memory; (B, W, r)."""
        found: torch.Tensor = self.out(memory.attend(self.query(cell)))
        return found


@dataclass
class RowMemory:
    """For decoding: everything that each row has committed.

    Attributes:
        keys, values: (B, heads, T, 64).
        seen: (B, 1, 1, T) bool, None where all rows are equally long.
    """

    keys: torch.Tensor
    values: torch.Tensor
    seen: torch.Tensor | None = None

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """What queries (B, W, heads * 64) find, of the same shape."""
        rows, width, _ = query.shape
        split = query.view(rows, width, -1, HEAD_DIM).transpose(1, 2)
        found = F.scaled_dot_product_attention(split, self.keys, self.values, attn_mask=self.seen)
        return found.transpose(1, 2).reshape(query.shape)


@dataclass
class PackedMemory:
    """For training: row t of a packed batch sees tokens m <= t of its own sequence.

    Attributes:
        keys, values: (S, heads, L, 64), one sequence a line, padded at its end.
        places: (R,) where each query stands in (S * L).
    """

    keys: torch.Tensor
    values: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(
        cls, keys: torch.Tensor, values: torch.Tensor, documents: torch.Tensor, rows: torch.Tensor
    ) -> PackedMemory:
        """Of keys and values (N, heads * 64) of a packed batch, for queries at its `rows` (R,)."""
        _, lines, lengths = torch.unique_consecutive(documents, return_inverse=True, return_counts=True)
        count, longest = len(lengths), int(lengths.max())
        first = lengths.cumsum(0) - lengths
        places = lines * longest + torch.arange(len(documents), device=documents.device) - first[lines]

        def padded(flat: torch.Tensor) -> torch.Tensor:
            lines = flat.new_zeros(count * longest, flat.shape[1]).index_copy(0, places, flat)
            return lines.view(count, longest, -1, HEAD_DIM).transpose(1, 2)

        return cls(padded(keys), padded(values), places[rows])

    def attend(self, query: torch.Tensor) -> torch.Tensor:
        """What queries (R, 1, heads * 64) find, of the same shape."""
        count, heads, longest, _ = self.keys.shape
        lines = query.new_zeros(count * longest, query.shape[-1]).index_copy(0, self.places, query[:, 0])
        split = lines.view(count, longest, heads, HEAD_DIM).transpose(1, 2)
        found = F.scaled_dot_product_attention(split, self.keys, self.values, is_causal=True)
        return found.transpose(1, 2).reshape(count * longest, -1)[self.places][:, None]
