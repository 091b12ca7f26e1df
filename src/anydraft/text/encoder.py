"""Encoding bytes from the middle of a text: token ids with the bytes that each of them covers.

`PlainEncoder` encodes a *continuation*: no BOS, no space of the tokenizer's own before the first word, no
special tokens found in the text. It takes bytes, because a token may end inside a character: valid UTF-8 goes
through the tokenizer, other bytes through byte tokens. Where the vocabulary can express every byte, joining
the tokens' bytes gives the data back exactly; elsewhere the spans say what each token stands for, and no
input raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from anydraft.text.backend import LETTER_OF_BYTE, SPACE_SIGN, Backend
from anydraft.text.boundaries import Boundaries
from anydraft.text.token_bytes import TokenBytes

_SIGN = SPACE_SIGN.encode()
_CACHED_BYTES = 96  # longer texts do not come back
_CACHED_TEXTS = 4096
_BATCH = 8192


class Encoding(NamedTuple):
    """Tokens of a stretch of bytes.

    Args:
        ids: token ids.
        ends: where each token's bytes end, ascending; a token starts where the one before ends.
        pending: bytes at the end that no token covers, because the vocabulary cannot express them (yet).
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    pending: bytes


class PlainEncoder:
    """Encodes continuations with a private copy of a tokenizer; the tokenizer itself is only read.

    Args:
        tokenizer: a fast transformers tokenizer or a `tokenizers.Tokenizer`.
        table: its `TokenBytes`, if at hand.
    """

    def __init__(self, tokenizer: Any, table: TokenBytes | None = None) -> None:
        self._backend = Backend.of(tokenizer)
        self.table = TokenBytes.of(self._backend) if table is None else table
        self._plain: Tokenizer = self._backend.plain_copy()
        self._pieces = [piece or b"" for piece in self.table.table]
        self._signed = self._backend.style == "sentencepiece"  # U+2581 in the text would be read as a space
        self._literals = self._backend.literals
        self._boundaries = Boundaries(self._backend, self.table)
        self._cache: dict[bytes, Encoding] = {}

    def encode(self, data: bytes) -> Encoding:
        """Tokens of `data` as a continuation; their spans and `pending` cover it exactly."""
        known = self._cache.get(data)
        if known is None:
            known = self._encode(data)
            if len(data) <= _CACHED_BYTES:
                if len(self._cache) >= _CACHED_TEXTS:
                    del self._cache[next(iter(self._cache))]
                self._cache[data] = known
        return known

    def encode_many(self, texts: Sequence[bytes]) -> list[Encoding]:
        """Each text as a continuation of its own; several cores, for whole vocabularies."""
        results: list[Encoding] = []
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            plain = [_text(data) if self._is_plain(data) else None for data in batch]
            found = iter(self._plain.encode_batch([t for t in plain if t is not None], add_special_tokens=False))
            for data, text in zip(batch, plain, strict=True):
                ids = tuple(next(found).ids) if text is not None else ()
                if ids and self.table.join(ids) == data:
                    ends = tuple(accumulate(len(self._pieces[i]) for i in ids))
                    results.append(Encoding(ids, ends, b""))
                else:
                    results.append(self._encode(data))
        return results

    def encode_opening(self, data: bytes) -> Encoding:
        """Tokens of `data` as the start of a text, with the tokenizer's own space before it."""
        space = self._backend.opening_space(data) if data else b""
        ids, ends, pending = self._encode(space + data)
        return Encoding(ids, tuple(max(0, end - len(space)) for end in ends), pending[-len(data) or 1 :])

    def safe_boundary(self, data: bytes | bytearray, at: int, low: int = 0) -> int:
        """The largest s <= at where text may be cut: encode(data) == encode(data[:s]) + encode(data[s:]).

        This holds whatever follows `data` later, so the end of `data` itself is not safe: the next byte is
        unknown. Offset 0 is always safe. Offsets below `low` are not looked at; `low` is returned if none is
        found above.
        """
        return self._boundaries.last(data, at, low)

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer."""
        return self._backend.digest

    def _encode(self, data: bytes) -> Encoding:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return self._encode_runs(data)
        if not self._is_plain(data):
            return self._encode_runs(data)
        ids, ends = self._encode_text(text, data)
        covered = ends[-1] if ends else 0
        return Encoding(tuple(ids), tuple(ends), data[covered:])

    def _is_plain(self, data: bytes) -> bool:
        """Whether the tokenizer reads the bytes as the text that they are."""
        return not (self._signed and _SIGN in data) and not (self._literals and self._literals.search(data))

    def _encode_text(self, text: str, data: bytes) -> tuple[list[int], list[int]]:
        """Tokens of valid text and where their bytes end."""
        encoding = self._plain.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        pieces = self._pieces
        own = [pieces[i] for i in ids]
        written = b"".join(own)
        if written == data:
            return ids, list(accumulate(map(len, own)))
        if self._backend.unknown is None:  # unknown characters are dropped: the pieces lie between them
            ends = _find(own, data)
            if ends is not None:
                return ids, ends
        # Normalised or unknown text: the spans are those that the tokenizer reports.
        marks = [0, *accumulate(len(character.encode()) for character in text)]
        ends = list(accumulate((marks[end] for _, end in encoding.offsets), max))
        return ids, ends

    def _encode_runs(self, data: bytes) -> Encoding:
        """Text that is not all valid UTF-8, or contains a literal space sign, run by run."""
        ids: list[int] = []
        ends: list[int] = []
        covered = 0
        for start, end, valid in _runs(data, self._signed, self._literals):
            if valid:
                new, offsets = self._encode_text(data[start:end].decode(), data[start:end])
            else:
                new, offsets = self._encode_raw(data[start:end], end == len(data))
            ids += new
            ends += [start + offset for offset in offsets]
            covered = ends[-1] if ends else 0
        return Encoding(tuple(ids), tuple(ends), data[covered:])

    def _encode_raw(self, data: bytes, last: bool) -> tuple[list[int], list[int]]:
        """Bytes that are no characters: merged byte tokens; else the unknown token, or nothing.

        The beginning of a character at the very end is left out if it cannot be written: the whole may be.
        """
        byte_ids = self.table.byte_ids
        missing = [at for at, byte in enumerate(data) if byte_ids[byte] < 0]
        if missing and last and _is_partial(data):
            return [], []
        ids: list[int] = []
        ends: list[int] = []
        start = 0
        for stop in [*missing, len(data)]:
            if stop > start:
                new = self._merge(data[start:stop])
                ids += new
                ends += [start + end for end in accumulate(len(self._pieces[i]) for i in new)]
            start = stop + 1
            if stop < len(data) and self._backend.unknown is not None:
                ids.append(self._backend.unknown)
                ends.append(start)
        return ids, ends

    def _merge(self, data: bytes) -> list[int]:
        """Tokens of bytes that each have one."""
        if self._backend.style == "byte-level":
            tokens = self._plain.model.tokenize("".join(LETTER_OF_BYTE[byte] for byte in data))
            ids = [token.id for token in tokens]
            if self.table.join(ids) == data:
                return ids
        return [self.table.byte_ids[byte] for byte in data]


def _runs(data: bytes, signed: bool, literals: re.Pattern[bytes] | None) -> list[tuple[int, int, bool]]:
    """Cut data into runs (start, end, whether valid text); neighbouring runs of bytes are joined.

    Text is also cut inside of literals, after their first character.
    """
    runs: list[tuple[int, int, bool]] = []

    def add(start: int, end: int, valid: bool) -> None:
        if end > start:
            if runs and not valid and not runs[-1][2]:
                start = runs.pop()[0]
            runs.append((start, end, valid))

    def add_text(start: int, end: int) -> None:
        for match in literals.finditer(data, start, end) if literals else ():
            cut = match.start() + len(data[match.start() : match.end()].decode()[0].encode())
            add(start, cut, True)
            start = cut
        add(start, end, True)

    at = 0
    while at < len(data):
        try:
            data[at:].decode()
            valid_end = bad_end = len(data)
        except UnicodeDecodeError as error:
            valid_end, bad_end = at + error.start, at + error.end
        if signed:
            found = data.find(_SIGN, at, valid_end)
            if found >= 0:
                valid_end, bad_end = found, found + len(_SIGN)
        add_text(at, valid_end)
        add(valid_end, bad_end, False)
        at = bad_end
    return runs


def _find(pieces: list[bytes], data: bytes) -> list[int] | None:
    """Where pieces end that occur in the data one after the other; None if they do not."""
    ends: list[int] = []
    at = 0
    for piece in pieces:
        found = data.find(piece, at)
        if found < 0:
            return None
        at = found + len(piece)
        ends.append(at)
    return ends


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _is_partial(data: bytes) -> bool:
    """Whether the bytes may yet become one character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start == 0 and error.reason == "unexpected end of data"
    return False
