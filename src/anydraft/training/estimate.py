"""How many tokens a pass of the target would give, estimated on held-out answers without decoding them.

On greedy answers a draft's token is kept if it is the target's next token. On sampled ones a token drawn with the
target's noise is kept with probability sum_v min(p_v, q_v). A chain is kept as far as all its tokens are: the
products are taken row by row, and their mean over rows, plus the target's own token, is what a pass gives. For greedy
answers and chains that is exact. It leaves out trees, which keep more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from anydraft.hidden import OutputHead
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Packed
from anydraft.training.fused import CHUNK_ELEMENTS
from anydraft.training.teacher import Teacher


@dataclass(frozen=True)
class Estimate:
    """What was found.

    Attributes:
        acceptance: per depth, the share kept of a draft's tokens along the target's text.
        tokens_per_pass: 1 + the mean length of the kept part of a chain.
    """

    acceptance: list[float]
    tokens_per_pass: float


class Tally:
    """Sums from which an estimate is made; those of several processes are added."""

    def __init__(self, depth: int, device: torch.device) -> None:
        self.kept = torch.zeros(depth, dtype=torch.float64, device=device)
        self.chained = torch.zeros(depth, dtype=torch.float64, device=device)
        self.rows = torch.zeros(depth, dtype=torch.float64, device=device)

    def add(self, kept: Tensor, valid: Tensor) -> None:
        """Probabilities (n, depth) that a draft's token is kept, and which of them count."""
        depth = kept.shape[1]
        self.kept[:depth] += (kept * valid).sum(0).double()
        self.chained[:depth] += (kept.cumprod(1) * valid).sum(0).double()
        self.rows[:depth] += valid.sum(0).double()

    def estimate(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> Estimate | None:
        """The estimate; None where nothing was added."""
        sums = reduce(torch.stack([self.kept, self.chained, self.rows]))
        kept, chained, rows = sums[:, sums[2] > 0]
        if not len(rows):
            return None
        return Estimate((kept / rows).tolist(), 1 + float((chained / rows).sum()))


@torch.no_grad()
def count(
    network: DrafterNetwork,
    batches: Iterable[tuple[Packed, Tensor]],
    head: OutputHead,
    depth: int,
    tally: Tally,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Add the rows of some batches to a tally.

    Args:
        network: attached to its target.
        batches: each with (N,) bool, which tokens belong to greedy answers.
        head: the target's.
        depth: deepest prediction.
        tally: takes the sums.
        autocast: of the network's own arithmetic; the target keeps its precision.
    """
    teacher = Teacher(head, network.vocabulary)
    for batch, greedy in batches:
        with autocast():
            levels = list(network.levels(batch, depth))
        size = max(1, CHUNK_ELEMENTS.get(batch.tokens.device.type, CHUNK_ELEMENTS["cpu"]) // len(head.weight))
        valid = torch.stack([batch.valid(level.depth) for level in levels], 1).cumprod(1).bool()
        kept = torch.zeros(valid.shape, device=valid.device)
        places = torch.arange(len(batch), device=valid.device)
        for ends in torch.split(batch.valid(0).nonzero()[:, 0], size):
            p, mass, _ = teacher.probabilities(batch.features[ends])
            best = teacher.labels(head.logits(batch.features[ends]).argmax(-1))
            for number, level in enumerate(levels):
                rows = ends - level.depth
                inside = rows >= 0
                rows = rows.clamp(min=0)
                inside &= valid[rows, number]
                bias = None if level.bias is None else level.bias.to(level.inputs.dtype)
                logits = linear(level.inputs[rows], level.weight.to(level.inputs.dtype), bias).float()
                hit = (logits.argmax(-1) == best).float()
                overlap = torch.minimum(p * mass[:, None], logits.softmax(-1)).sum(-1)
                found = torch.where(greedy[rows], hit, overlap)
                kept[places[rows[inside]], number] = found[inside]
        tally.add(kept, valid)
