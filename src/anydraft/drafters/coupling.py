"""Coupling: the target's noise, carried over to a drafter with another vocabulary.

The target chooses argmax over its tokens t of log p(t) + g(t). A drafter writes t as several tokens of its own,
or several t as one token. Grouping the target's tokens by their first draft token d gives, for the best of a
group, log P(d) + G_d with G_d = max over the group of (log w(t | group) + g(t)), where w is the drafter's belief
inside the group; if w were exact, choosing d by log q(d) + G_d and going on inside the group would find exactly
the argmax over t. w is not known before the drafter has read d, so a fixed prior stands in: a power of the rank in
which BPE merges were learned. So the drafter uses the target's noise for *every* token, also where the
boundaries do not coincide. This extends the Gumbel coupling of arXiv 2408.07978 to different tokenizers.

Losslessness does not depend on anything here; agreement does.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from anydraft.noise import Noise
from anydraft.text.encoder import PlainEncoder
from anydraft.text.vocabulary import TargetSegments

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where a draft stands in the target's tokens: index of the current token, and the trie node inside it."""

    position: int
    node: Group | None = None


class Group:
    """Target tokens whose draft segments share a prefix: rows [low, high) of the sorted segments at a depth."""

    def __init__(self, trie: SegmentTrie, low: int, high: int, depth: int) -> None:
        self.trie = trie
        self.low = low
        self.high = high
        self.depth = depth

    @cached_property
    def ends(self) -> int:
        """Target token whose segment ends here (the first of several), or -1."""
        done = self.trie.segments[self.low, self.depth] < 0
        return int(self.trie.tokens[self.low]) if done else -1

    @cached_property
    def _edges(self) -> tuple[Ints, Ints]:
        """Draft tokens that continue, and where their rows start."""
        column = self.trie.segments[self.low : self.high, self.depth]
        tokens, starts = np.unique(column, return_index=True)
        keep = tokens >= 0
        return tokens[keep], starts[keep] + self.low

    @property
    def tokens(self) -> Ints:
        """Draft tokens that continue inside a target token."""
        return self._edges[0]

    @cached_property
    def children(self) -> dict[int, Group]:
        """Groups by the next draft token."""
        tokens, starts = self._edges
        highs = np.append(starts, self.high)[1:]
        return {
            int(token): Group(self.trie, int(low), int(high), self.depth + 1)
            for token, low, high in zip(tokens, starts, highs, strict=True)
        }

    @cached_property
    def _weights(self) -> Floats:
        """Log of the prior mass of each child."""
        if not len(self.tokens):
            return np.zeros(0)
        weights: Floats = np.logaddexp.reduceat(
            self.trie.prior[self._edges[1][0] : self.high], self._edges[1] - self._edges[1][0]
        )
        return weights

    def noise(self, gumbel: Floats) -> Floats:
        """G of each continuing draft token, from the target's noise (target vocab,) at this position."""
        tokens, starts = self._edges
        if not len(tokens):
            return np.zeros(0)
        first = int(starts[0])
        values = self.trie.prior[first : self.high] + gumbel[self.trie.tokens[first : self.high]]
        best: Floats = np.maximum.reduceat(values, starts - first)
        return best - self._weights


class SegmentTrie:
    """All target tokens sorted by their draft segments; groups are slices of it, made when needed."""

    def __init__(self, segments: TargetSegments) -> None:
        offsets = np.asarray(segments.offsets, dtype=np.int64)
        values = np.asarray(segments.values, dtype=np.int64)
        lengths = np.diff(offsets)
        written = np.flatnonzero(lengths > 0)
        longest = int(lengths.max(initial=0))
        table = np.full((len(written), longest + 1), -1, dtype=np.int64)
        for column in range(longest):
            rows = np.flatnonzero(lengths[written] > column)
            table[rows, column] = values[offsets[written[rows]] + column]
        order = np.lexsort(table.T[::-1]) if len(written) else np.zeros(0, dtype=np.int64)
        self.segments: Ints = table[order]
        self.tokens: Ints = written[order]
        # A prior over target tokens: BPE ids follow the order of merges, so rank stands in for frequency (Zipf).
        self.prior: Floats = -1.3 * np.log(self.tokens + 100.0)
        self.root = Group(self, 0, len(self.tokens), 0)


