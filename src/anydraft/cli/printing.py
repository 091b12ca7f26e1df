"""Answers on a terminal: text as it comes, coloured by who proposed it, and a line of figures.

A character whose bytes come from several tokens is written when it is complete, in the colour of the last one.
On a terminal, control characters that a model wrote are shown, not obeyed.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from anydraft.stats import Stats
from anydraft.text.stream import TextStream
from anydraft.text.token_bytes import TokenBytes

if TYPE_CHECKING:
    from anydraft.decoder import Decoder
    from anydraft.generation import Step

DRAFTED, RESET = "\x1b[32m", "\x1b[0m"
SHOWN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


class Printer:
    """Writes the steps of one answer to standard output.

    Args:
        decoder: whose tokens they are.
        color: mark what the drafter proposed.
    """

    def __init__(self, decoder: Decoder, *, color: bool = False) -> None:
        self._stream = TextStream(TokenBytes.of(decoder.tokenizer).bytes_of)
        self._color = color

    def step(self, step: Step) -> None:
        """Write what is new."""
        for token, proposer in zip(step.tokens, step.proposers, strict=True):
            self._write(self._stream.push([token]), drafted=proposer != "target")
        if step.finish_reason is not None:
            self._write(self._stream.finish(), drafted=False)
        sys.stdout.flush()

    def _write(self, text: str, *, drafted: bool) -> None:
        text = visible(text)
        if text and self._color and drafted:
            text = DRAFTED + text + RESET
        sys.stdout.write(text)


def visible(text: str) -> str:
    """Text that is safe on a terminal; for a file or pipe it stays as it is."""
    return text.translate(SHOWN) if sys.stdout.isatty() else text


class Tally:
    """Figures of what was streamed.

    Attributes:
        stats: counters of all steps; of the times only the total is known.
    """

    def __init__(self) -> None:
        self.stats = Stats()
        self._started = time.perf_counter()

    def step(self, step: Step) -> None:
        """Count one step."""
        self.stats.record(len(step.tokens), len(step.draft), step.draft.depth, len(step.accepted))
        self.stats.seconds_total = time.perf_counter() - self._started
        if step.generation is not None and step.generation.stats.pacing is not None:
            theirs = step.generation.stats.pacing
            self.stats.pacing = theirs if self.stats.pacing is None else self.stats.pacing + theirs

    def line(self, seed: int | None = None) -> str:
        """`64 tokens in 20 passes, 3.20 per pass, acceptance 61 %, 45.2 tokens/s, seed 7`."""
        return figures(self.stats, seed)


def figures(stats: Stats, seed: int | None = None) -> str:
    """The figures of an answer in one line; in a second one who drafted, and why, where that was decided."""
    parts = [
        f"{stats.num_tokens} tokens in {stats.num_passes} passes",
        f"{stats.tokens_per_pass:.2f} per pass",
        f"acceptance {stats.acceptance_rate:.0%}" if stats.num_draft_tokens else "nothing drafted",
        f"{stats.tokens_per_second:.1f} tokens/s",
    ]
    line = ", ".join(parts if seed is None else [*parts, f"seed {seed}"])
    return line if stats.pacing is None else f"{line}\ndrafting: {stats.pacing}"
