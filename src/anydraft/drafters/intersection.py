"""Drafts over the tokens that two vocabularies share, drawn from known probabilities.

Token-level intersection (TLI, arXiv 2502.05202), with a byte-exact map: what `verification="rejection"` needs when
the tokenizers differ, because the proposal must be a distribution over the target's tokens. Tokens outside the
intersection are never drafted; where nothing is shared, nothing is.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from anydraft.drafters.draws import sampled, warped
from anydraft.growth import Bounds, Children
from anydraft.row import Row
from anydraft.text.token_bytes import TokenBytes
from anydraft.text.vocabulary import VocabularyMap


class Intersection:
    """The shared tokens of a pair.

    Args:
        draft, target: byte tables of the two tokenizers.
        size: draft tokens that the assistant scores; vocab_size: of the target.
        enders: draft tokens that end a text; end: the target's end-of-sequence id, or None.
    """

    def __init__(
        self,
        draft: TokenBytes,
        target: TokenBytes,
        *,
        size: int,
        vocab_size: int,
        enders: frozenset[int],
        end: int | None,
    ) -> None:
        self._draft = draft
        self._target = target
        self.size = size
        self.vocab_size = vocab_size
        self.enders = enders
        self.end = end

    @cached_property
    def there(self) -> torch.Tensor:
        """Target id of each draft token, -1 for none; the ends are mapped by role. (size,) int64."""
        mapping = VocabularyMap.between(self._draft, self._target)
        if self.end is not None:
            mapping = mapping.with_roles(dict.fromkeys(sorted(self.enders), self.end))
        ids = np.asarray(mapping.draft_to_target[: self.size], dtype=np.int64)
        return torch.from_numpy(np.where(ids < self.vocab_size, ids, -1))

    @cached_property
    def unshared(self) -> torch.Tensor:
        """Draft tokens without a counterpart, (size,) bool."""
        return self.there < 0

    def bounded(self, bound: Bounds, branch: int) -> Bounds:
        """A shape that does not depend on which tokens are drawn: `branch` draws a level, the first one expanded."""
        depth = min(bound.depth, bound.target_depth, bound.nodes // branch)
        return Bounds(0 if bool(self.unshared.all()) else depth, 1, 1 << 30)

    def draw(
        self, row: Row, position: int, logits: torch.Tensor, branch: int
    ) -> tuple[list[Children], torch.Tensor]:
        """Children of one node, drawn without replacement, and their proposal over the target's tokens.

        Args:
            logits: (1, draft vocab) of the assistant; position: index of the new token in the row.

        Returns:
            children by draft token, and q (vocab_size,) float64 on the device of the logits.
        """
        scores = logits[:, : self.size].to(torch.float32).masked_fill(self.unshared.to(logits.device), float("-inf"))
        children, q = sampled(warped(row, scores), row, position, branch, self.enders)
        q = q.cpu()
        drafted = (q > 0).nonzero()[:, 0]
        proposal = torch.zeros(self.vocab_size, dtype=torch.float64)
        proposal[self.there[drafted]] = q[drafted]
        return children, proposal.to(logits.device)
