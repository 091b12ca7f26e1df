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
PATIENCE, FAR_BEHIND = 0.3, 0.7
"""Whoever is at less than FAR_BEHIND of the best speed after PATIENCE of the best time for a batch is out."""


class Race:
    """Chooses a decoder for each batch.

    Args:
        decoders: same target, other drafters; one alone is always chosen.
    """

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self.decoders = list(decoders)
        self._runs: dict[Hashable, dict[int, list[tuple[int, float]]]] = {}

    def choose(self, kind: Hashable) -> Decoder:
        """The decoder for the next batch of a kind: the one whose turn it is, or the winner."""
        runs = self._kind(kind)
        winner = self.winner(kind)
        if winner is not None:
            return winner
        return self.decoders[min(runs, key=lambda i: len(runs[i]))]

    def record(self, kind: Hashable, decoder: Decoder, tokens: int, seconds: float) -> None:
        """Take note of a batch."""
        runs = self._kind(kind)
        if (number := self.decoders.index(decoder)) in runs:
            runs[number].append((tokens, seconds))

    def far_behind(self, kind: Hashable, decoder: Decoder, tokens: int, seconds: float) -> bool:
        """Whether a batch under way is hopelessly slow, so that another should answer it; its decoder is then out."""
        runs = self._kind(kind)
        if self.winner(kind) is not None:
            return False
        done = [run[0] for run in runs.values() if run]
        if not done:
            return False
        best_tokens, best_seconds = max(done, key=lambda run: run[0] / run[1])
        if seconds < PATIENCE * best_seconds or tokens / seconds > FAR_BEHIND * best_tokens / best_seconds:
            return False
        del runs[self.decoders.index(decoder)]
        return True

    def winner(self, kind: Hashable) -> Decoder | None:
        """The fastest for a kind; None while it is not known."""
        runs = self._kind(kind)
        if len(runs) == 1:
            return self.decoders[next(iter(runs))]
        rounds = min(len(run) for run in runs.values())
        if rounds == 0:
            return None
        speeds = {i: sum(t for t, _ in run[:rounds]) / sum(s for _, s in run[:rounds]) for i, run in runs.items()}
        best, second, *_ = sorted(speeds, key=lambda i: -speeds[i])
        if rounds < ROUNDS and speeds[best] < CLEAR * speeds[second]:
            return None
        return self.decoders[best]

    def _kind(self, kind: Hashable) -> dict[int, list[tuple[int, float]]]:
        """Tokens and seconds of the batches of a kind, for each decoder that is still in."""
        return self._runs.setdefault(kind, {i: [] for i in range(len(self.decoders))})
