"""PairCache: the keys and values of EAGLE's layer for the rows of a batch, and passes over it.

What the layer reads is a pair: token x_{j+1} and feature f_j, at position j. The prefix of a row holds pairs of
committed tokens with the target's own features only; drafted pairs, with predicted features, are its tail and go
when the draft is done. So a rejected draft leaves nothing behind, and no error of the layer is carried on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from anydraft.cache import SlotCache
from anydraft.lm import PREFILL_CHUNK
from anydraft.networks.eagle import EagleNetwork
from anydraft.row import Row

Pairs = tuple[Sequence[int], Sequence[int]]
"""New pairs of one row: their tokens, and parents as indices into the row's tail (-1 = end of the prefix)."""


class PairCache:
    """Rows in the order of the cache, which changes as rows come and go."""

    def __init__(self, network: EagleNetwork, device: torch.device) -> None:
        self.network = network
        self.device = device
        self.rows: list[Row] = []
        self._cache = SlotCache(0)

    def add(self, row: Row) -> None:
        """A row joins, without pairs."""
        self._cache.add_rows(1)
        self.rows.append(row)

    def remove(self, rows: Sequence[Row]) -> None:
        """Rows leave; unknown ones are ignored."""
        kept = [slot for slot, row in enumerate(self.rows) if row not in rows]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[slot] for slot in kept]
        if kept:
            self._cache.keep_rows(kept)
        else:
            self._cache = SlotCache(0)

    def pairs(self, row: Row) -> int:
        """Pairs in a row's prefix."""
        return self._cache.lengths[self.rows.index(row)]

    def read(self, row: Row, tokens: Sequence[int], features: torch.Tensor) -> None:
        """Append true pairs to one row's prefix, in chunks; features (n, H)."""
        slot = self.rows.index(row)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            chunk = tokens[start : start + PREFILL_CHUNK]
            pairs = chunk, range(-1, len(chunk) - 1)
            self._pass(range(slot, slot + 1), [pairs], features[start : start + len(chunk)])
            self._cache.advance(slot, len(chunk))

    def score(self, pairs: Sequence[Pairs], features: torch.Tensor) -> torch.Tensor:
        """Append pairs to the tails of all rows; predicted features (total, H) of `features` (total, H), row by row."""
        return self._pass(range(len(self.rows)), pairs, features)

    def keep(self, row: Row, count: int) -> None:
        """Take the first `count` pairs of a row's tail, true ones in a chain, into its prefix; drop the others."""
        self._cache.advance(self.rows.index(row), count)

    @torch.inference_mode()
    def _pass(self, slots: range, pairs: Sequence[Pairs], features: torch.Tensor) -> torch.Tensor:
        cache = self._cache
        counts = [len(tokens) for tokens, _ in pairs]
        width = max(counts)
        starts = [cache.lengths[slot] + len(cache.tails[slot]) for slot in slots]
        span = max(starts) + width
        cache.reserve(span)
        cache.plan(slots, starts, width, span)
        ids = np.zeros((len(counts), width), dtype=np.int64)
        positions, source = np.zeros_like(ids), np.zeros_like(ids)
        seen = np.zeros((len(counts), 1, width, span), dtype=np.bool_)
        total = 0
        for i, (slot, (tokens, parents), n) in enumerate(zip(slots, pairs, counts, strict=True)):
            length = cache.lengths[slot]
            if n:
                cache.append(slot, parents)
                tail = len(cache.tails[slot])
                ids[i, :n] = tokens
                positions[i, :n] = cache.depths[slot][tail - n :]
                source[i, :n] = np.arange(total, total + n)
                seen[i, 0, :n, :length] = True
                seen[i, 0, :n, length : length + tail] = cache.visible[slot][tail - n :]
            positions[i] += length
            padding = np.arange(n, width)
            seen[i, 0, padding, starts[i] + padding] = True
            total += n
        mask = torch.zeros(seen.shape, dtype=self.network.dtype)
        mask.masked_fill_(torch.from_numpy(~seen), torch.finfo(mask.dtype).min)
        predicted = self.network(
            self._tensor(ids), features[self._tensor(source)], self._tensor(positions), mask.to(self.device), cache
        )
        if len(counts) == 1:
            return predicted[0]  # type: ignore[no-any-return]
        places = np.concatenate([i * width + np.arange(n) for i, n in enumerate(counts)])
        return predicted.flatten(0, 1)[self._tensor(places)]  # type: ignore[no-any-return]

    def _tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)
