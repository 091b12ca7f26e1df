"""SlotCache: a transformers `Cache` that can hold a tree per row and keep one path of it.

Keys and values are preallocated per layer as (rows, kv heads, slots, head dim) and grow by doubling. Every row
has its own length; the nodes of its tree (the "tail") are written at the slots behind it, and `commit` moves
the few columns of the accepted path down without touching the prefix. What a row sees is decided by the mask
(from lengths and parents), never by token ids.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from anydraft.queries import CompanyKeys
from anydraft.shapes import LEAST_WIDTH

BUCKET = 256
"""Slots are allocated, and with fixed shapes read, in multiples of this."""


def bucket(slots: int) -> int:
    """Round up to a whole bucket."""
    return -(-slots // BUCKET) * BUCKET


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer."""

    is_compileable = False
    is_sliding = False

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        # Weak, or a finished batch would keep its memory until Python looks for cycles.
        self._cache = cast(SlotCache, weakref.proxy(cache))
        self.is_initialized = False

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate zeros (never uninitialised memory: masked slots are still multiplied by zero)."""
        rows, slots = self._cache.num_rows, self._cache.capacity
        self.keys = key_states.new_zeros((rows, key_states.shape[1], slots, key_states.shape[3]))
        self.values = value_states.new_zeros((rows, value_states.shape[1], slots, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (b, heads, w, dim) at the planned slots; return views over the planned span."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self._cache.current
        keys, values = _write(self.keys, key_states, plan), _write(self.values, value_states, plan)
        return CompanyKeys.of(keys) if self._cache.company and plan.width < LEAST_WIDTH else keys, values

    def get_seq_length(self) -> int:
        """Longest prefix over the rows (models ask for it only when they get no position ids)."""
        return max(self._cache.lengths, default=0)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Span of keys that the planned pass reads, and offset 0."""
        return self._cache.current.span, 0

    def get_max_length(self) -> int:
        """No limit: the slots grow."""
        return -1

    def resize(self, rows: Sequence[int] | None, slots: int) -> None:
        """Keep the given rows (None = all) and make room for `slots`."""
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            kept = old if rows is None else old[list(rows)]
            if slots > kept.shape[2]:
                kept = torch.nn.functional.pad(kept, (0, 0, 0, slots - kept.shape[2]))
            setattr(self, name, kept)


class Plan:
    """Where the coming pass writes: its rows, first slot of each (`first` where it is the same), and the span read."""

    __slots__ = ("first", "index", "rows", "span", "starts", "width")

    def __init__(self, rows: range, starts: list[int], width: int, span: int) -> None:
        self.rows = rows
        self.starts = starts
        self.first = starts[0] if starts and starts.count(starts[0]) == len(starts) else None
        self.width = width
        self.span = span
        self.index: tuple[torch.Tensor, torch.Tensor] | None = None


def _write(store: torch.Tensor, states: torch.Tensor, plan: Plan) -> torch.Tensor:
    view = store[plan.rows.start : plan.rows.stop]
    if plan.first is not None:
        view[:, :, plan.first : plan.first + plan.width] = states
    else:
        if plan.index is None or plan.index[0].device != store.device:
            slots = np.asarray(plan.starts)[:, None] + np.arange(plan.width)[None]
            rows = np.arange(len(plan.starts))[:, None]
            plan.index = (
                torch.from_numpy(rows).to(store.device),
                torch.from_numpy(slots).to(store.device),
            )
        rows_index, slots_index = plan.index
        view[rows_index, :, slots_index] = states.transpose(1, 2)
    return view[:, :, : plan.span]


