"""Where a training is, and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass
class TrainingProgress:
    """Where a training is; saved with it.

    Attributes:
        step: steps done.
        epoch, place: the next batch.
        tokens: tokens of answers learned from, over all processes.
        seconds: spent, over all sittings.
        loss: running mean per row.
        best: tokens per pass of the best estimate.
        waited: estimates since the best one.
        evaluated: estimates made.
        estimate: the newest one; its "covers" says what it leaves out, if anything.
        stopped: by early stop.
    """

    step: int = 0
    epoch: int = 0
    place: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    best: float | None = None
    waited: int = 0
    evaluated: int = 0
    estimate: dict[str, Any] | None = None
    stopped: bool = False


class Listener(Protocol):
    """Is told how it goes (a progress bar)."""

    def __call__(self, progress: TrainingProgress, share: float, speed: float) -> None:
        """After every step: share of the run that is done, tokens per second of this sitting."""
