"""What a recurrent drafter with recall remembers of each row: keys and values of its committed tokens.

They come from the target's hidden states and are never rolled back, because nothing uncommitted enters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anydraft.networks.lean import LeanBody
from anydraft.networks.recall import HEAD_DIM, RowMemory
from anydraft.networks.recurrent import RecurrentNetwork
from anydraft.row import Row

START = 256
"""Tokens that a row has room for at first; doubled when full."""


class Recollection:
    """Memory of several rows.

    Args:
        network: of the lean form, with recall, attached.
        body: its body.
    """

    def __init__(self, network: RecurrentNetwork, body: LeanBody) -> None:
        self._network = network
        self._body = body
        self._stores: dict[Row, torch.Tensor] = {}
        """(2, heads, slots, 64): keys and values."""
        self._lengths: dict[Row, int] = {}

    def add(self, row: Row, hidden: torch.Tensor) -> None:
        """Remember the hidden states (n, H) of the row's next tokens; the root follows the last of them."""
        known = self._lengths.get(row, 0)
        length = known + len(hidden)
        device = self._body.scale.device
        following = torch.tensor(_slice(row, known + 1, length + 1), device=device)
        pair = self._body.remembered(hidden.to(device), self._network.embedded(following))
        fresh = torch.stack(pair).view(2, len(hidden), -1, HEAD_DIM).transpose(1, 2)
        store = self._stores.get(row)
        if store is None or length > store.shape[2]:
            slots = max(START, 2 * length)
            grown = fresh.new_zeros(2, fresh.shape[1], slots, HEAD_DIM)
            if store is not None:
                grown[:, :, :known] = store[:, :, :known]
            store = self._stores[row] = grown
        store[:, :, known:length] = fresh
        self._lengths[row] = length

    def of(self, rows: Sequence[Row]) -> RowMemory:
        """What rows in lockstep see."""
        lengths = [self._lengths[row] for row in rows]
        longest = max(lengths)
        if len(rows) == 1:
            store = self._stores[rows[0]]
            return RowMemory(store[:1, :, :longest], store[1:, :, :longest])
        first = self._stores[rows[0]]
        both = first.new_zeros(2, len(rows), first.shape[1], longest, HEAD_DIM)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            both[:, i, :, :length] = self._stores[row][:, :, :length]
        if min(lengths) == longest:
            return RowMemory(both[0], both[1])
        seen = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        return RowMemory(both[0], both[1], seen[:, None, None].to(both.device))

    def forget(self, rows: Sequence[Row]) -> None:
        """Rows leave."""
        for row in rows:
            self._stores.pop(row, None)
            self._lengths.pop(row, None)


def _slice(row: Row, start: int, end: int) -> list[int]:
    """Tokens of prompt and answer from `start` to `end`."""
    prompt = len(row.prompt)
    return row.prompt[start:end] + row.tokens[max(0, start - prompt) : max(0, end - prompt)]
