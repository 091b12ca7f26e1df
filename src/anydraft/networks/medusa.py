"""Medusa's network: K residual heads on the target's last hidden state (arXiv 2401.10774).

Medusa-1: the target is frozen. Head i is Linear_i(x + SiLU(W_i x + b_i)); it guesses the i-th token after the root
without knowing the ones between.
W_i and b_i start at zero and Linear_i at the target's LM head (`initialise`). `calibrate` measures on held-out text
how often each rank of each head is right; the tree is made of products of these numbers. No decoding here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch.nn.functional import silu
from transformers import PreTrainedModel

from anydraft.errors import BrokenCheckpoint, OptionConflict
from anydraft.hidden import OutputHead
from anydraft.int8 import rounded
from anydraft.layout import laid_out, linear
from anydraft.networks.config import NetworkConfig
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Level, Packed
from anydraft.onednn import LaidOut

RANKS = 10
"""Candidates of a head that are calibrated; Medusa's own trees use no more."""
TABLES = ("greedy", "sampled")
CHUNK = 64
"""Rows calibrated at once: a few times CHUNK x vocabulary numbers are held."""


@dataclass(frozen=True, kw_only=True)
class MedusaConfig(NetworkConfig):
    """Sizes and calibration.

    Attributes:
        num_heads: K, the deepest draft.
        calibration: tables "greedy" and "sampled" of K lists of RANKS probabilities; see `MedusaNetwork.calibrate`.

    Raises:
        OptionConflict: a size out of range.
        BrokenCheckpoint: the calibration is no such table.
    """

    num_heads: int = 5
    calibration: dict[str, list[list[float]]] | None = None

    @property
    def repeated(self) -> int:
        """Heads."""
        return self.num_heads

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_heads, int) or self.num_heads < 1:
            raise OptionConflict(f"num_heads must be >= 1, got {self.num_heads!r}")
        if self.calibration is not None and not _is_calibration(self.calibration, self.num_heads):
            raise BrokenCheckpoint(
                f"calibration must hold the tables {' and '.join(TABLES)} of {self.num_heads} heads with {RANKS} "
                "probabilities each; calibrate and save again"
            )


