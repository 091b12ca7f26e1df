"""DraftModel: an assistant's own decode loop over a SlotCache, for all rows of a batch in lockstep.

It grows one tree per row with one batched pass per level, keeps in its cache what the next context has in
common with what it drafted, and never calls `generate()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from anydraft.cache import SlotCache
from anydraft.growth import Bounds, Children, Growing, Growth
from anydraft.lm import LanguageModel, chain
from anydraft.row import Row

LONGEST_UNREAD = 64
"""More unread tokens than this (the window slid) are read like a prompt, without logits for each of them."""

Score = Callable[[Row, Growth, list[int], torch.Tensor], list[Children]]
"""Children of frontier nodes: (row, growth so far, frontier, logits (frontier, vocab)) to one list per node."""


class DraftModel:
    """The cache of an assistant over several rows, and the loop that grows drafts from it."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._cache: SlotCache | None = None
        self._rows: list[Row] = []
        self._context: dict[Row, list[int]] = {}
        self._tail: dict[Row, list[int]] = {}

    def start(self, row: Row, context: Sequence[int]) -> None:
        """A row joins with its context, at least one token; all but the last are read now."""
        if self._cache is None:
            self._cache = self.lm.new_cache(0, len(context) + 256)
        self._cache.add_rows(1)
        self._rows.append(row)
        self._context[row] = list(context[:-1])
        self._tail[row] = []
        self.lm.prefill(self._cache, len(self._rows) - 1, context[:-1])

    def stop(self, rows: Sequence[Row]) -> None:
        """Rows leave."""
        leaving = [row for row in rows if row in self._context]
        if not leaving or self._cache is None:
            return
        kept = [i for i, row in enumerate(self._rows) if row not in leaving]
        for row in leaving:
            del self._context[row], self._tail[row]
        self._rows = [self._rows[i] for i in kept]
        if self._rows:
            self._cache.keep_rows(kept)
        else:
            self._cache = None

    def cached(self, row: Row) -> list[int]:
        """Tokens whose keys and values are in the row's cache."""
        return self._context[row]

    def sync(self, row: Row, context: Sequence[int], valid: int) -> list[int]:
        """Make the row's cache a proper prefix of `context`; returns the tokens still to be read (at least one).

        `valid`: the cached tokens up to here are known to be those of `context`.
        """
        cache, slot, cached = self._require(), self._rows.index(row), self._context[row]
        valid = min(valid, len(context) - 1)
        if valid < len(cached):
            cache.cut(slot, valid)
            del cached[valid:]
        else:
            path: list[int] = []
            node, parents, tokens = -1, cache.tails[slot], self._tail[row]
            for token in context[len(cached) : -1]:
                matching = (n for n, p in enumerate(parents) if p == node and tokens[n] == token)
                node = next(matching, -2)
                if node < 0:
                    break
                path.append(node)
            cached.extend(tokens[n] for n in path)
            cache.commit(slot, path)
        self._tail[row] = []
        unread = list(context[len(cached) :])
        if len(unread) > LONGEST_UNREAD:
            self.lm.prefill(cache, slot, unread[:-1])
            cached.extend(unread[:-1])
            unread = unread[-1:]
        return unread

    def grow(
        self, rows: Sequence[Row], unread: Sequence[Sequence[int]], bounds: Sequence[Bounds], score: Score
    ) -> list[Growth]:
        """Read the unread tokens of each row, then expand level by level until every row's draft is done."""
        cache = self._require()
        done: dict[Row, Growth] = {}
        growing: dict[Row, _GrowingRow] = {}
        for row, tokens, bound in zip(rows, unread, bounds, strict=True):
            # The last level is not read, so it needs no position of its own. What a row still wants is counted in the
            # target's tokens, of which few are longer than two of the assistant's.
            room = self.lm.context_length - len(self._context[row]) - len(tokens) + 1
            depth = min(bound.depth, 2 * bound.target_depth, room)
            if depth > 0 and bound.nodes > 0 and bound.target_depth > 0:
                growing[row] = _GrowingRow(bound if depth == bound.depth else replace(bound, depth=depth), tokens)
            else:
                done[row] = Growth()
        while growing:
            nodes = [growing[row].nodes() if row in growing else ([], []) for row in self._rows]
            logits = self.lm.score(cache, nodes).logits
            for slot, row in enumerate(self._rows):
                grower = growing.get(row)
                if grower is None:
                    continue
                tokens = nodes[slot][0]
                self._tail[row].extend(tokens)
                count = len(grower.frontier)
                last = logits[slot, len(tokens) - count : len(tokens)]
                grower.receive(score(row, grower.growth, grower.frontier, last))
                if not grower.frontier:
                    done[row] = growing.pop(row).growth
        return [done[row] for row in rows]

    def _require(self) -> SlotCache:
        if self._cache is None:
            raise RuntimeError("no row has been started")
        return self._cache


class _GrowingRow(Growing):
    """One row's growth, and where its nodes lie in the cache's tail."""

    def __init__(self, bounds: Bounds, unread: Sequence[int]) -> None:
        super().__init__(bounds)
        self.unread = unread
        self.tail_of: dict[int, int] = {}
        self.size = 0

    def nodes(self) -> tuple[Sequence[int], Sequence[int]]:
        """What the next pass reads: the unread tokens first, then the frontier."""
        if self.frontier == [-1]:
            self.tail_of[-1] = len(self.unread) - 1
            self.size = len(self.unread)
            return chain(self.unread)
        parents = [self.tail_of[self.growth.parents[node]] for node in self.frontier]
        for node in self.frontier:
            self.tail_of[node] = self.size
            self.size += 1
        return [self.growth.tokens[node] for node in self.frontier], parents
