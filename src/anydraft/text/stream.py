"""From tokens to text as they arrive: never half a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Turns tokens into text incrementally.

    Args:
        bytes_of: bytes of a token id (None = a special token without text).
    """

    def __init__(self, bytes_of: Callable[[int], bytes | None]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, tokens: Sequence[int]) -> str:
        """Text that is complete with these tokens; an unfinished character is held back."""
        return "".join(self._decoder.decode(self._bytes_of(token) or b"") for token in tokens)

    def finish(self) -> str:
        """What is left: an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Finds the token with which a stop string is complete, as plain decoding token by token would."""

    def __init__(self, stops: Sequence[str], bytes_of: Callable[[int], bytes | None]) -> None:
        self._stops = [stop.encode() for stop in stops]
        self._bytes_of = bytes_of
        self._tail = b""
        self._keep = max(len(stop) for stop in self._stops) - 1

    def push(self, token: int) -> bool:
        """Whether the text contains a stop string once this token is appended."""
        self._tail += self._bytes_of(token) or b""
        found = any(stop in self._tail for stop in self._stops)
        self._tail = self._tail[-self._keep :] if self._keep else b""
        return found
