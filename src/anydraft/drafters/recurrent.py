"""ReDrafter: beam search over a recurrent network that starts from the target's last hidden state (arXiv 2403.09919).

Against Apple's: the tree holds the best n nodes instead of whole beams, a text that ends is not continued, scores
carry the shared noise (so that sampling is as exact as greedy decoding), and on a GPU the search never waits for the
host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from anydraft.drafters.beams import replayed, search
from anydraft.drafters.draws import drawn_bounds, siblings
from anydraft.drafters.lockstep import Lockstep
from anydraft.drafters.recollection import Recollection
from anydraft.drafters.stepwise import GrowingRow, grown
from anydraft.growth import Bounds
from anydraft.networks.folded import FoldedLean
from anydraft.networks.recurrent import RecurrentNetwork
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree
from anydraft.verify import Verification

DEEPEST = 8
"""Levels enqueued at once, when it is not known how many were trained."""

BEYOND_TRAINING = 2
"""Levels more than were trained: the recurrence goes on, but is right ever less often."""


class RecurrentDrafter:
    """Drafts with a recurrent network.

    Args:
        network: attached to the target, or it is now; its weights are folded here, so change them before.
        target: whose hidden states are read.
        verification: "rejection" draws from a recorded proposal instead of following the shared noise.
        eager: enqueue all levels before looking at one; by default on GPUs, where looking means waiting.

    Raises:
        WrongTarget: the network was trained for another target.
    """

    name = "redrafter"
    hidden: Literal["last", "all"]

    def __init__(
        self,
        network: RecurrentNetwork,
        target: Target,
        *,
        verification: Verification = "exact",
        eager: bool | None = None,
    ) -> None:
        if not network.attached:
            network.attach(target.model)
        self.hidden = "last"
        self.network = network
        self.vocab_size = target.vocab_size
        self.eos_token_ids = target.eos_token_ids
        self.verification = verification
        self.vocabulary = network.vocabulary
        self._steps = network.fold()
        self._device = next(network.parameters()).device
        self._eager = self._device.type != "cpu" if eager is None else eager
        trained = network.config.trained_depth
        self._deepest = DEEPEST if trained is None else trained + BEYOND_TRAINING
        self._closed = self._closing()
        self._states: dict[Row, torch.Tensor] = {}
        self._recollection: Recollection | None = None
        if network.reads_context and isinstance(self._steps, FoldedLean):
            self._recollection = Recollection(network, self._steps.body)
            self.hidden = "all"

    @property
    def each_level(self) -> Sequence[torch.nn.Module]:
        """Modules of which every drafted level calls one, once."""
        steps = self._steps.body if isinstance(self._steps, FoldedLean | RecurrentNetwork) else self.network.body
        return [steps.each_level]

    def start(self, rows: Sequence[Row]) -> None:
        """Nothing to read before the first hidden state."""

    @torch.inference_mode()
    def read(self, row: Row, hidden: torch.Tensor) -> None:
        """Keep the newest state, which is that of the token before the root, and remember all where it is recalled."""
        self._states[row] = hidden[-1].clone()
        if self._recollection is not None:
            self._recollection.add(row, hidden)

    def stop(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""
        for row in rows:
            self._states.pop(row, None)
        if self._recollection is not None:
            self._recollection.forget(rows)

    @torch.inference_mode()
    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One tree per row; empty for a row of which no hidden state is known."""
        drawn = self.verification == "rejection"
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (row, bound) in enumerate(zip(rows, bounds, strict=True)):
            if row in self._states and min(bound.depth, bound.target_depth, bound.nodes) > 0:
                key = (1, siblings(bound)) if drawn else (bound.width, bound.branch)
                groups.setdefault(key, []).append(i)
        drafts = [DraftTree.EMPTY] * len(rows)
        for (_, branch), places in groups.items():
            trees = self._trees([rows[i] for i in places], [bounds[i] for i in places], branch)
            for i, tree in zip(places, trees, strict=True):
                drafts[i] = tree
        return drafts

    def _trees(self, rows: list[Row], bounds: list[Bounds], branch: int) -> list[DraftTree]:
        """Trees of rows whose bounds have one width; `branch` children are looked at, or drawn, per node."""
        drawn = self.verification == "rejection"
        if self._eager:  # every level that is enqueued is paid for, looked at or not
            bounds = [replace(bound, depth=min(bound.depth, self._deepest)) for bound in bounds]
        limits = [drawn_bounds(bound, branch) if drawn else _bounds(bound) for bound in bounds]
        lockstep = Lockstep(rows, branch, vocab_size=self.vocab_size, vocabulary=self.vocabulary, device=self._device)
        hidden = torch.stack([self._states[row] for row in rows]).to(self._device)
        memory = None if self._recollection is None else self._recollection.of(rows)
        pick = lockstep.drawn if drawn else lockstep.shared
        roots = torch.tensor([row.root for row in rows], device=self._device)
        trees: Sequence[GrowingRow]
        if self._eager:
            levels = search(
                self._steps,
                hidden,
                roots,
                pick,
                limits[0].width,
                memory=memory,
                vocabulary=self.vocabulary,
                closed=self._closed,
            )
            trees = replayed(levels, limits, self.eos_token_ids)
        else:
            trees = grown(
                self._steps,
                hidden,
                roots,
                pick,
                limits,
                self.eos_token_ids,
                memory=memory,
                vocabulary=self.vocabulary,
            )
        return [
            _drawn_tree(row) if drawn else row.growth.tree(bound.nodes, bound.min_node)
            for row, bound in zip(trees, bounds, strict=True)
        ]

    def _closing(self) -> torch.Tensor | None:
        """(V',) -inf for tokens that end the text."""
        enders = sorted(token for token in self.eos_token_ids if 0 <= token < self.vocab_size)
        if not enders:
            return None
        closed = torch.zeros(self.vocab_size, dtype=torch.float64)
        closed[enders] = -torch.inf
        closed = closed.to(self._device)
        return closed if self.vocabulary is None else closed[self.vocabulary]


def _bounds(bound: Bounds) -> Bounds:
    """A tree of n nodes is at most n deep."""
    return replace(bound, depth=min(bound.depth, bound.target_depth, bound.nodes))


def _drawn_tree(row: GrowingRow) -> DraftTree:
    return DraftTree(tuple(row.growth.tokens), tuple(row.growth.parents), probs=row.probs)
