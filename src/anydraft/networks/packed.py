"""What a drafter's network is trained on: packed sequences with the target's hidden states, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Packed:
    """Sequences laid one after the other, without padding.

    Attributes:
        tokens: (N,) long.
        documents: (N,) long, to which sequence a token belongs.
        positions: (N,) long, place of a token in its sequence.
        answers: (N,) bool, whether the token is the target's own (and not the prompt's).
        features: (N, H) the target's last hidden state at each token.
    """

    tokens: torch.Tensor
    documents: torch.Tensor
    positions: torch.Tensor
    answers: torch.Tensor
    features: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def shifted(self, ahead: int) -> torch.Tensor:
        """(N,) the token `ahead` places further on; the last ones stand for what lies behind the end."""
        return self.tokens[self.index(ahead)]

    def valid(self, depth: int) -> torch.Tensor:
        """(N,) bool: rows t whose prediction at `depth`, token t + 1 + depth, is an answer in the same sequence."""
        index = self.index(1 + depth)
        inside = torch.arange(len(self), device=self.tokens.device) + 1 + depth < len(self)
        return inside & (self.documents[index] == self.documents) & self.answers[index]

    def index(self, ahead: int) -> torch.Tensor:
        """(N,) index of the token `ahead` places further on, at most the last one."""
        return (torch.arange(len(self), device=self.tokens.device) + ahead).clamp_(max=len(self) - 1)


@dataclass
class Level:
    """Predictions of one depth for a packed batch.

    Attributes:
        depth: 1-based; row t predicts token t + 1 + depth.
        inputs: (N, E) what goes into the head.
        weight: (V', E) the head; a parameter where it is trained, the target's own where it is tied.
        bias: (V',) or None.
        regression: a further term of the loss, already weighted (EAGLE's distance of features), or None.
    """

    depth: int
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    regression: torch.Tensor | None = None
