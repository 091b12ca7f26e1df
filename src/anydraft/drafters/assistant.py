"""Assistant drafter: a smaller model with the target's own tokenizer (vocabulary sizes may differ by padding)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from anydraft.drafters.draft_model import DraftModel
from anydraft.drafters.draws import drawn_bounds, recorded, sampled, shared, siblings, warped
from anydraft.growth import Bounds, Children, Growth
from anydraft.lm import LanguageModel
from anydraft.row import Row
from anydraft.tree import DraftTree
from anydraft.verify import Verification


class AssistantDrafter:
    """Drafts with a causal language model whose token ids mean what the target's mean.

    Args:
        lm: the assistant.
        vocab_size: of the target; tokens beyond it are never drafted.
        eos_token_ids: of the target; a draft that ends, ends.
        verification: "rejection" draws from a recorded proposal instead of following the shared noise.
    """

    name = "assistant"

    def __init__(
        self,
        lm: LanguageModel,
        *,
        vocab_size: int,
        eos_token_ids: frozenset[int] = frozenset(),
        verification: Verification = "exact",
    ) -> None:
        self.lm = lm
        self.model = DraftModel(lm)
        self.vocab_size = vocab_size
        self.eos_token_ids = eos_token_ids
        self.verification = verification
        self._first: dict[Row, int] = {}
        self._drawn: dict[Row, int] = {}
        """Children drawn per node under rejection."""
        self._probs: dict[Row, dict[int, torch.Tensor]] = {}

    def start(self, rows: Sequence[Row]) -> None:
        """Read the prompts, or as much of their end as fits the assistant's context."""
        for row in rows:
            self._first[row] = max(0, len(row.prompt) - self._room() // 2)
            self.model.start(row, self._context(row))

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One tree per row."""
        unread = []
        for row in rows:
            context = self._context(row)
            valid = len(self.model.cached(row))
            if len(context) > self._room():
                # The window slides by half, so that rereading it stays rare.
                self._first[row] = len(row.prompt) + len(row.tokens) - self._room() // 2
                context, valid = self._context(row), 0
            unread.append(self.model.sync(row, context, valid))
            self._probs[row] = {}
        bounded = [self._bounded(row, bound) for row, bound in zip(rows, bounds, strict=True)]
        growths = self.model.grow(rows, unread, bounded, self._children)
        drafts = []
        for row, growth, bound in zip(rows, growths, bounds, strict=True):
            if self.verification == "rejection":
                tree = DraftTree(tuple(growth.tokens), tuple(growth.parents), probs=self._probs[row])
                drafts.append(tree)
            else:
                drafts.append(growth.tree(bound.nodes, bound.min_node))
        return drafts

    def stop(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""
        self.model.stop(rows)
        for row in rows:
            self._first.pop(row, None)
            self._drawn.pop(row, None)
            self._probs.pop(row, None)

    def _children(self, row: Row, growth: Growth, frontier: list[int], logits: torch.Tensor) -> list[Children]:
        scores = warped(row, logits[:, : self.vocab_size])
        position = row.position + growth.depth(frontier[0])
        if self.verification == "rejection":
            children, q = sampled(scores, row, position, self._drawn[row], self.eos_token_ids)
            self._probs[row][frontier[0]] = recorded(q, self.vocab_size)
            return children
        noise = None if row.noise is None else row.noise.at(position)[: scores.shape[-1]]
        return shared(scores, noise, growth.branch, self.eos_token_ids)

    def _bounded(self, row: Row, bound: Bounds) -> Bounds:
        if self.verification == "rejection":
            self._drawn[row] = siblings(bound)
            return drawn_bounds(bound, self._drawn[row])
        depth = min(bound.depth, bound.target_depth)
        return replace(bound, depth=min(depth, bound.nodes) if bound.branch == 1 else depth)

    def _context(self, row: Row) -> list[int]:
        first, size = self._first[row], self.lm.vocab_size
        if first < len(row.prompt):
            context = row.prompt[first:] + row.tokens
        else:
            context = row.tokens[first - len(row.prompt) :]
        if size < self.vocab_size:
            # Ids that only the target has (padding) are read as another one: that costs acceptance, nothing else.
            return [min(token, size - 1) for token in context]
        return context

    def _room(self) -> int:
        return max(8, self.lm.context_length - 72)
