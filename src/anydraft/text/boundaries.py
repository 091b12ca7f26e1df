"""Where a text can be cut without changing its encoding, so that a growing text is encoded again only from there.

Two things have to hold at a cut, whatever follows later: no token contains the two characters (or bytes) on either
side, because merging is local and so cannot cross; and the rules that cut text into words before merging (regular
expressions that look ahead) certainly start a new word there, and go on from it as they would have anyway. The second
is decided by classes of characters that all known rules agree on: a space or a line end after a word, a mark after a
letter. Runs of spaces, of marks and of digits are never cut.

Looked up per pair of bytes in one table; only beside characters outside of ASCII the characters themselves are asked.
"""

from __future__ import annotations

import unicodedata
from functools import cached_property
from itertools import pairwise

import numpy as np

from anydraft.text.backend import Backend
from anydraft.text.token_bytes import TokenBytes, adjacent_bytes

_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_WORD = _LETTERS | frozenset(b"0123456789")
_BREAKS = frozenset(b"\t\n\v\f\r")
# Not ' (contractions), _ (a word character in some rules) and - (inside words in some).
_MARKS = frozenset(b'!"#$%&()*+,./:;<=>?@[\\]^`{|}~')
_WIDE_SPACES = tuple(
    chr(c).encode() for c in [0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)

_PUNCTUATION = ("Po", "Ps", "Pe", "Pi", "Pf")  # without connectors (_) and dashes
_NEVER, _SAFE, _UNLESS_WIDE_SPACE, _ASK = range(4)


class Boundaries:
    """The safe boundaries of one tokenizer's texts."""

    def __init__(self, backend: Backend, table: TokenBytes) -> None:
        self._backend = backend
        self._table = table
        self._answers: dict[bytes, bool] = {}

    def last(self, data: bytes | bytearray, at: int, low: int = 0) -> int:
        """The largest safe s <= at; `low` if there is none above it. The end of `data` is not safe, 0 is."""
        verdicts = self._verdicts
        s = min(at, len(data) - 1)
        while s > low:
            verdict = verdicts[data[s - 1] << 8 | data[s]]
            if verdict and (
                verdict == _SAFE
                or (verdict == _UNLESS_WIDE_SPACE and not data.endswith(_WIDE_SPACES, max(0, s - 3), s))
                or (verdict == _ASK and self._ask(data, s))
            ):
                return s
            s -= 1
        return min(low, at)

    @cached_property
    def _verdicts(self) -> bytes:
        """What is known from the bytes on both sides alone. 65536 entries, left byte first."""
        left, right = np.divmod(np.arange(65536), 256)
        starts = right & 0xC0 != 0x80  # a character starts here
        wide = (left >= 0x80) | (right >= 0x80)
        cut = starts
        if self._backend.splits:
            known = _WORD if self._backend.complete else {b[0] for b in self._table.ids if len(b) == 1} & _WORD
            cut = np.isin(left, list(known)) & ((right == 0x20) | np.isin(right, list(_BREAKS)))
            if self._backend.complete:
                cut |= (right == 0x20) & (left > 0x20)
                cut |= np.isin(left, list(_LETTERS)) & np.isin(right, list(_MARKS))
        verdicts = np.where(cut, _SAFE, _NEVER).astype(np.uint8)
        if self._backend.splits:
            verdicts[cut & (left >= 0x80)] = _UNLESS_WIDE_SPACE
        verdicts[adjacent_bytes(self._table.table).reshape(-1)] = _NEVER
        if self._backend.complete:
            inside = adjacent_bytes(self._wide[1]).reshape(-1)
            verdicts[wide & starts & ~inside & (verdicts == _NEVER)] = _ASK
        return bytes(verdicts)

    @cached_property
    def _wide(self) -> tuple[set[str], list[bytes]]:
        """Pairs of characters inside tokens, not both in ASCII; and the tokens that begin or end in a character."""
        pairs: set[str] = set()
        broken: list[bytes] = []
        for piece in self._table.table:
            if piece and not piece.isascii():
                try:
                    text = piece.decode()
                except UnicodeDecodeError:
                    broken.append(piece)
                else:
                    pairs.update(a + b for a, b in pairwise(text) if not (a + b).isascii())
        return pairs, broken

    def _ask(self, data: bytes | bytearray, s: int) -> bool:
        """Whether the characters around s may be cut apart."""
        start = s - 1
        while start > max(0, s - 4) and data[start] & 0xC0 == 0x80:
            start -= 1
        lead = data[s]
        end = s + (1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
        around = bytes(data[start:end])
        answer = self._answers.get(around)
        if answer is None:
            if len(self._answers) > 65536:
                self._answers.clear()
            answer = self._answers[around] = self._judge(around)
        return answer

    def _judge(self, around: bytes) -> bool:
        try:
            text = around.decode()
        except UnicodeDecodeError:
            return False
        if len(text) != 2 or text in self._wide[0]:
            return False
        if not self._backend.splits:
            return True
        return text[0].isalpha() and unicodedata.category(text[1]) in _PUNCTUATION and text[1] != "'"
