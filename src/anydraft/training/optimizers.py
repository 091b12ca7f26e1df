"""AdamW, or Muon for matrices and AdamW for the rest, as one thing with one learning rate."""

from __future__ import annotations

from typing import Any

import torch

from anydraft.networks.network import DrafterNetwork
from anydraft.training.settings import TrainingSettings

BETAS = (0.9, 0.95)


class Optimizers:
    """Of a network's trainable weights.

    Muon's updates are scaled to the size of AdamW's, so that both take the same learning rate.
    """

    def __init__(self, network: DrafterNetwork, settings: TrainingSettings) -> None:
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for parameter in network.parameters():
            if parameter.requires_grad:
                # A head with a row per token is no map between layers: Muon is not for it.
                square = parameter.ndim == 2 and max(parameter.shape) <= 16 * min(parameter.shape)
                (matrices if square else rest).append(parameter)
        self.all: list[torch.optim.Optimizer] = []
        decay = settings.weight_decay
        if settings.optimizer == "muon" and matrices:
            self.all.append(
                torch.optim.Muon(
                    matrices, lr=settings.lr, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
                )
            )
            matrices = []
        groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        if groups:
            self.all.append(torch.optim.AdamW(groups, lr=settings.lr, betas=BETAS, fused=True))

    def step(self, rate: float) -> None:
        """Update the weights and forget the gradients."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """Of all of them."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """The inverse of `state_dict`."""
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)
