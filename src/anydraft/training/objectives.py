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

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from anydraft.hidden import OutputHead
from anydraft.networks.packed import Level, Packed

Kind = Literal["kl", "ce"]
IGNORED = -100
CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits made at once: what a CPU's caches hold, a small share of a GPU's memory."""


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
        job = _Job(self, [level.depth for level in levels], [x.bias is not None for x in levels], batch, teacher, ends)
        total, sums, weights = _Fused.apply(job, *tensors)  # type: ignore[no-untyped-call]
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


class Teacher:
    """The target's probabilities over the drafter's vocabulary.

    Args:
        head: the target's.
        vocabulary: (V',) target ids of the drafter's head; None for all.
    """

    def __init__(self, head: OutputHead, vocabulary: Tensor | None) -> None:
        size = len(head.weight)
        self.size = size if vocabulary is None else len(vocabulary)
        self.rows: Tensor | None = None
        """(V,) row of the drafter's head for each target id, at or above `size` where it has none."""
        self.head = head
        if vocabulary is not None:
            # Permuted once: the drafter's part of every softmax is then a slice instead of a gather.
            ids = vocabulary.to(head.weight.device)
            others = torch.ones(size, dtype=torch.bool, device=ids.device)
            others[ids] = False
            order = torch.cat([ids, others.nonzero()[:, 0]])
            self.head = copy.copy(head)
            self.head.weight = head.weight[order]
            self.head.bias = None if head.bias is None else head.bias[order]
            self.rows = torch.empty_like(order)
            self.rows[order] = torch.arange(size, device=order.device)

    def probabilities(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of hidden states (n, H): p / m (n, V') float32, m (n,), and the negative entropy of p / m (n,)."""
        logits = self.head.logits(hidden)
        part = logits[:, : self.size].log_softmax(-1)
        if self.size == logits.shape[1]:
            mass = torch.ones(len(logits), device=logits.device)
        else:
            rest = torch.logsumexp(logits[:, self.size :], -1)
            mass = torch.sigmoid(logits[:, 0] - part[:, 0] - rest)
        p = part.exp()
        return p, mass, torch.linalg.vecdot(p, part)

    def labels(self, tokens: Tensor) -> Tensor:
        """Rows of the drafter's head for target ids; IGNORED where it has none."""
        if self.rows is None:
            return tokens
        rows = self.rows[tokens]
        return torch.where(rows < self.size, rows, IGNORED)


@dataclass
class _Job:
    """What the fused loss works on besides tensors with gradients."""

    objective: Objective
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


class _Fused(torch.autograd.Function):
    """Linear head, softmax and loss in chunks; the gradient is ready when the loss is."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(weighted sum, sums by depth, rows by depth)."""
        objective, teacher, batch = job.objective, job.teacher, job.batch
        device, dtype = tensors[0].device, objective.dtype
        budget = objective.chunk or CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"])
        size = max(1, min(len(job.ends), budget // teacher.size))
        grads: dict[int, Tensor] = {}
        """By identity: depths that share a head share its gradient."""
        places = list(_places(job.biased))
        cast = {id(tensors[w]): tensors[w].to(dtype) for _, w, _ in places}
        for number, tensor in enumerate(tensors):
            if ctx.needs_input_grad[1 + number] and id(tensor) not in grads:
                grads[id(tensor)] = torch.zeros_like(tensor, dtype=torch.float32)
        sums = torch.zeros(len(job.depths), device=device)
        rows = torch.zeros(len(job.depths), device=device)
        distilled = objective.kind == "kl"
        for ends in torch.split(job.ends, size):
            following = batch.tokens[ends + 1]
            if distilled:
                p, mass, negentropy = teacher.probabilities(batch.features[ends])
                pivot = p.argmax(-1, keepdim=True)
                known, p = mass, p.to(dtype)
            else:
                labels = teacher.labels(following)
                known, pivot = (labels != IGNORED).float(), labels.clamp(min=0)[:, None]
                mass = known
            for number, depth in enumerate(job.depths):
                x, w, b = places[number]
                taken, inside = job.taken(ends, depth)
                weight = mass * inside
                inputs = tensors[x][taken].to(dtype)
                logits = linear(inputs, cast[id(tensors[w])], None if b is None else tensors[b].to(dtype))
                q = logits.softmax(-1)
                # log q of one likely token gives the normaliser without another pass.
                normaliser = logits.gather(1, pivot).float() - q.gather(1, pivot).float().clamp(min=1e-30).log()
                if distilled:
                    value = negentropy - torch.linalg.vecdot(p, logits).float() + normaliser[:, 0]
                    grad = q.sub_(p)
                else:
                    value = normaliser[:, 0] - logits.gather(1, pivot)[:, 0].float()
                    grad = q.scatter_add_(1, pivot, q.new_full(pivot.shape, -1.0))
                sums[number] += torch.where(weight > 0, value * weight, 0.0).sum()
                rows[number] += (inside * (known > 0)).sum()
                weight = weight * objective.decay ** (depth - 1)
                if id(tensors[x]) in grads:
                    back = (grad @ cast[id(tensors[w])]).float() * weight[:, None]
                    grads[id(tensors[x])].index_add_(0, taken, back)
                if id(tensors[w]) in grads:
                    grads[id(tensors[w])] += (grad.t() @ (inputs * weight[:, None].to(dtype))).float()
                if b is not None and id(tensors[b]) in grads:
                    grads[id(tensors[b])] += weight.to(dtype) @ grad
        ctx.grads = [_once(grads, tensor) for tensor in tensors]
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        decays = torch.tensor([objective.decay ** (depth - 1) for depth in job.depths], device=device)
        ctx.mark_non_differentiable(sums, rows)
        return (decays * sums).sum(), sums, rows

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """The prepared gradients times that of the weighted sum."""
        grads = [
            None if grad is None else grad.mul_(outer[0]).to(dtype)
            for grad, dtype in zip(ctx.grads, ctx.dtypes, strict=True)
        ]
        ctx.grads = None
        return (None, *grads)


def _once(grads: dict[int, Tensor], tensor: Tensor) -> Tensor | None:
    """A tensor's gradient the first time it is asked for: autograd adds up the places of a shared one."""
    return grads.pop(id(tensor), None)


def _places(biased: Sequence[bool]) -> Sequence[tuple[int, int, int | None]]:
    """Where inputs, weight and bias of each depth lie among the tensors."""
    places, at = [], 0
    for has_bias in biased:
        places.append((at, at + 1, at + 2 if has_bias else None))
        at += 3 if has_bias else 2
    return places


def unrolled_cross_entropy(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Apple's training loss (apple/ml-recurrent-drafter), for comparison: sum over depths of the mean cross-entropy.

    Args:
        logits: per depth (B, T, V); row t of the i-th, counted from 0, predicts token t + 2 + i.
        labels: (B, T) tokens, -100 where none is wanted.
    """
    total = torch.zeros((), device=labels.device)
    for number, level in enumerate(logits):
        shift = number + 2
        wanted, given = labels[:, shift:], level[:, : level.shape[1] - shift]
        if (wanted != IGNORED).any():
            total = total + cross_entropy(given.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)
    return total