class Coupling:
    """Noise for the draft vocabulary at any place of a draft.

    Args:
        draft: encoder of the draft tokenizer; target: of the target's.
        segments: target tokens as draft tokens.
        size: number of draft tokens that the model scores.
    """

    KEEP = 64

    def __init__(self, draft: PlainEncoder, target: PlainEncoder, segments: TargetSegments, size: int) -> None:
        self._draft = draft
        self._target = target
        self._segments = segments
        self.size = size

    @cached_property
    def trie(self) -> SegmentTrie:
        """The target's tokens by draft segment."""
        return SegmentTrie(self._segments)

    @cached_property
    def _spanning(self) -> tuple[Ints, Ints, Ints]:
        """Draft tokens that start no segment: ids, first target token of what they write, number of tokens."""
        known = set(self.trie.root.children)
        table = self._draft.table
        found = [(d, piece) for d, piece in enumerate(table.table[: self.size]) if piece and d not in known]
        encodings = self._target.encode_many([piece for _, piece in found])
        rows = [(d, e.ids[0], len(e.ids)) for (d, _), e in zip(found, encodings, strict=True) if e.ids]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        return columns[0], columns[1], columns[2]

    @cached_property
    def _spans(self) -> dict[int, int]:
        tokens, _, counts = self._spanning
        return dict(zip(tokens.tolist(), counts.tolist(), strict=True))

    def start(self, position: int) -> Place:
        """A draft begins at a boundary of the target's tokens."""
        return Place(position)

    def step(self, place: Place, token: int) -> Place:
        """Where the draft stands after one more draft token."""
        if place.node is not None:
            inside = place.node.children.get(token)
            if inside is not None:
                return Place(place.position, inside)
            place = Place(place.position + 1)
        group = self.trie.root.children.get(token)
        if group is not None:
            return Place(place.position, group)
        return Place(place.position + self._spans.get(token, 1))

    def scores(self, place: Place, logs: Floats, noise: Noise, cache: OrderedDict[int, Floats]) -> Floats:
        """Log probability that each draft token is what the target writes next, given its noise.

        Args:
            logs: (draft vocab,) log probabilities of the drafter.
            cache: root noise by position, kept between calls of one row.
        """
        group = place.node
        if group is None:
            return _log_softmax(logs + self._root_noise(place.position, noise, cache))
        outside = logs.copy()
        outside[group.tokens] = -np.inf
        normaliser = _logsumexp(outside)
        fresh = _log_softmax(outside + self._root_noise(place.position + 1, noise, cache)) if np.isfinite(
            normaliser
        ) else outside
        if not len(group.tokens):
            return fresh
        gumbel = _vector(noise, place.position)
        inside = logs[group.tokens] + group.noise(gumbel)
        end = normaliser + (gumbel[group.ends] if group.ends >= 0 else 0.0)
        total = np.logaddexp(_logsumexp(inside), end)
        fresh += end - total
        fresh[group.tokens] = inside - total
        return fresh

    def _root_noise(self, position: int, noise: Noise, cache: OrderedDict[int, Floats]) -> Floats:
        vector = cache.get(position)
        if vector is None:
            gumbel = _vector(noise, position)
            vector = noise.own(position, self.size).numpy(force=True).astype(np.float64)
            root = self.trie.root
            vector[root.tokens] = root.noise(gumbel)
            tokens, firsts, _ = self._spanning
            vector[tokens] = gumbel[firsts]
            cache[position] = vector
            while len(cache) > self.KEEP:
                cache.popitem(last=False)
        return vector


def _vector(noise: Noise, position: int) -> Floats:
    vector: Any = noise.at(position).numpy(force=True)
    return vector  # type: ignore[no-any-return]


def _logsumexp(values: Floats) -> float:
    top = values.max(initial=-np.inf)
    if not np.isfinite(top):
        return float(top)
    return float(top + np.log(np.exp(values - top).sum()))


def _log_softmax(values: Floats) -> Floats:
    total = _logsumexp(values)
    result: Floats = values - total if np.isfinite(total) else np.full_like(values, -np.inf)
    return result