class SlotCache(Cache):  # type: ignore[misc]
    """Cache of several rows of different length, each with a tree of uncommitted nodes behind its prefix.

    Attributes:
        company: narrow passes attend as wider ones do (`queries.py`).
        lengths: committed slots per row.
        fixed_span: least span of slots that passes of fixed shape read, so that it is the same all along.
        tails: parents of the uncommitted nodes per row, as tail indices (-1 = end of the prefix).
    """

    def __init__(self, rows: int, slots: int = BUCKET, *, company: bool = False) -> None:
        super().__init__(layers=[])
        self.company = company
        self.capacity = bucket(max(slots, 1))
        self.fixed_span = 0
        self.lengths = [0] * rows
        self.tails: list[list[int]] = [[] for _ in range(rows)]
        self.visible: list[npt.NDArray[np.bool_]] = [np.zeros((0, 0), np.bool_) for _ in range(rows)]
        self.depths: list[list[int]] = [[] for _ in range(rows)]
        self.current = Plan(range(rows), [0] * rows, 0, 0)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention layers call: store the new keys and values, return those to attend to."""
        while len(self.layers) <= layer_idx:
            self.layers.append(SlotLayer(self))
        return self.layers[layer_idx].update(key_states, value_states)  # type: ignore[no-any-return]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Longest prefix over the rows."""
        return max(self.lengths, default=0)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Span of keys that the planned pass reads, and offset 0."""
        return self.current.span, 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Offset of the planned pass."""
        return max(self.lengths, default=0)

    def plan(self, rows: range, starts: list[int], width: int, span: int) -> None:
        """Say where the coming pass writes and how far it reads."""
        self.current = Plan(rows, starts, width, span)

    def append(self, row: int, parents: Sequence[int]) -> None:
        """Announce nodes that the coming pass writes behind the row's tail."""
        tail, depths, old = self.tails[row], self.depths[row], self.visible[row]
        n = len(tail)
        grown = np.zeros((n + len(parents), n + len(parents)), dtype=np.bool_)
        grown[:n, :n] = old
        for node, parent in enumerate(parents, start=n):
            if parent >= 0:
                grown[node] = grown[parent]
            grown[node, node] = True
            depths.append(0 if parent < 0 else depths[parent] + 1)
        tail.extend(parents)
        self.visible[row] = grown

    @torch.inference_mode()
    def reserve(self, slots: int) -> None:
        """Make room for `slots` per row, doubling."""
        if slots > self.capacity:
            self.capacity = bucket(max(slots, 2 * self.capacity))
            for layer in self.layers:
                layer.resize(None, self.capacity)

    @torch.inference_mode()
    def commit(self, row: int, path: Sequence[int]) -> None:
        """Keep the tail nodes of `path` (indices, root to leaf) as part of the prefix, drop the others."""
        start = self.lengths[row]
        if any(node != i for i, node in enumerate(path)):
            end = start + len(path)
            for layer in self.layers:
                if layer.is_initialized:
                    source = torch.tensor(path, device=layer.keys.device) + start
                    layer.keys[row, :, start:end] = layer.keys[row].index_select(1, source)
                    layer.values[row, :, start:end] = layer.values[row].index_select(1, source)
        self.lengths[row] = start + len(path)
        self._clear(row)

    def advance(self, row: int, count: int) -> None:
        """Take the first `count` tail nodes, a chain, into the prefix and drop the others."""
        self.lengths[row] += count
        self._clear(row)

    @torch.inference_mode()
    def copy_prefix(self, source: int, row: int) -> None:
        """Give a row the prefix of another one (the same prompt need not be read twice)."""
        length = self.lengths[source]
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[row, :, :length] = layer.keys[source, :, :length]
                layer.values[row, :, :length] = layer.values[source, :, :length]
        self.lengths[row] = length
        self._clear(row)

    def cut(self, row: int, length: int) -> None:
        """Shorten a row's prefix to `length` slots and drop its tail."""
        if length > self.lengths[row]:
            raise ValueError(f"a row of {self.lengths[row]} slots cannot be cut to {length}")
        self.lengths[row] = length
        self._clear(row)

    @torch.inference_mode()
    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only the given rows, in that order (rows leave a batch; the same row may be kept twice)."""
        for layer in self.layers:
            layer.resize(rows, self.capacity)
        self.lengths = [self.lengths[r] for r in rows]
        self.tails = [list(self.tails[r]) for r in rows]
        self.depths = [list(self.depths[r]) for r in rows]
        self.visible = [self.visible[r].copy() for r in rows]

    @torch.inference_mode()
    def add_rows(self, count: int) -> None:
        """Append empty rows (rows join a batch)."""
        for layer in self.layers:
            if layer.is_initialized:
                for name in ("keys", "values"):
                    old = getattr(layer, name)
                    setattr(layer, name, torch.cat([old, old.new_zeros((count, *old.shape[1:]))]))
        self.lengths += [0] * count
        self.tails += [[] for _ in range(count)]
        self.depths += [[] for _ in range(count)]
        self.visible += [np.zeros((0, 0), np.bool_) for _ in range(count)]

    def _clear(self, row: int) -> None:
        self.tails[row] = []
        self.depths[row] = []
        self.visible[row] = np.zeros((0, 0), np.bool_)
