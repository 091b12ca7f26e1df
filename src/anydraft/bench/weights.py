"""What a drafter holds and reads: its own parameters, and the bytes of weights that one drafted level reads.

Levels are counted as they are drafted, by a hook on a module that every level calls once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from anydraft.drafters.eagle import EagleDrafter
from anydraft.drafters.medusa import MedusaDrafter
from anydraft.drafters.recurrent import RecurrentDrafter
from anydraft.networks.apple import AppleBody
from anydraft.networks.network import DrafterNetwork


class Weights:
    """Weights of a drafter.

    Attributes:
        parameters: its own; what it shares with the target is not counted.
        bytes_per_level: read to draft one level, shared weights included.
        levels: drafted while `counting`.
    """

    def __init__(self, parameters: int = 0, bytes_per_level: float = 0.0, called: Sequence[Any] = ()) -> None:
        self.parameters = parameters
        self.bytes_per_level = bytes_per_level
        self.levels = 0
        self._called = called

    @classmethod
    def of(cls, drafter: Any) -> Weights:
        """Those of a drafter: a trained network's, an assistant's, or none (lookup)."""
        if isinstance(drafter, MedusaDrafter):
            heads = list(drafter.network.heads)
            return cls(drafter.network.num_parameters, drafter.bytes_per_step() / len(heads), heads)
        if isinstance(drafter, EagleDrafter):
            network: DrafterNetwork = drafter.network
            return cls(network.num_parameters, drafter.network.bytes_per_step(), [drafter.network.fc])
        if isinstance(drafter, RecurrentDrafter):
            recurrent, body = drafter.network, drafter._steps.body  # type: ignore[attr-defined]  # folded has a copy
            called: Any = getattr(body, "recurrent", None)
            if isinstance(body, AppleBody):
                called = body.rnn_u if body.rnn else body.lm_head[0]
            return cls(recurrent.num_parameters, recurrent.bytes_per_step(), [called])
        lm = getattr(drafter, "lm", None)
        if lm is None:
            return cls()
        shared = lm.model.get_input_embeddings().weight is lm.model.get_output_embeddings().weight
        looked_up = None if shared else lm.model.get_input_embeddings().weight  # one row a token, not read as a whole
        read = sum(p.numel() * p.element_size() for p in lm.model.parameters() if p is not looked_up)
        return cls(lm.num_parameters, read, [lm.model])

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the levels drafted in this block."""
        self.levels = 0
        hooks = [module.register_forward_hook(self._count) for module in self._called]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _count(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self.levels += 1
