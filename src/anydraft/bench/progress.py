"""How long a measurement will still take: what every contender took so far, times what it has left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from anydraft.bench.measure import Record

Kind = tuple[str, int]
"""Contender and batch size."""


class TimeLeft:
    """Seconds left.

    Args:
        planned: runs to do by contender and batch size.
    """

    def __init__(self, planned: Mapping[Kind, int]) -> None:
        self.left = dict(planned)
        self._seconds: dict[Kind, list[float]] = {}

    def done(self, kind: Kind, seconds: float) -> None:
        """One run took so long."""
        self.left[kind] = self.left.get(kind, 1) - 1
        self._seconds.setdefault(kind, []).append(seconds)

    @property
    def seconds(self) -> float | None:
        """All that is left; None before anything was done. What has not run yet counts like the mean of its batch."""
        if not self._seconds:
            return None
        means = {kind: sum(taken) / len(taken) for kind, taken in self._seconds.items()}
        total = 0.0
        for (name, batch), count in self.left.items():
            alike = [mean for (_, other), mean in means.items() if other == batch] or list(means.values())
            total += max(0, count) * means.get((name, batch), sum(alike) / len(alike))
        return total


class Bar:
    """A progress bar over all runs, with the time left; where there is no terminal, a line every minute."""

    EVERY = 60.0

    def __init__(self, console: Console, planned: Mapping[Kind, int], clock: Callable[[], float]) -> None:
        self._left = TimeLeft(planned)
        self._console = console
        self._clock = clock
        self._since = self._said = clock()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            refresh_per_second=2,  # drawing takes time from what is measured
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("warming up", total=sum(planned.values()), left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, prompt_id: str, contender: str) -> None:
        """A run begins."""
        self._since = self._clock()
        self._bar.update(self._task, description=f"{contender} on {prompt_id}"[:60])

    def done(self, record: Record) -> None:
        """A run ended."""
        now = self._clock()
        self._left.done((record.contender, record.task.batch), now - self._since)
        left = told(self._left.seconds)
        self._bar.update(self._task, advance=1, left=left)
        if not self._console.is_terminal and now - self._said >= self.EVERY:
            self._said = now
            done = self._bar.tasks[0]
            self._console.print(f"{done.completed:.0f} of {done.total:.0f} runs, {left}", markup=False)


def told(seconds: float | None) -> str:
    """`3 min left`; seconds below two minutes."""
    if seconds is None:
        return ""
    return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"
