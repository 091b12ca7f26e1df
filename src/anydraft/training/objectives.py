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
TINY = 1e-38
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
        device = tensors[0].device
        budget = job.objective.chunk or CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"])
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

    def __init__(self, job: _Job, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> None:
        self.job, self.tensors, self.dtype = job, tensors, job.objective.dtype
        device = tensors[0].device
        self.decays = [job.objective.decay ** (depth - 1) for depth in job.depths]
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
        if job.objective.kind == "kl":
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
