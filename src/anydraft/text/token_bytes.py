"""What each token writes: a table from ids to bytes, read from the tokenizer's model, never from `decode`.

`decode` strips spaces, cleans up punctuation and replaces half characters; bytes do not. Two tokenizers are
the same if their tables are, whatever `vocab_size` says. Special tokens write nothing: they are None in the
table and listed in `special`. Does not do: encoding (encoder.py), maps between vocabularies (vocabulary.py).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from anydraft.text.backend import ALPHABET, BYTE_TOKEN, SPACE_SIGN, TEXT_BYTES, Backend, components

logger = logging.getLogger(__name__)

# What normalising changes: case, accents, ligatures, runs of spaces, line ends, full-width letters.
PROBE = "Hello, World!  \n\tif x == 42:\r\n    naïve e\u0301 ﬁne Ａ ½·å\u00a0漢字 한글 🙂 don't\n\n end."


class TokenBytes:
    """The table of one tokenizer.

    Args:
        table: bytes per token id; None for special tokens and for ids that no token has.
        special: special ids with the names of their tokens; they have no bytes.
        fallback: byte tokens that the tokenizer uses only where it has no other token.
        lossless: whether text survives encoding and reading the table.
        reason: why not, in words.
    """

    def __init__(
        self,
        table: Sequence[bytes | None],
        special: Mapping[int, str],
        *,
        fallback: Iterable[int] = (),
        lossless: bool = True,
        reason: str | None = None,
    ) -> None:
        self.names: dict[int, str] = dict(special)
        self.table: list[bytes | None] = list(table)
        self.table += [None] * (max(self.names, default=-1) + 1 - len(self.table))
        self.special: frozenset[int] = frozenset(self.names)
        self.fallback = frozenset(fallback)
        self.lossless = lossless
        self.reason = reason

    @classmethod
    def of(cls, tokenizer: Any) -> TokenBytes:
        """The table of a transformers tokenizer, a `tokenizers.Tokenizer` or a `Backend`.

        Logs a warning where the tokenizer normalises, so that its tokens do not write back the text they came
        from.
        """
        backend = Backend.of(tokenizer)
        strings = backend.strings
        table: list[bytes | None] = [None] * (max(strings, default=-1) + 1)
        if backend.style == "byte-level":
            _fill_byte_level(table, strings, backend.verbatim)
        else:
            _fill_pieces(table, strings, backend)
        names = {i: strings[i] for i in backend.special}
        for i in names:
            table[i] = None
        reason = None if backend.complete else _loss(backend, table)
        if reason:
            logger.warning("tokenizer does not keep text as it is (%s): few drafts will fit", reason)
        return cls(table, names, fallback=backend.fallback, lossless=reason is None, reason=reason)

    @classmethod
    def from_table(cls, table: Sequence[bytes | None], special: Iterable[int] = ()) -> TokenBytes:
        """A table given as such, for toy tokenizers; `special` ids lose their bytes."""
        names = {i: f"<special {i}>" for i in special}
        return cls([None if i in names else piece for i, piece in enumerate(table)], names)

    @property
    def size(self) -> int:
        """One more than the highest token id."""
        return len(self.table)

    def bytes_of(self, token: int) -> bytes | None:
        """What the token writes; None for special tokens, holes and ids beyond the table (padded logits)."""
        return self.table[token] if 0 <= token < len(self.table) else None

    def join(self, tokens: Iterable[int]) -> bytes:
        """What the tokens write together; special tokens write nothing."""
        return b"".join(self.bytes_of(int(token)) or b"" for token in tokens)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Token for each byte string: the lowest id, a byte token only where there is no other."""
        result: dict[bytes, int] = {}
        for token, piece in enumerate(self.table):
            if piece is not None and token not in self.fallback:
                result.setdefault(piece, token)
        for token in sorted(self.fallback):
            result.setdefault(self.table[token] or b"", token)
        return result

    @cached_property
    def byte_ids(self) -> tuple[int, ...]:
        """Token that writes each single byte, -1 where there is none. Shape (256,)."""
        return tuple(self.ids.get(bytes([byte]), -1) for byte in range(256))

    @cached_property
    def complete(self) -> bool:
        """Whether every byte of any text has a token of its own."""
        return all(self.byte_ids[byte] >= 0 for byte in TEXT_BYTES)

    @cached_property
    def trimmed(self) -> int:
        """Number of ids up to the last one that means something; the rest is padding."""
        last = next((i for i in range(self.size - 1, -1, -1) if self.table[i] is not None), -1)
        return max([last, *self.special]) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content: bytes, special ids and their names; padding does not count."""
        pieces = self.table[: self.trimmed]
        lengths = np.array([-1 if piece is None else len(piece) for piece in pieces], dtype="<i4")
        hasher = hashlib.sha256(lengths.tobytes())
        hasher.update(b"".join(piece for piece in pieces if piece is not None))
        hasher.update(repr((sorted(self.names.items()), sorted(self.fallback))).encode())
        return hasher.hexdigest()

    def same_as(self, other: TokenBytes) -> bool:
        """Whether both tables mean the same, so that ids pass from one model to the other as they are."""
        return self is other or (
            self.names == other.names and self.table[: self.trimmed] == other.table[: other.trimmed]
        )


def adjacent_bytes(pieces: Iterable[bytes | None]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which bytes stand next to each other inside some piece. Shape (256, 256), left byte first."""
    some = [piece for piece in pieces if piece]
    text = np.frombuffer(b"".join(some), dtype=np.uint8).astype(np.int64)
    inside = np.ones(len(text), dtype=bool)
    ends = np.fromiter(itertools.accumulate(map(len, some)), dtype=np.int64, count=len(some))
    inside[ends - 1] = False  # the last byte of a piece has no right neighbour
    left = np.flatnonzero(inside)
    seen = np.zeros(65536, dtype=bool)
    seen[text[left] * 256 + text[left + 1]] = True
    return seen.reshape(256, 256)


