"""Lean form of the recurrent drafter: a narrow gated cell, tied to the target's embeddings and LM head.

The target's hidden state enters the recurrence (arXiv 2403.09919 only sets it beside the state), hidden states and
embeddings are normalised because their scale differs between models, and the head is the target's own behind a
projection. What is multiplied with frozen weights is linear in them, so that decoding folds it (`folded.py`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from anydraft.networks.apple import ResBlock
from anydraft.networks.recall import Memory, Recall
from anydraft.networks.state import State

EPS = 1e-6
START = 0.5
"""Size of the first logits against those of a hidden state of unit variance."""


class LeanBody(nn.Module):
    """Cell and blocks of width r between embeddings and hidden states of width H.

    Args:
        hidden_size: H.
        state_size: r.
        num_layers: residual blocks.
        gated: GRU cell (update, reset, candidate) instead of SiLU Elman.
        context_in_cell: let the hidden state into the recurrence.
        recall_heads: of the attention to the text before; 0 = none.
    """

    def __init__(
        self,
        hidden_size: int,
        state_size: int,
        num_layers: int,
        *,
        gated: bool,
        context_in_cell: bool,
        recall_heads: int = 0,
    ) -> None:
        super().__init__()
        self.gated = gated
        parts = 3 if gated else 1
        self.token_in = nn.Linear(hidden_size, parts * state_size)
        self.context_in = nn.Linear(hidden_size, parts * state_size, bias=False) if context_in_cell else None
        self.recurrent = nn.Linear(state_size, parts * state_size, bias=False)
        self.first = nn.Linear(hidden_size, state_size, bias=False)
        self.context_out = nn.Linear(hidden_size, state_size, bias=False)
        self.blocks = nn.ModuleList(ResBlock(state_size) for _ in range(num_layers))
        self.recall = Recall(hidden_size, state_size, recall_heads) if recall_heads else None
        self.scale = nn.Parameter(torch.ones(state_size))
        self.out = nn.Linear(state_size, hidden_size, bias=False)
        self._initialise(hidden_size, state_size)

    def _initialise(self, hidden_size: int, state_size: int) -> None:
        for linear in (self.token_in, self.context_in, self.first, self.context_out):
            if linear is not None:
                nn.init.normal_(linear.weight, std=hidden_size**-0.5)
        nn.init.normal_(self.recurrent.weight, std=state_size**-0.5)
        nn.init.zeros_(self.token_in.bias)
        if self.gated:
            with torch.no_grad():
                self.token_in.bias[:state_size] = -1.0  # the newest token matters most
        nn.init.orthogonal_(self.out.weight, gain=START * (hidden_size / state_size) ** 0.5)

    @property
    def each_level(self) -> nn.Module:
        """A module that every drafted level calls once."""
        return self.recurrent

    def remembered(self, hidden: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (n, ...) of hidden states (n, H) and the embeddings (n, H) of the tokens after them."""
        if self.recall is None:
            raise TypeError("this network recalls nothing")
        dtype = self.scale.dtype
        return self.recall.remembered(normalised(hidden.to(dtype)), normalised(following.to(dtype)))

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        """State before the first token of hidden states (B, H)."""
        hidden = normalised(hidden[:, None].to(self.scale.dtype))
        context = self.context_out(hidden)
        gates = (self.context_in(hidden),) if self.context_in is not None else ()
        return State(torch.tanh(self.first(hidden)), (context, *gates), memory)

    def tokens(self, embedded: torch.Tensor) -> torch.Tensor:
        """What embeddings (..., H) add to the gates (..., parts * r); the same for every draft."""
        added: torch.Tensor = self.token_in(normalised(embedded.to(self.scale.dtype)))
        return added

    def advance(self, state: State, embedded: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read embeddings (B, W, H); input of the target's head (B, W, H) and the new state."""
        y, state = self.narrow(state, self.tokens(embedded))
        return self.out(y * self.scale), state

    def narrow(self, state: State, added: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read what `tokens` gave (B, W, parts * r); output before the scale (B, W, r), and the new state."""
        context, *gates = state.context
        if gates:
            added = added + gates[0]
        cell = self.cell(state.cell, added)
        if self.recall is not None and state.memory is not None:
            cell = cell + self.recall(normalised(cell), state.memory)
        x = normalised(cell + context)
        for block in self.blocks:
            x = block(x)
        return normalised(x), state._replace(cell=cell)

    def cell(self, cell: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        """The recurrence: state (B, W, r) and what is added to it (B, W, parts * r) to the next state."""
        back = self.recurrent(cell)
        if not self.gated:
            return F.silu(added + back)
        split = 2 * cell.shape[-1]
        update, reset = torch.sigmoid(added[..., :split] + back[..., :split]).chunk(2, -1)
        candidate = torch.tanh(torch.addcmul(added[..., split:], reset, back[..., split:]))
        return torch.lerp(candidate, cell, update)


def normalised(x: torch.Tensor) -> torch.Tensor:
    """RMS norm without weights (those that follow contain them)."""
    return F.rms_norm(x, x.shape[-1:], eps=EPS)
