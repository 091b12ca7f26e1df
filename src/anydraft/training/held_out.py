"""The held-out sequences of a training, and the estimate they give of its network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from anydraft.hidden import OutputHead
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Packed
from anydraft.training.batches import Dataset, Ints, cut
from anydraft.training.estimate import Estimate, Tally, count

MOST_TOKENS = 16384
"""Read at most for one estimate: its standard error is then below 0.5 % of an acceptance."""


class HeldOut:
    """Held-out sequences in batches.

    Args:
        dataset: what the indices belong to.
        indices: of the sequences held out; the first MOST_TOKENS are read.
        tokens: as for `cut`, and so is `depth`.
        packed: makes a batch of indices.
        accelerator: each of its processes reads a part.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Ints,
        *,
        tokens: int,
        depth: int | None,
        packed: Callable[[Ints], Packed],
        accelerator: Accelerator,
    ) -> None:
        taken = indices[: max(1, int(np.searchsorted(np.cumsum(dataset.lengths[indices]), MOST_TOKENS)))]
        self.dataset, self.packed, self.accelerator = dataset, packed, accelerator
        self.batches = cut(dataset, taken, tokens, depth)

    def all(self) -> Iterator[Packed]:
        """All batches, in every process."""
        return map(self.packed, self.batches)

    def estimate(
        self,
        network: DrafterNetwork,
        head: OutputHead,
        depth: int,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> Estimate | None:
        """Of a network's weights as they are, the same in all processes; None where nothing is held out."""
        tally = Tally(depth, device)
        network.eval()
        count(network, self._rows(device), head, depth, tally, autocast)
        network.train()
        return tally.estimate(lambda sums: self.accelerator.reduce(sums, "sum"))

    def _rows(self, device: torch.device) -> Iterator[tuple[Packed, Tensor]]:
        """Batches of this process, each with which tokens belong to greedy answers."""
        for indices in self.batches[self.accelerator.process_index :: self.accelerator.num_processes]:
            batch = self.packed(indices)
            greedy = torch.from_numpy(self.dataset.temperatures[indices] == 0).to(device)
            # Tokens that fill a batch up are of document -1, and no answers.
            yield batch, greedy[batch.documents]