def _fill_byte_level(table: list[bytes | None], strings: dict[int, str], verbatim: frozenset[int]) -> None:
    """Token strings are letters of the byte-level alphabet; those of added tokens stand for themselves."""
    for token, string in strings.items():
        if token in verbatim:
            table[token] = string.encode(errors="surrogatepass")
            continue
        try:
            table[token] = bytes([ALPHABET[letter] for letter in string])
        except KeyError:
            table[token] = string.encode(errors="surrogatepass")


def _fill_pieces(table: list[bytes | None], strings: dict[int, str], backend: Backend) -> None:
    """Token strings are text: with space signs, with byte tokens, with word-piece prefixes or suffixes."""
    model = backend.spec["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    for token, string in strings.items():
        text = string
        if backend.style == "sentencepiece":
            if match := BYTE_TOKEN.fullmatch(string):
                table[token] = bytes([int(match[1], 16)])
                continue
            text = string.replace(SPACE_SIGN, " ")
        elif backend.style == "wordpiece":
            text = string[len(prefix) :] if prefix and string.startswith(prefix) else " " + string
        elif prefix:
            text = string.removeprefix(prefix)
        if suffix and text.endswith(suffix):
            text = text[: -len(suffix)] + " "
        table[token] = text.encode(errors="surrogatepass")


def _loss(backend: Backend, table: list[bytes | None]) -> str | None:
    """Why tokens do not write back their text, or None; asked only of characters in the vocabulary."""
    known = {piece for piece in table if piece is not None}
    text = "".join(c for c in PROBE if c.encode() in known or c.lower().encode() in known)
    ids = backend.plain_copy().encode(text, add_special_tokens=False).ids
    written = b"".join(table[i] or b"" for i in ids)
    if written == text.encode():
        return None
    kinds = [part["type"] for part in components(backend.spec.get("normalizer"))] or ["no normalizer"]
    shown = written[:40].decode(errors="replace")
    return f"{backend.style}, {', '.join(kinds)}: {text[:40]!r} becomes {shown!r}"
