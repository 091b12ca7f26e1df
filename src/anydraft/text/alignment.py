"""Keeping two tokenizers in step by bytes: the draft's view of a text, and drafts turned into target tokens.

The common currency is bytes, so nothing is guessed: a draft token stays valid exactly if its bytes are a
prefix of what the target committed (universal assisted generation, but without its windows and longest common
subsequences). Nothing here knows a model: `DraftContext.sync` tells how far a cache stays valid, cutting it
is the drafter's business.

- `PlainEncoder` (encoder.py): bytes -> tokens with explicit spans, from the middle of a text.
- `DraftContext`: prompt, then tokens of the committed text, then proposals. Invariant after every `sync`: the
  bytes of the context's tokens, then `pending`, are the committed bytes; if nothing was proposed, the tokens
  are those of encoding everything at once.
- `to_target`: drafted bytes as target tokens. Committed target tokens are never encoded anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from anydraft.text.encoder import Encoding, PlainEncoder

__all__ = ["DraftContext", "Encoding", "PlainEncoder", "TargetDraft", "to_target"]

# Bytes encoded anew at most when a text has no safe boundary for long (base64, Chinese without a line end).
# Beyond it the context may differ from encoding everything at once: that costs acceptance, never exactness.
LONGEST_RESTART = 1024
# How far back committed bytes are looked at for the word that a draft continues.
LONGEST_TAIL = 64


class DraftContext:
    """One row's text in the draft's tokens.

    Args:
        encoder: the draft tokenizer's.
        prompt_text: ordinary text that the row starts with, encoded as the tokenizer does a prompt; empty if
            the prompt is all in `prefix_ids`.
        prefix_ids: opaque tokens before it (BOS, a chat template); never touched.
    """

    def __init__(self, encoder: PlainEncoder, prompt_text: bytes = b"", prefix_ids: Sequence[int] = ()) -> None:
        self._encoder = encoder
        self._prefix = [int(token) for token in prefix_ids]
        self._data = bytearray()  # committed text
        self._ids: list[int] = []  # tokens of it, then proposals
        self._ends: list[int] = []
        self._covered = 0  # committed bytes that tokens cover; the rest is pending
        self._settled = 0  # number of tokens that cover them; the rest are proposals
        self._opens = bool(prompt_text)  # whether the text starts as a prompt does
        if prompt_text:
            self.sync(prompt_text)

    @property
    def tokens(self) -> list[int]:
        """Prefix, tokens of the committed text, proposals."""
        return self._prefix + self._ids

    def __len__(self) -> int:
        return len(self._prefix) + len(self._ids)

    @property
    def prefix_length(self) -> int:
        """Number of opaque tokens in front."""
        return len(self._prefix)

    @property
    def committed_bytes(self) -> bytes:
        """Committed text, prompt text included; after `slide` only what is left of it."""
        return bytes(self._data)

    @property
    def pending(self) -> bytes:
        """Committed bytes at the end that no token covers, because the vocabulary cannot express them."""
        return bytes(self._data[self._covered :])

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Start and end in the committed text of each token after the prefix, proposals left out."""
        ends = self._ends[: self._settled]
        return list(zip([0, *ends], ends, strict=False))

    @property
    def drafted(self) -> bytes:
        """Bytes that the proposals add to the committed text; empty if they contradict `pending`."""
        text = self._encoder.table.join(self._ids[self._settled :])
        pending = self.pending
        return text[len(pending) :] if text.startswith(pending) else b""

    def extend(self, tokens: Iterable[int]) -> None:
        """Append the draft's own proposals, so that the next `sync` can keep those that were committed."""
        for token in tokens:
            self._ids.append(int(token))

    def sync(self, new_bytes: bytes) -> int:
        """Append committed bytes and bring the tokens in line with them.

        Proposals stay as far as their bytes were committed. What remains is encoded from the last safe
        boundary. Returns how many tokens in front are the ones that were there before: the draft's cache is
        valid up to there.
        """
        self._data += new_bytes
        kept = self._keep_proposals()
        if self._covered == len(self._data):
            del self._ids[kept:]
            return len(self._prefix) + kept
        start, first = self._restart(self._covered, kept)
        data = bytes(self._data[start:])
        encode = self._encoder.encode_opening if start == 0 and self._opens else self._encoder.encode
        ids, ends, pending = encode(data)
        same = 0
        for old, new in zip(self._ids[first:], ids, strict=False):
            if old != new:
                break
            same += 1
        self._ids[first:] = ids
        self._ends[first:] = [start + end for end in ends] if start else ends
        self._settled = len(self._ids)
        self._covered = len(self._data) - len(pending)
        return len(self._prefix) + first + same

    def slide(self, keep: int) -> bool:
        """Drop the oldest tokens so that at most `keep` remain, the first prefix token (BOS) among them.

        Returns whether anything was dropped: then positions have moved and the draft's cache must be rebuilt.
        """
        excess = len(self) - keep
        if excess <= 0:
            return False
        head = self._prefix[: min(1, keep)]
        dropped = min(len(self._ids), max(0, len(self._ids) - (keep - len(head))))
        rest = keep - len(head) - (len(self._ids) - dropped)
        body = self._prefix[len(head) :]
        self._prefix = head + (body[len(body) - rest :] if rest > 0 else [])
        if dropped:
            settled = min(dropped, self._settled)
            cut = self._ends[settled - 1] if settled else 0
            del self._data[:cut]
            del self._ids[:dropped]
            self._ends = [end - cut for end in self._ends[settled:]]
            self._settled -= settled
            self._covered -= cut
            self._opens = False
        return True

    def _keep_proposals(self) -> int:
        """Settle the proposals that the committed bytes start with; returns the number of tokens kept."""
        table = self._encoder.table
        kept = self._settled
        for token in self._ids[kept:]:
            piece = table.bytes_of(token)
            if piece is None:
                break
            end = self._covered + len(piece)
            if self._data[self._covered : end] != piece:
                break
            self._ends.append(end)
            self._covered = end
            kept += 1
        self._settled = kept
        return kept

    def _restart(self, at: int, kept: int) -> tuple[int, int]:
        """Where to encode from: the last safe boundary up to `at` where a token starts; and that token."""
        low = max(0, at - LONGEST_RESTART)
        start = at
        while True:
            start = self._encoder.safe_boundary(self._data, start, low)
            first = bisect_right(self._ends, start, 0, kept) if start else 0
            begin = self._ends[first - 1] if first else 0
            if begin == start or start <= low:
                return begin, first
            start = begin


