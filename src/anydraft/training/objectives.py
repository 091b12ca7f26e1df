"""What a drafter is taught: the target's own distribution along the target's own text (soft KL), or its tokens alone.

    loss = sum over depths i of decay^(i - 1) * sum over rows t of KL(p_(t+i) || q_i(t))

p_u is the target's distribution after token u at temperature 1, read off its last hidden state there, and q_i(t) is
the drafter's prediction of token t + 1 + i from h_t and the tokens up to t + i. With a reduced vocabulary p is
restricted to it and a row counts with the probability m that it holds: m * KL(p / m || q), so that q learns the
target's law given that the token is in the vocabulary. Cross-entropy leaves out tokens outside.

Logits exist for one chunk of rows at a time. The gradient is made together with the loss, as in Liger's fused
cross-entropy (arXiv 2410.10989), and a chunk's p serves all depths; so memory is that of the hidden states, whatever
the vocabulary. The plain twin is in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anydraft.networks.packed import Level, Packed
from anydraft.training.fused import Fused, Job
from anydraft.training.teacher import Teacher

Kind = Literal["kl", "ce"]


@dataclass(frozen=True)
class Objective:
    """Which loss, and how depths and rows weigh.

    Attributes:
        kind: "kl" (distillation) or "ce" (the tokens themselves).
        decay: a depth's weight relative to the one before.
        rows: share of the rows that is drawn for each batch; the loss stays unbiased.
        dtype: of the products with the head; sums are float32.
        chunk: logits made at once; by default what suits the device.
    """

    kind: Kind = "kl"
    decay: float = 0.9
    rows: float = 1.0
    dtype: torch.dtype = torch.float32
    chunk: int | None = None

    def __call__(self, levels: Sequence[Level], batch: Packed, teacher: Teacher) -> Loss:
        """Loss of all depths, summed over rows; gradients reach the levels' inputs, trainable heads and biases."""
        ends = batch.valid(0).nonzero()[:, 0]
        if self.rows < 1:
            wanted = max(1, round(self.rows * len(ends)))
            drawn = torch.randperm(len(ends), device=ends.device)[:wanted]
            ends = ends[drawn.sort().values]
        tensors: list[Tensor] = []
        for level in levels:
            tensors += [level.inputs, level.weight, *([] if level.bias is None else [level.bias])]
        job = Job(
            self.kind == "kl",
            self.decay,
            self.dtype,
            self.chunk,
            [level.depth for level in levels],
            [level.bias is not None for level in levels],
            batch,
            teacher,
            ends,
        )
        total, sums, weights = Fused.apply(job, *tensors)  # type: ignore[no-untyped-call]
        for number, level in enumerate(levels):
            if level.regression is not None:
                total = total + level.regression * weights[number] * self.decay ** (level.depth - 1)
        scale = torch.tensor([self.decay ** (level.depth - 1) for level in levels], device=weights.device)
        return Loss(total, (scale * weights).sum(), sums, weights)


@dataclass
class Loss:
    """Sums, so that micro-batches and processes add up exactly.

    Attributes:
        total: scalar to go backward from, weighted by depth and summed over rows.
        weight: what to divide by for a mean.
        sums: (depths,) unweighted sums of each depth.
        rows: (depths,) how many rows each depth had.
    """

    total: Tensor
    weight: Tensor
    sums: Tensor
    rows: Tensor
