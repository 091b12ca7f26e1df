"""A network's levels as one compiled function, for networks whose rows do not look at each other.

Batches must all have one size: other sizes are compiled anew, and only equal programs round equally.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Level, Packed

FEW = 2


class Compiled:
    """`network.levels` with the same results up to rounding."""

    def __init__(self, network: DrafterNetwork) -> None:
        self.network = network
        self._inputs = torch.compile(self._plain, dynamic=False)

    def __call__(self, batch: Packed, depth: int) -> Iterator[Level]:
        """Levels of a batch; the heads are taken from a batch of two rows, so that they stay what they are."""
        fields = (batch.tokens, batch.documents, batch.positions, batch.answers, batch.features)
        heads = self.network.levels(Packed(*(field[:FEW] for field in fields)), depth)
        for level, inputs in zip(heads, self._inputs(*fields, depth), strict=True):
            yield Level(level.depth, inputs, level.weight, level.bias)

    def _plain(
        self, tokens: Tensor, documents: Tensor, positions: Tensor, answers: Tensor, features: Tensor, depth: int
    ) -> list[Tensor]:
        batch = Packed(tokens, documents, positions, answers, features)
        return [level.inputs for level in self.network.levels(batch, depth)]
