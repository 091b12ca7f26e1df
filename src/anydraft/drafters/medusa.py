"""Medusa drafter: the best n paths through the candidates of K heads that read one hidden state (arXiv 2401.10774).

The heads do not know what was drafted before them, so all nodes of a depth share their candidates and the tree costs
nothing beyond the heads. With `verification="exact"` the heads' scores carry the shared noise of their positions, which
makes sampling as exact as greedy decoding; Medusa's own typical acceptance is not lossless and has no place here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import torch

from anydraft.drafters.draws import drawn_bounds, recorded, sampled, siblings, warped
from anydraft.growth import Bounds, Children, Growth, grow
from anydraft.networks.medusa import RANKS, MedusaNetwork
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree
from anydraft.verify import Verification

LEAST = 1e-6
"""Probability of a rank that was never seen right: calibration has seen only so many places."""


class MedusaDrafter:
    """Drafts with Medusa's heads.

    Args:
        network: attached to the target, or it is now.
        target: whose hidden states are read.
        verification: "rejection" draws from recorded proposals instead of following the shared noise.

    Raises:
        WrongTarget: the network was trained for another target.
    """

    name = "medusa"
    hidden: Literal["last", "all"] = "last"

    def __init__(self, network: MedusaNetwork, target: Target, *, verification: Verification = "exact") -> None:
        if not network.attached:
            network.attach(target.model)
        self.network = network
        self.vocab_size = target.vocab_size
        self.eos_token_ids = target.eos_token_ids
        self.verification = verification
        self._states: dict[Row, torch.Tensor] = {}
        self._ids = network.vocabulary
        tables = network.config.calibration
        self._logs: dict[bool, list[list[float]]] | None = None  # by whether the row samples
        if tables is not None:
            self._logs = {False: _logs(tables["greedy"]), True: _logs(tables["sampled"])}

    @property
    def each_level(self) -> Sequence[torch.nn.Module]:
        """Modules of which every drafted level calls one, once."""
        return list(self.network.heads)

    def start(self, rows: Sequence[Row]) -> None:
        """Nothing is known of a row before its first hidden state."""

    def read(self, row: Row, hidden: torch.Tensor) -> None:
        """Keep the newest last hidden state (n, H)."""
        weight = next(self.network.parameters())
        self._states[row] = hidden[-1].detach().to(weight.device, weight.dtype, copy=True)

    def stop(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""
        for row in rows:
            self._states.pop(row, None)

    @torch.inference_mode()
    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One tree per row; an empty one where no hidden state was read."""
        drafts = [DraftTree.EMPTY] * len(rows)
        heads = self.network.config.num_heads
        depths = [min(heads, b.depth, b.target_depth) if min(b.nodes, b.branch) > 0 else 0 for b in bounds]
        asked = [i for i, row in enumerate(rows) if depths[i] > 0 and row in self._states]
        if not asked:
            return drafts
        states = torch.stack([self._states[rows[i]] for i in asked])
        logits = self.network.logits(states, max(depths[i] for i in asked)).float()
        if self._ids is None:
            logits = logits[..., : self.vocab_size]
        drawn = [self.verification == "rejection" and rows[i].processors.sample for i in asked]
        for n, i in enumerate(asked):
            if drawn[n]:
                drafts[i] = self._drawn(rows[i], logits[n, : depths[i]], bounds[i])
        exact = [n for n in range(len(asked)) if not drawn[n]]
        if exact:
            chosen = [asked[n] for n in exact]
            branch = max(bounds[i].branch for i in chosen)
            levels = self._candidates(
                [rows[i] for i in chosen], logits if len(exact) == len(asked) else logits[exact], branch
            )
            for i, of_row in zip(chosen, levels, strict=True):
                drafts[i] = best_paths([level[: bounds[i].branch] for level in of_row[: depths[i]]], bounds[i])
        return drafts

    def _candidates(self, rows: Sequence[Row], logits: torch.Tensor, branch: int) -> list[list[Children]]:
        """Per row and depth the likeliest choices of the target, given the noise it will use; logits (n, depth, V')."""
        scores = logits
        if any(row.processors.by_scores or row.noise is not None for row in rows):
            scores = torch.stack([self._perturbed(row, of_row) for row, of_row in zip(rows, logits, strict=True)])
        branch = min(branch, scores.shape[-1]) if self._logs is None else min(branch, scores.shape[-1], RANKS)
        values, found = torch.topk(scores, branch, dim=-1)
        if self._logs is None:
            values = values - scores.logsumexp(-1, keepdim=True)
        tokens: list[list[list[int]]] = (found if self._ids is None else self._ids[found]).tolist()
        shares: list[list[list[float]]] = values.tolist()
        levels = []
        for row, of_row, shares_of_row in zip(rows, tokens, shares, strict=True):
            logs = shares_of_row if self._logs is None else self._logs[row.processors.sample]
            levels.append([self._children(*depth) for depth in zip(of_row, logs, shares_of_row, strict=False)])
        return levels

    def _children(self, tokens: list[int], logs: list[float], shares: list[float]) -> Children:
        """Candidates of one depth; those that the row's cuts exclude have no share."""
        return [
            (token, log, token in self.eos_token_ids)
            for token, log, share in zip(tokens, logs, shares, strict=False)
            if share > -math.inf
        ]

    def _perturbed(self, row: Row, logits: torch.Tensor) -> torch.Tensor:
        """Warped scores (depth, V') of one row plus the shared noise of their positions."""
        scores = warped(row, logits)
        if row.noise is None:
            return scores
        noise = torch.stack([row.noise.at(row.position + above) for above in range(len(scores))]).to(scores.device)
        return scores + (noise[:, : scores.shape[-1]] if self._ids is None else noise[:, self._ids])

    def _drawn(self, row: Row, logits: torch.Tensor, bound: Bounds) -> DraftTree:
        """Children drawn without replacement at every depth from logits (depth, V'), one of them continued."""
        branch = siblings(bound)
        limits = drawn_bounds(bound, branch)
        depth = min(len(logits), limits.depth)
        scores = warped(row, logits[:depth])
        if self._ids is not None:
            scores = scores.new_full((depth, self.vocab_size), -math.inf).index_copy_(1, self._ids, scores)
        probs: dict[int, torch.Tensor] = {}
        growth = Growth()
        steps = grow(replace(limits, depth=depth), growth)
        with suppress(StopIteration):
            frontier = next(steps)
            for above in range(depth):
                position = row.position + above
                children, q = sampled(scores[above : above + 1], row, position, branch, self.eos_token_ids)
                probs[frontier[0]] = recorded(q, self.vocab_size)
                frontier = steps.send(children)
        return DraftTree(tuple(growth.tokens), tuple(growth.parents), probs=probs)


def best_paths(levels: Sequence[Children], bound: Bounds) -> DraftTree:
    """The tree of the best `bound.nodes` paths by the product of their candidates, one list of candidates per depth.

    Going deeper costs no pass of a model here, so neither width nor mass bounds it: the tree is the best there is.
    """
    growth = Growth()
    width = 1 if bound.chain_only else bound.nodes
    steps = grow(replace(bound, depth=len(levels), width=width, min_masses=(0.0,)), growth)
    with suppress(StopIteration):
        frontier = next(steps)
        for children in levels:
            frontier = steps.send([children] * len(frontier))
    return growth.tree(bound.nodes, bound.min_node)


def _logs(table: list[list[float]]) -> list[list[float]]:
    return [[math.log(max(p, LEAST)) for p in ranks] for ranks in table]