class MedusaNetwork(DrafterNetwork):
    """K residual heads. A new one is all zeros: `initialise(model)` makes it worth training.

    Args:
        config: sizes.
        vocabulary: (V',) target ids of the heads' rows, when `config.vocabulary_size` is given.
    """

    kind = "medusa"
    config_class = MedusaConfig
    config: MedusaConfig
    heads: torch.nn.ModuleList

    def __init__(self, config: MedusaConfig, vocabulary: torch.Tensor | None = None) -> None:
        super().__init__(config, vocabulary)
        rows = config.vocabulary_size or config.target.vocab_size
        self.heads = torch.nn.ModuleList(_Head(config.target.hidden_size, rows) for _ in range(config.num_heads))

    def initialise(self, model: PreTrainedModel) -> Self:
        """Attach to the target and start every Linear_i at its LM head (and W_i, b_i at zero), before training.

        The head's rows of the vocabulary, times the model's scale of logits; Medusa's heads have no bias and no cap.
        """
        self.attach(model)
        head = OutputHead(model)
        weight = head.weight if self.vocabulary is None else head.weight[self.vocabulary.to(head.weight.device)]
        with torch.no_grad():
            for mine in self._first(self.config.num_heads):
                mine.block.weight.zero_()
                mine.block.bias.zero_()
                mine.weight.copy_(weight * head.scale)
        return self

    def levels(self, batch: Packed, depth: int) -> Iterator[Level]:
        """Depth i from head i; depths beyond K are left out."""
        for i, head in enumerate(self._first(depth), 1):
            yield Level(i, head(batch.features.to(head.weight.dtype)), head.weight)

    def logits(self, hidden: torch.Tensor, depth: int) -> torch.Tensor:
        """Logits (n, depth, V') of the first `depth` <= K heads from last hidden states (n, H)."""
        return torch.stack([linear(head(hidden), head.weight, head.laid) for head in self._first(depth)], dim=1)

    def prepare(self) -> Self:
        """Pack the weights for decoding; see `DrafterNetwork.prepare`. The heads are held in both forms then."""
        for head in self._first(self.config.num_heads):
            head.laid = rounded(head.weight, layout=False) or laid_out(head.weight)
        return super().prepare()

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Packed], head: OutputHead, *, rows: int = 4096, seed: int = 0) -> Self:
        """Measure on held-out text how often each rank of each head is right, and keep it in the config.

        Entry [d][r] is P(the rank-r candidate of head d + 1 is the target's choice | the path so far was right), where
        right means: among the RANKS first at every shallower depth. Products along a path are then estimates of
        the path; those of marginals would be too low, because easy places follow each other. One number for
        all ranks of the parents, so that all nodes of a depth share their candidates.

        "greedy": ranks of the logits, against the argmax of the target, where the text so far is its argmax too.
        "sampled": ranks of logits + noise against argmax(target's logits + the same noise), which is what shared noise
        does at temperature 1. At the depth looked at the noise is fresh; for the path so far it is drawn given
        that the target chose the text, so that greedy texts do no more than stand in as prefixes.

        Args:
            batches: held-out text; read until `rows` places have been looked at.
            head: of the target.
            rows: places; the standard error is at most 0.5 / sqrt(rows).
            seed: of the noise.

        Raises:
            OptionConflict: there was nothing to predict.
        """
        kept = self.config.num_heads
        counts = {name: torch.zeros(kept, RANKS + 1, dtype=torch.float64) for name in TABLES}
        seen = 0
        for batch in batches:
            generator = torch.Generator(batch.features.device).manual_seed(seed + seen)
            valid = torch.stack([batch.valid(depth) for depth in range(1, kept + 1)]).cumprod(0).bool()
            levels = list(self.levels(batch, kept))
            for first in range(0, len(batch), CHUNK):
                at = first + valid[0, first : first + CHUNK].nonzero()[:, 0]
                if len(at) and seen < rows:
                    seen += len(at)
                    self._count(counts, batch, levels, head, at, valid, generator)
            if seen >= rows:
                break
        if not seen:
            raise OptionConflict("calibration needs held-out answers, and none of those given has a token to predict")
        tables = {name: _conditional(count) for name, count in counts.items()}
        self.config = replace(self.config, calibration=tables)
        return self

    def bytes_per_step(self) -> int:
        """Bytes of one head: each drafts one level."""
        return sum(weight.numel() * weight.element_size() for weight in self.heads[0].parameters())

    def _first(self, depth: int) -> list[_Head]:
        return cast("list[_Head]", list(self.heads)[:depth])

    def _count(
        self,
        counts: dict[str, torch.Tensor],
        batch: Packed,
        levels: list[Level],
        head: OutputHead,
        at: torch.Tensor,
        valid: torch.Tensor,
        generator: torch.Generator,
    ) -> None:
        """Add the ranks of the rows `at` (ascending, close together) to the counts."""
        first = int(at[0])
        places = torch.arange(first, min(int(at[-1]) + len(levels) + 1, len(batch)), device=at.device)
        teacher = head.logits(batch.features[places])  # (places, V), each for the token behind its place
        following = batch.shifted(1)[places]
        best = teacher.argmax(-1)
        noise = -torch.empty_like(teacher).exponential_(generator=generator).log()
        drawn = (teacher + noise).argmax(-1)
        given = _noise_given(teacher, noise, drawn, following, generator)
        on_greedy, on_sampled = torch.ones_like(at, dtype=torch.bool), torch.ones_like(at, dtype=torch.bool)
        for level, inside in zip(levels, valid, strict=True):
            here = (at + level.depth - first).clamp(max=len(places) - 1)
            scores = linear(level.inputs[at], level.weight, None).float()
            ranks = self._ranks(scores, best[here])
            _tally(counts["greedy"][level.depth - 1], ranks[on_greedy & inside[at]])
            on_greedy &= (ranks < RANKS) & (best[here] == following[here])
            ranks = self._ranks(scores + self._columns(noise[here]), drawn[here])
            _tally(counts["sampled"][level.depth - 1], ranks[on_sampled & inside[at]])
            on_sampled &= self._ranks(scores + self._columns(given[here]), following[here]) < RANKS

    def _columns(self, full: torch.Tensor) -> torch.Tensor:
        return full if self.vocabulary is None else full[:, self.vocabulary]

    def _ranks(self, scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Rank (n,) of target ids among scores (n, V'); RANKS for those beyond and those not in the vocabulary."""
        column, known = tokens, torch.ones_like(tokens, dtype=torch.bool)
        if self.vocabulary is not None:
            same = tokens[:, None] == self.vocabulary
            column, known = same.int().argmax(-1), same.any(-1)
        ranks = (scores > scores.gather(1, column[:, None])).sum(-1)
        return torch.where(known, ranks, RANKS).clamp(max=RANKS)


class _Head(torch.nn.Module):
    """One residual block, and the weight of the linear behind it; `laid` is the same packed, when it was prepared."""

    laid: LaidOut | None = None

    def __init__(self, hidden_size: int, rows: int) -> None:
        super().__init__()
        self.block = torch.nn.Linear(hidden_size, hidden_size)
        torch.nn.init.zeros_(self.block.weight)
        torch.nn.init.zeros_(self.block.bias)
        self.weight = torch.nn.Parameter(torch.zeros(rows, hidden_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """What goes into the linear, (..., H)."""
        return hidden + silu(self.block(hidden))


def _noise_given(
    teacher: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor, chosen: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Noise (n, V) under which `chosen` (n,) is the argmax of teacher + noise, from noise under which `drawn` is.

    The largest perturbed value is independent of where it lies, and the others are Gumbels cut off at it: so `chosen`
    takes the largest, and `drawn` a new value below.
    """
    index, other = chosen[:, None], drawn[:, None]
    largest = (teacher + noise).gather(1, other)
    again = teacher.gather(1, other) - torch.empty_like(largest).exponential_(generator=generator).log()
    below = -torch.logaddexp(-largest, -again)
    given = noise.scatter(1, other, below - teacher.gather(1, other))
    return given.scatter(1, index, largest - teacher.gather(1, index))


def _tally(counts: torch.Tensor, ranks: torch.Tensor) -> None:
    counts += torch.bincount(ranks, minlength=RANKS + 1).to(counts)


def _conditional(counts: torch.Tensor) -> list[list[float]]:
    shares = counts[:, :RANKS] / counts.sum(-1, keepdim=True).clamp(min=1)
    return [[round(share, 6) for share in row] for row in shares.tolist()]


def _is_calibration(tables: Any, heads: int) -> bool:
    """Whether this is what `calibrate` writes."""
    try:
        return set(tables) == set(TABLES) and all(
            len(tables[name]) == heads
            and all(len(row) == RANKS and all(0 <= float(p) <= 1 for p in row) for row in tables[name])
            for name in TABLES
        )
    except (TypeError, ValueError):
        return False
