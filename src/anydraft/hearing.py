"""Hearing: the target's hidden states, kept for drafters that will read them.

A drafter that is not asked for long must cost next to nothing. So states of plain passes are kept as they came, for
all rows together, and are only sorted by row when somebody reads them, or every so many passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import torch

from anydraft.drafters.protocol import ReadsHidden
from anydraft.row import Row

SORTED = 64
"""Plain passes after which their states are sorted by row."""


class Hearing:
    """Hidden states that drafters have not read yet.

    Args:
        readers: drafters that read hidden states, by number.
    """

    def __init__(self, readers: Mapping[int, ReadsHidden]) -> None:
        self._readers = dict(readers)
        self._unread: dict[int, dict[Row, list[torch.Tensor]]] = {which: {} for which in readers}
        self._plain: list[tuple[Sequence[Row], torch.Tensor]] = []

    def keep(self, row: Row, hidden: torch.Tensor) -> None:
        """Keep hidden states (n, H) of tokens that came into the row's cache."""
        self._sort()
        self._keep(row, hidden)

    def keep_pass(self, rows: Sequence[Row], hidden: torch.Tensor, accepted: Sequence[Sequence[int]]) -> None:
        """Keep hidden states (rows, width, H) of a pass: those of the roots, and of the nodes that were kept."""
        if hidden.shape[1] == 1:
            self._plain.append((rows, hidden))
            if len(self._plain) >= SORTED:
                self._sort()
            return
        self._sort()
        for row, states, nodes in zip(rows, hidden.unbind(), accepted, strict=True):
            self._keep(row, states[[0, *(node + 1 for node in nodes)]])

    def take(self, which: int, row: Row) -> torch.Tensor | None:
        """What a drafter has to read of a row (n, H), which is then forgotten; None if there is nothing new."""
        self._sort()
        unread = self._unread[which].pop(row, [])
        return torch.cat(unread) if len(unread) > 1 else unread[0] if unread else None

    def forget(self, which: int, rows: Iterable[Row]) -> None:
        """Nobody will read more of these rows to the drafter."""
        if which in self._unread:
            self._sort()
            for row in rows:
                self._unread[which].pop(row, None)

    def drop(self, which: int) -> None:
        """The drafter reads no more."""
        self._readers.pop(which, None)
        self._unread.pop(which, None)

    def _keep(self, row: Row, hidden: torch.Tensor) -> None:
        if not len(hidden):
            return
        for which, reader in self._readers.items():
            unread = self._unread[which]
            if row in unread and reader.hidden == "all":
                unread[row].append(hidden)
            else:
                unread[row] = [hidden if reader.hidden == "all" else hidden[-1:]]

    def _sort(self) -> None:
        """By row, what is kept of plain passes."""
        if not self._plain:
            return
        plain, self._plain = self._plain, []
        for _, passes in groupby(plain, key=lambda kept: id(kept[0])):
            together = list(passes)
            rows, states = together[0][0], [hidden for _, hidden in together]
            joined = torch.cat(states, 1) if len(states) > 1 else states[0]
            for row, of_row in zip(rows, joined.unbind(), strict=True):
                self._keep(row, of_row.clone() if len(rows) > 1 else of_row)  # a view would keep those of all rows
