"""What the decoder expects of a drafter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from anydraft.row import Row
from anydraft.tree import Bounds, DraftTree


class Drafter(Protocol):
    """Proposes drafts in the target's token ids. Nothing it does can change what is generated."""

    name: str

    def start(self, rows: Sequence[Row]) -> None:
        """Rows join; called before their first draft."""

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """One draft per row, continuing `row.prompt + row.tokens`.

        With `verification="rejection"` the trees carry `probs`, and whether a node gets children must not
        depend on what is drawn at that node or below it.
        """

    def stop(self, rows: Sequence[Row]) -> None:
        """Rows leave, finished or not; forget them. Unknown rows are ignored."""
