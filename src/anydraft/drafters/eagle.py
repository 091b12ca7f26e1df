"""EAGLE drafter (arXiv 2401.15077) with EAGLE-2's dynamic tree (arXiv 2406.16858), grown by `growth.grow`.

The first pass of a draft reads the pairs of token and true feature that were committed since the last one; its
last prediction gives the root's children. Every further level reads the frontier with its parents' predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from anydraft.drafters.draws import drawn_bounds, recorded, sampled, shared, siblings, warped
from anydraft.drafters.eagle_cache import PairCache, Pairs
from anydraft.growth import Bounds, Children, Growing
from anydraft.networks.eagle import EagleNetwork
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree
from anydraft.verify import Verification

LONGEST_UNREAD = 64
"""More unread pairs than this (a prompt) are read row by row in chunks, and not in the pass of all rows."""


class EagleDrafter:
    """Drafts with an EAGLE layer.

    Args:
        network: on the target's device; attached to it, or it is now.
        target: the model that decides.
        verification: "rejection" draws from a recorded proposal instead of following the shared noise.

    Raises:
        WrongTarget: the network was trained for another target.
    """

    name = "eagle"
    hidden: Literal["last", "all"] = "all"

    def __init__(self, network: EagleNetwork, target: Target, *, verification: Verification = "exact") -> None:
        if not network.attached:
            network.attach(target.model)
        self.network = network.eval()
        self.vocab_size = target.vocab_size
        self.verification = verification
        self.device = target.device
        self.vocabulary = None if network.vocabulary is None else network.vocabulary.to(self.device)
        self._ids = None if self.vocabulary is None else self.vocabulary.tolist()
        ids = range(self.vocab_size) if self._ids is None else self._ids
        self._enders = frozenset(place for place, token in enumerate(ids) if token in target.eos_token_ids)
        self._cache = PairCache(network, self.device)
        self._unread: dict[Row, list[torch.Tensor]] = {}

    @property
    def each_level(self) -> Sequence[torch.nn.Module]:
        """Modules of which every drafted level calls one, once."""
        return [self.network.fc]

    def start(self, rows: Sequence[Row]) -> None:
        """Rows join; their prompts come as features."""
        for row in rows:
            self._cache.add(row)
            self._unread[row] = []

    def stop(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""
        self._cache.remove(rows)
        for row in rows:
            self._unread.pop(row, None)

    @torch.inference_mode()
    def read(self, row: Row, hidden: torch.Tensor) -> None:
        """Features (n, H) of the tokens that came into the target's cache, the last of them just before the root."""
        unread = self._unread[row]
        unread.append(hidden)
        count = sum(map(len, unread))
        if count > LONGEST_UNREAD:
            features = torch.cat(unread).to(self.device)
            self._cache.read(row, self._following(row, count)[:-1], features[:-1])
            self._unread[row] = [features[-1:]]

    @torch.inference_mode()
    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One tree per row."""
        growing: dict[Row, _GrowingRow] = {}
        for row, bound in zip(rows, bounds, strict=True):
            depth = min(bound.depth, bound.target_depth)
            if self._unread[row] and depth > 0 and bound.nodes > 0:
                growing[row] = _GrowingRow(row, replace(bound, depth=depth), self.verification)
        done = dict(growing)
        predicted = self._committed(growing) if growing else torch.empty(0)
        while growing:
            self._branch(growing, predicted)
            growing = {row: draft for row, draft in growing.items() if draft.frontier}
            if growing:
                predicted = self._next_level(growing, predicted)
        for row in done:
            self._cache.keep(row, 0)  # nothing of a draft stays
        return [done[row].tree() if row in done else DraftTree.EMPTY for row in rows]

    def _committed(self, growing: dict[Row, _GrowingRow]) -> torch.Tensor:
        """Read the committed pairs of the rows into their prefixes; predictions (rows, H) from which drafts start."""
        pairs: list[Pairs] = []
        features: list[torch.Tensor] = []
        ends: list[int] = []
        for row in self._cache.rows:
            tokens: list[int] = []
            if row in growing:
                features += self._unread[row]
                tokens = self._following(row, sum(map(len, self._unread[row])))
                ends.append(len(tokens) + (ends[-1] if ends else 0))
            pairs.append((tokens, range(-1, len(tokens) - 1)))
        predicted = self._cache.score(pairs, torch.cat(features).to(self.device))
        for place, row in enumerate(row for row in self._cache.rows if row in growing):
            self._cache.keep(row, sum(map(len, self._unread[row])))
            self._unread[row] = []
            growing[row].place = place
        return predicted[torch.tensor(ends, device=self.device) - 1]

    def _branch(self, growing: dict[Row, _GrowingRow], predicted: torch.Tensor) -> None:
        """Give the frontiers of all rows their children, from their predictions (frontiers, H)."""
        logits = self.network.logits(predicted).to(self.device)
        for draft in growing.values():
            own = logits[draft.place : draft.place + len(draft.frontier)]
            draft.receive(self._children(draft, own))

    def _next_level(self, growing: dict[Row, _GrowingRow], predicted: torch.Tensor) -> torch.Tensor:
        """Read the new frontiers with their parents' predictions; predictions (frontiers, H)."""
        pairs: list[Pairs] = []
        sources: list[int] = []
        for row in self._cache.rows:
            draft = growing.get(row)
            if draft is None:
                pairs.append(([], []))
                continue
            frontier, places = draft.nodes()
            pairs.append(frontier)
            draft.place = len(sources)
            sources += places
        return self._cache.score(pairs, predicted[torch.tensor(sources, device=self.device)])

    def _children(self, draft: _GrowingRow, logits: torch.Tensor) -> list[Children]:
        """Children of the frontier nodes of one row, from logits (frontier, V')."""
        row, whole = draft.row, self.vocabulary is None
        scores = warped(row, logits[:, : self.vocab_size] if whole else logits)
        position = row.position + draft.growth.depth(draft.frontier[0])
        if draft.rejection:
            children, q = sampled(scores, row, position, draft.rejection, self._enders)
            draft.probs[draft.frontier[0]] = recorded(q, self.vocab_size, self.vocabulary)
        else:
            noise = None if row.noise is None else row.noise.at(position)
            if noise is not None:
                noise = noise[: scores.shape[-1]] if self.vocabulary is None else noise[self.vocabulary]
            children = shared(scores, noise, draft.growth.branch, self._enders)
        if self._ids is None:
            return children
        return [[(self._ids[place], score, ends) for place, score, ends in found] for found in children]

    def _following(self, row: Row, count: int) -> list[int]:
        """Tokens of the next `count` pairs: the first pair holds the second token and the first one's feature."""
        first = self._cache.pairs(row) + 1
        beyond = first - len(row.prompt)
        found = row.tokens[beyond : beyond + count] if beyond >= 0 else row.prompt[first:] + row.tokens
        return found[:count]