class TargetDraft(NamedTuple):
    """Drafted bytes as target tokens.

    Args:
        ids: target tokens, continuing after the last committed one.
        ends: where each token's bytes end in the drafted bytes.
        stable: how many of them stay the same whatever text follows; later ones may merge with it.
        pending: drafted bytes at the end that no token covers.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    stable: int
    pending: bytes


def to_target(encoder: PlainEncoder, drafted: bytes, committed: bytes | bytearray = b"") -> TargetDraft:
    """Drafted bytes as target tokens that follow the committed ones.

    Args:
        encoder: the target tokenizer's.
        drafted: bytes after the committed end.
        committed: committed bytes, or their last 64 or more; with them a draft that continues a word is cut
            as the tokenizer cuts the whole word, if a token ends where the committed text ends.
    """
    tail = _tail(encoder, drafted, committed)
    whole = tail + drafted
    ids, ends, pending = encoder.encode(whole)
    if tail:
        split = bisect_right(ends, len(tail))
        if split and ends[split - 1] == len(tail):
            ids, ends = ids[split:], tuple(end - len(tail) for end in ends[split:])
        else:  # a token would cross the committed end: the committed tokens stand, so the draft starts afresh
            ids, ends, pending = encoder.encode(drafted)
    safe = encoder.safe_boundary(whole, len(whole)) - len(tail)
    return TargetDraft(ids, ends, bisect_right(ends, safe) if safe > 0 else 0, pending)


def _tail(encoder: PlainEncoder, drafted: bytes, committed: bytes | bytearray) -> bytes:
    """Committed bytes since the last safe boundary, if there is one nearby."""
    if not committed or not drafted:
        return b""
    recent = bytes(committed[-LONGEST_TAIL:])
    near = recent + drafted[:1]
    start = encoder.safe_boundary(near, len(recent))
    if start == 0 and len(committed) >= LONGEST_TAIL:
        return b""
    return recent[start:]
