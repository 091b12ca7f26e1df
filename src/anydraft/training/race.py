"""Race: which drafter answers a kind of batch fastest, found by taking turns on the first batches of the work itself.

All drafters give the same tokens, so nothing is lost by trying: drafting pays for few rows and for repetitive text,
plain decoding for many rows, and where the border lies depends on the machine and on the model.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from anydraft.decoder import Decoder

CLEAR = 1.25
"""One round decides if the fastest is ahead by this factor, else there are more."""
ROUNDS = 3


class Race:
    """Chooses a decoder for each batch.

    Args:
        decoders: same target, other drafters; one alone is always chosen.
    """

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self.decoders = list(decoders)
        self._runs: dict[Hashable, list[list[tuple[int, float]]]] = {}

    def choose(self, kind: Hashable) -> Decoder:
        """The decoder for the next batch of a kind: the one whose turn it is, or the winner."""
        runs = self._kind(kind)
        winner = self.winner(kind)
        if winner is not None:
            return winner
        return self.decoders[min(range(len(runs)), key=lambda i: len(runs[i]))]

    def record(self, kind: Hashable, decoder: Decoder, tokens: int, seconds: float) -> None:
        """Take note of a batch."""
        self._kind(kind)[self.decoders.index(decoder)].append((tokens, seconds))

    def winner(self, kind: Hashable) -> Decoder | None:
        """The fastest for a kind; None while it is not known."""
        if len(self.decoders) == 1:
            return self.decoders[0]
        runs = self._kind(kind)
        rounds = min(len(run) for run in runs)
        if rounds == 0:
            return None
        speeds = [sum(t for t, _ in run[:rounds]) / max(sum(s for _, s in run[:rounds]), 1e-9) for run in runs]
        order = sorted(range(len(runs)), key=lambda i: -speeds[i])
        if rounds < ROUNDS and speeds[order[0]] < CLEAR * speeds[order[1]]:
            return None
        return self.decoders[order[0]]

    def _kind(self, kind: Hashable) -> list[list[tuple[int, float]]]:
        return self._runs.setdefault(kind, [[] for _ in self.decoders])
