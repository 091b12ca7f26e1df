"""Linear head, softmax and loss in chunks of rows, with the gradient made beside the loss.

As in Liger's fused cross-entropy (arXiv 2410.10989), for several depths that share a teacher. The plain twin is in the
tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from anydraft.networks.packed import Packed
from anydraft.training.teacher import IGNORED, Teacher

TINY = 1e-38
CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits made at once: what a CPU's caches hold, a small share of a GPU's memory."""


@dataclass
class Job:
    """What the fused loss works on besides tensors with gradients.

    Attributes:
        distilled: towards the teacher, else towards the tokens.
        decay: a depth's weight relative to the one before.
        dtype: of the products.
        chunk: logits made at once, or None.
    """

    distilled: bool
    decay: float
    dtype: torch.dtype
    chunk: int | None
    depths: list[int]
    biased: list[bool]
    batch: Packed
    teacher: Teacher
    ends: Tensor
    """(n,) positions u whose next token is an answer; depth i predicts it from row t = u - i."""

    def taken(self, ends: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Rows t of some positions u, and whether t lies in the same sequence."""
        rows = ends - depth
        inside = rows >= 0
        rows = rows.clamp(min=0)
        return rows, inside & (self.batch.documents[rows] == self.batch.documents[ends])


class Fused(torch.autograd.Function):
    """Linear head, softmax and loss in chunks; the gradient is ready when the loss is."""

    @staticmethod
    def forward(ctx: Any, job: Job, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(weighted sum, sums by depth, rows by depth)."""
        device = tensors[0].device
        budget = job.chunk or CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"])
        size = max(1, min(len(job.ends), budget // job.teacher.size))
        chunks = _Chunks(job, tensors, ctx.needs_input_grad[1:])
        for ends in torch.split(job.ends, size):
            chunks.add(ends)
        ctx.grads = [chunks.grads.pop(id(tensor), None) for tensor in tensors]  # autograd adds up shared ones
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        ctx.mark_non_differentiable(chunks.sums, chunks.rows)
        return (torch.tensor(chunks.decays, device=device) * chunks.sums).sum(), chunks.sums, chunks.rows

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """The prepared gradients times that of the weighted sum."""
        grads = [
            None if grad is None else grad.mul_(outer[0]).to(dtype)
            for grad, dtype in zip(ctx.grads, ctx.dtypes, strict=True)
        ]
        ctx.grads = None
        return (None, *grads)


class _Chunks:
    """Sums and gradients while they are made.

    With q = softmax(x W'), the gradient of a row is (q - y) W for the input and (q - y)' x for the head, y being the
    teacher's p or the token. A frozen head needs the former alone, and gets it as q W - y W: what belongs to y is
    made once for all depths, and so is what the value needs of it, y x W' = x (y W)'.
    """

    def __init__(self, job: Job, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self.job, self.tensors, self.dtype = job, tensors, job.dtype
        device = tensors[0].device
        self.decays = [job.decay ** (depth - 1) for depth in job.depths]
        self.places = _places(job.biased)
        self.heads = {id(tensors[w]): tensors[w].to(self.dtype) for _, w, _ in self.places}
        self.grads = {
            id(tensor): torch.zeros_like(tensor, dtype=torch.float32)
            for tensor, needs in zip(tensors, wanted, strict=True)
            if needs
        }
        """By identity: depths that share a head share its gradient."""
        self.sums = torch.zeros(len(job.depths), device=device)
        self.rows = torch.zeros(len(job.depths), device=device)

    def add(self, ends: Tensor) -> None:
        """The predictions of the tokens behind some positions, at all depths."""
        job = self.job
        labels = job.teacher.labels(job.batch.tokens[ends + 1])
        pivot = labels.clamp(min=0)[:, None]
        p: Tensor | None = None
        if job.distilled:
            p, mass, constant = job.teacher.probabilities(job.batch.features[ends])
            p = p.to(self.dtype)
        else:
            mass = (labels != IGNORED).float()
            constant = torch.zeros_like(mass)
        pulls: dict[int, Tensor] = {}
        waiting: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for number, (x, w, b) in enumerate(self.places):
            head = self.heads[id(self.tensors[w])]
            if id(head) not in pulls:
                pulls[id(head)] = head[pivot[:, 0]] if p is None else p @ head
            pull = pulls[id(head)]
            bias = None if b is None else self.tensors[b].to(self.dtype)
            taken, inside = job.taken(ends, job.depths[number])
            inputs = self.tensors[x][taken].to(self.dtype)
            logits = linear(inputs, head, bias)
            q = logits.softmax(-1)
            # log q of one token gives the normaliser without another pass.
            normaliser = logits.gather(1, pivot).float() - q.gather(1, pivot).float().clamp(min=TINY).log()
            aim = torch.linalg.vecdot(inputs.float(), pull.float())
            if bias is not None:
                aim = aim + (bias[pivot[:, 0]] if p is None else p @ bias).float()
            weight = mass * inside
            value = constant - aim + normaliser[:, 0]
            self.sums[number] += torch.where(weight > 0, value * weight, 0.0).sum()
            self.rows[number] += (weight > 0).sum()
            weight = (weight * self.decays[number])[:, None]
            if id(self.tensors[x]) in self.grads:
                back = (q @ head).float().sub_(pull).mul_(weight)
                self.grads[id(self.tensors[x])].index_add_(0, taken, back)
            trained = id(self.tensors[w]) in self.grads
            if trained or (b is not None and id(self.tensors[b]) in self.grads):
                grad = q.scatter_add_(1, pivot, q.new_full(pivot.shape, -1.0)) if p is None else q.sub_(p)
                if trained:
                    waiting.setdefault(id(self.tensors[w]), []).append((grad, inputs * weight.to(self.dtype)))
                if b is not None and id(self.tensors[b]) in self.grads:
                    self.grads[id(self.tensors[b])] += weight[:, 0].to(self.dtype) @ grad
        for key, pairs in waiting.items():
            # In one product for all depths: adding to a large matrix is what costs.
            self.grads[key] += torch.cat([grad for grad, _ in pairs]).t() @ torch.cat([row for _, row in pairs])


def _places(biased: Sequence[bool]) -> list[tuple[int, int, int | None]]:
    """Where inputs, weight and bias of each depth lie among the tensors."""
    places: list[tuple[int, int, int | None]] = []
    at = 0
    for has_bias in biased:
        places.append((at, at + 1, at + 2 if has_bias else None))
        at += 3 if has_bias else 2
    return places
