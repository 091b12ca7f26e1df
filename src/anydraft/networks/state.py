"""What a recurrent drafter carries from one drafted level to the next."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from anydraft.networks.recall import Memory


class State(NamedTuple):
    """State of B rows with W branches each.

    Attributes:
        cell: (B, W, r) recurrent state.
        context: (B, 1, ...) what was computed of the target's hidden state once for the whole draft.
        memory: what was remembered of the text before, if the network recalls it.
    """

    cell: torch.Tensor
    context: tuple[torch.Tensor, ...]
    memory: Memory | None = None

    def take(self, parents: torch.Tensor) -> State:
        """State of the branches `parents` (B, W') of each row."""
        rows, width, size = self.cell.shape
        if width == 1:
            return self._replace(cell=self.cell.expand(rows, parents.shape[1], size))
        return self._replace(cell=self.cell.gather(1, parents[..., None].expand(-1, -1, size)))


class Steps(Protocol):
    """One drafted level at a time."""

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        """State before the first token, from the target's last hidden states (B, H)."""

    def step(self, state: State, tokens: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read tokens (B, W), target ids; logits (B, W, V') of what follows them, and the new state."""
