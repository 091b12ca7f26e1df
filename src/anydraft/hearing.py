"""Hearing: the target's hidden states, kept for drafters that will read them.

A drafter that is not asked for long must cost next to nothing. So states are kept as passes bring them, for all rows
and nodes together, and what was committed is picked out of them when somebody reads it, or when there are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby

import torch

from anydraft.drafters.protocol import ReadsHidden
from anydraft.row import Row

MANY = 512
"""States, of whatever row and node, after which what was committed is picked out."""


class Hearing:
    """Hidden states that drafters have not read yet.

    Args:
        readers: drafters that read hidden states, by number.
    """

    def __init__(self, readers: Mapping[int, ReadsHidden]) -> None:
        self._readers = dict(readers)
        self._unread: dict[int, dict[Row, list[torch.Tensor]]] = {which: {} for which in readers}
        self._passes: list[tuple[Sequence[Row], torch.Tensor, Sequence[Sequence[int]]]] = []
        self._states = 0  # of those passes

    def keep(self, row: Row, hidden: torch.Tensor) -> None:
        """Keep hidden states (n, H) of tokens that came into the row's cache."""
        self._sort()
        self._keep(row, hidden)

    def keep_pass(self, rows: Sequence[Row], hidden: torch.Tensor, accepted: Sequence[Sequence[int]]) -> None:
        """Keep hidden states (rows, width, H) of a pass: those of the roots, and of the nodes that were accepted.

        Args:
            rows: which stays as it is: passes of the same list are sorted together.
        """
        self._passes.append((rows, hidden, accepted))
        self._states += hidden.shape[0] * hidden.shape[1]
        if self._states >= MANY:
            self._sort()

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
        if not self._readers:
            self._passes, self._states = [], 0

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
        """By row, what was committed of the passes that were kept."""
        if not self._passes:
            return
        passes, self._passes, self._states = self._passes, [], 0
        for _, alike in groupby(passes, key=lambda kept: id(kept[0])):
            together = list(alike)
            rows, widths = together[0][0], [hidden.shape[1] for _, hidden, _ in together]
            joined = torch.cat([hidden for _, hidden, _ in together], 1) if len(together) > 1 else together[0][1]
            roots = [0, *accumulate(widths)]
            for i, (row, states) in enumerate(zip(rows, joined.unbind(), strict=True)):
                committed = [
                    place
                    for root, (_, _, accepted) in zip(roots, together, strict=False)
                    for place in (root, *(root + 1 + node for node in accepted[i]))
                ]
                self._keep(row, states[committed])  # a copy: a view would keep the states of all rows and nodes
