"""What a drafter holds and reads: its own parameters, and the bytes of weights that one drafted level reads.

Levels are counted as they are drafted, by a hook on a module that every level calls once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

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
        network = getattr(drafter, "network", None)
        if isinstance(network, DrafterNetwork):
            return cls(network.num_parameters, network.bytes_per_step(), drafter.each_level)
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
