"""What the decoder expects of a drafter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch

from anydraft.growth import Bounds
from anydraft.row import Row
from anydraft.tree import DraftTree


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


@runtime_checkable
class ReadsHidden(Protocol):
    """A drafter that reads the target's last hidden states.

    Attributes:
        hidden: "last" is given the newest state only, "all" every one.
    """

    hidden: Literal["last", "all"]

    def read(self, row: Row, hidden: torch.Tensor) -> None:
        """Last hidden states (n, H) of the tokens that came into the target's cache since the last call, in order.

        Called after `start` and after every pass, before the next `propose`; not before the first pass of a prompt of
        one token, when the cache is empty. They are in the target's dtype and on its device, and may be views.
        """


@runtime_checkable
class Converts(Protocol):
    """A drafter that says how long it worked between two vocabularies.

    Attributes:
        seconds_convert: wall time since it was made.
    """

    seconds_convert: float
