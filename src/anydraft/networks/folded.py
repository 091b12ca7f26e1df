"""Folded form of the lean recurrent drafter, for decoding.

Everything between a token id and the gates is one row of a table, W_e norm(E) + b for the whole vocabulary, and
everything between the last narrow layer and the logits is one matrix, head x P. Bytes read per drafted token then do
not depend on the target's width H. Memory held for it, in numbers of the network's precision: V * 3r (V * r for the
Elman cell) and V' * r; with V = 8 k, r = 384 in float32 38 MB and 13 MB, with V = 150 k, r = 512 in bfloat16 460 MB
and at most 154 MB (the head twice on a CPU, where it is packed).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from anydraft.layout import laid_out, linear
from anydraft.networks.lean import LeanBody
from anydraft.networks.recall import Memory
from anydraft.networks.state import State

if TYPE_CHECKING:
    from anydraft.networks.recurrent import RecurrentNetwork

CHUNK = 8192
"""Rows folded at once, in float32."""


class FoldedLean:
    """Steps of a lean network over folded weights; a snapshot, so fold again after changing the weights."""

    @torch.no_grad()
    def __init__(self, network: RecurrentNetwork) -> None:
        body = network.body
        if not isinstance(body, LeanBody):
            raise TypeError("only a lean network folds")
        self.body = copy.deepcopy(body)
        dtype = body.scale.dtype
        if dtype == torch.bfloat16 and body.scale.device.type == "cpu":
            self.body.float()  # small products and the attention take a third of the time in float32 there
        for module in self.body.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = by_columns(module.weight.data)
        self.table = torch.cat([body.tokens(rows.to(body.scale.device)) for rows in _chunks(network.embedding)])
        projection = body.out.weight.float() * body.scale.float()
        heads = (rows.to(projection.device).float() for rows in _chunks(network.head))
        self.head = by_columns(torch.cat([(rows @ projection).to(dtype) for rows in heads]))
        self._laid = laid_out(self.head)

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        """State before the first token, from the target's last hidden states (B, H)."""
        return self.body.start(hidden, memory)

    def step(self, state: State, tokens: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read tokens (B, W), target ids; logits (B, W, V') of what follows them, and the new state."""
        y, state = self.body.narrow(state, F.embedding(tokens, self.table).to(state.cell.dtype))
        y = y.to(self.head.dtype)
        return linear(y, self.head, self._laid), state


def by_columns(weight: torch.Tensor) -> torch.Tensor:
    """The same matrix by columns in float32: a product with a few rows then takes about half the time on a CPU."""
    return weight.t().contiguous().t() if weight.dtype == torch.float32 else weight


def _chunks(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