class _GrowingRow(Growing):
    """One row's growth.

    Attributes:
        rejection: children drawn per node under rejection, 0 under shared noise.
        place: where the frontier's predictions begin among those of all rows.
    """

    def __init__(self, row: Row, bounds: Bounds, verification: Verification) -> None:
        self.row = row
        self.rejection = 0
        if verification == "rejection":
            self.rejection = siblings(bounds)
            bounds = drawn_bounds(bounds, self.rejection)
        elif bounds.branch == 1:
            bounds = replace(bounds, depth=min(bounds.depth, bounds.nodes))
        super().__init__(bounds)
        self.bounds = bounds
        self.probs: dict[int, torch.Tensor] = {}
        self.place = 0
        self._tail = 0
        self._in_tail: dict[int, int] = {-1: -1}
        self._last: dict[int, int] = {}

    def receive(self, children: list[Children]) -> None:
        """Take the frontier's children and move on to the next frontier."""
        self._last = {node: self.place + i for i, node in enumerate(self.frontier)}
        super().receive(children)

    def nodes(self) -> tuple[Pairs, list[int]]:
        """The frontier as pairs to read, and the places of their parents' predictions."""
        above = [self.growth.parents[node] for node in self.frontier]
        parents = [self._in_tail[parent] for parent in above]
        for node in self.frontier:
            self._in_tail[node] = self._tail
            self._tail += 1
        return ([self.growth.tokens[node] for node in self.frontier], parents), [self._last[node] for node in above]

    def tree(self) -> DraftTree:
        """What was grown, within its bounds."""
        if self.rejection:
            return DraftTree(tuple(self.growth.tokens), tuple(self.growth.parents), probs=self.probs)
        return self.growth.tree(self.bounds.nodes, self.bounds.min_node)
