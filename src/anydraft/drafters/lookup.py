"""Lookup drafter: what followed the longest earlier occurrence of the current suffix (prompt lookup).

No model and no training. The index maps n-grams of the row's own tokens to the place where they last ended, so
a draft costs O(longest n-gram). See also https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from weakref import WeakKeyDictionary

from anydraft.growth import Bounds
from anydraft.row import Row
from anydraft.tree import DraftTree


class _Index:
    """Where each n-gram of a growing sequence last ended (before its current end)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.tokens: list[int] = []
        self.ends: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            # The n-grams that end at the last token become findable once something follows them.
            for size in self.sizes:
                if len(self.tokens) >= size:
                    self.ends[tuple(self.tokens[-size:])] = len(self.tokens)
            self.tokens.append(token)

    def match(self) -> tuple[int, int] | None:
        """Index of the token that followed the longest known suffix, and that suffix's length; or None."""
        for size in self.sizes:
            if len(self.tokens) >= size:
                found = self.ends.get(tuple(self.tokens[-size:]))
                if found is not None:
                    return found, size
        return None


@cache
def _scores(size: int, length: int) -> tuple[float, ...]:
    """Log scores of a chain of so many tokens behind a match of so many."""
    return tuple((step + 1) * math.log(size / (size + 1)) for step in range(length))


class LookupDrafter:
    """Drafts by copying from the prompt and the output.

    Args:
        max_ngram, min_ngram: longest and shortest suffix to look for.
    """

    name = "lookup"

    def __init__(self, max_ngram: int = 6, min_ngram: int = 2) -> None:
        if not 1 <= min_ngram <= max_ngram:
            raise ValueError(f"need 1 <= min_ngram <= max_ngram, got {min_ngram} and {max_ngram}")
        self.sizes = tuple(range(max_ngram, min_ngram - 1, -1))
        self._rows: WeakKeyDictionary[Row, _Index] = WeakKeyDictionary()

    def start(self, rows: Sequence[Row]) -> None:
        """Index the prompts."""
        for row in rows:
            self._rows[row] = index = _Index(self.sizes)
            index.extend(row.prompt)

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        """A chain copied from behind the match; it may run into its own copy (periodic text).

        Its scores say how long the match was, no more: that n tokens agreed makes n of n + 1 of the next a first guess.
        """
        drafts = []
        for row, bound in zip(rows, bounds, strict=True):
            index = self._rows[row]
            index.extend(row.tokens[len(index.tokens) - len(row.prompt) :])
            match = index.match()
            length = min(bound.depth, bound.nodes)
            if match is None or length <= 0:
                drafts.append(DraftTree.EMPTY)
                continue
            found, size = match
            copied = index.tokens[found : found + length]
            while len(copied) < length:
                copied += copied[: length - len(copied)]
            drafts.append(DraftTree(tuple(copied), tuple(range(-1, length - 1)), _scores(size, length)))
        return drafts

    def stop(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""
        for row in rows:
            self._rows.pop(row, None)
