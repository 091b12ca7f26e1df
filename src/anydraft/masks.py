"""Masks of a pass: each node sees its row's prefix, its ancestors and itself; windows count positions, not slots.

Only the tail, whose visibility follows from the tree, is looked at node by node; the prefix is filled in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from anydraft.cache import SlotCache


class Masks:
    """Makes additive masks for one model.

    Args:
        kinds: of attention layers that the model has, in the words of transformers.
        window: how many positions sliding attention sees, itself included; 0 = all.
        dtype: of the model.
    """

    def __init__(self, kinds: Sequence[str], window: int, dtype: torch.dtype) -> None:
        self.kinds = list(kinds)
        self.window = window if "sliding_attention" in kinds else 0
        self.dtype = dtype
        self._closed = torch.finfo(dtype).min
        self._kept: torch.Tensor | None = None
        self._zeros = 0

    def of(
        self, cache: SlotCache, rows: Sequence[int], counts: Sequence[int], width: int, device: torch.device
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Masks (rows, 1, width, span) for the pass that the cache has planned; by kind where there are several.

        `counts`: new nodes of each row, the last ones of its tail; what the pass reads behind them is padding, and
        sees something, itself or what the others see.
        """
        span = cache.current.span
        windowed = 0 < self.window < span
        if not windowed and self._plain(cache, rows, counts):
            full = self._prefixes([cache.lengths[row] + 1 for row in rows], width, span, device)
        else:
            full = self._full(cache, rows, counts, width, span).to(device)
        near = self._near(cache, rows, counts, full) if windowed else full
        if len(self.kinds) == 1:
            return near
        return {kind: near if kind == "sliding_attention" else full for kind in self.kinds}

    @staticmethod
    def _plain(cache: SlotCache, rows: Sequence[int], counts: Sequence[int]) -> bool:
        """Whether every row has one new node right behind its prefix."""
        return all(count == 1 and len(cache.tails[row]) == 1 for row, count in zip(rows, counts, strict=True))

    def _prefixes(self, seen: Sequence[int], width: int, span: int, device: torch.device) -> torch.Tensor:
        """(rows, 1, width, span) with so many first slots seen: plain decoding's, parts of one vector that is kept."""
        kept, most, least = self._kept, max(seen), min(seen)
        if kept is None or kept.device != device or most > self._zeros or span - least > len(kept) - self._zeros:
            self._zeros = 2 * span
            kept = self._kept = torch.zeros(4 * span, dtype=self.dtype, device=device)
            kept[self._zeros :] = self._closed
        if most == least:
            start = self._zeros - most
            return kept[start : start + span].expand(len(seen), 1, width, span)
        starts = [self._zeros - slots for slots in seen]
        return torch.stack([kept[start : start + span] for start in starts])[:, None, None].expand(-1, 1, width, span)

    def _full(
        self, cache: SlotCache, rows: Sequence[int], counts: Sequence[int], width: int, span: int
    ) -> torch.Tensor:
        mask = torch.full((len(rows), 1, width, span), self._closed, dtype=self.dtype)
        starts = cache.current.starts
        for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
            length, tail = cache.lengths[row], len(cache.tails[row])
            if count:
                mask[i, 0, :count, :length] = 0.0
                seen = torch.from_numpy(cache.visible[row][tail - count :])
                mask[i, 0, :count, length : length + tail].masked_fill_(seen, 0.0)
            if count < width:
                padding = torch.arange(count, width)
                mask[i, 0, padding, starts[i] + padding] = 0.0
        return mask

    def _near(
        self, cache: SlotCache, rows: Sequence[int], counts: Sequence[int], full: torch.Tensor
    ) -> torch.Tensor:
        """The same without what lies outside of the window."""
        far = np.zeros(full.shape, dtype=np.bool_)
        for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
            if count:
                length, tail = cache.lengths[row], len(cache.tails[row])
                depths = length + np.asarray(cache.depths[row], dtype=np.int64)
                keys = np.arange(length + tail)
                keys[length:] = depths
                queries = depths[tail - count :]
                far[i, 0, :count, : length + tail] = queries[:, None] - keys[None] >= self.window
        return full.masked_fill(torch.from_numpy(far).to(full.device), self._closed)
