"""What a person sees while `anydraft train` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anydraft.cli.loading import stderr

if TYPE_CHECKING:
    from anydraft.training.progress import TrainingProgress


def covers(estimate: dict[str, Any]) -> str:
    """What an estimate leaves out, in brackets."""
    return f" ({estimate['covers']})" if "covers" in estimate else ""


class TrainingBar:
    """Progress, loss and the newest estimate while a training runs."""

    def __init__(self, shown: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=stderr(),
            transient=True,
            disable=not shown,
        )
        self.task = self.progress.add_task("reading the data", total=None)

    def __enter__(self) -> TrainingBar:
        self.progress.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        self.progress.stop()

    def prepare(self, done: int, total: int) -> None:
        """While hidden states are computed."""
        self.progress.update(self.task, description="the target's hidden states", total=total, completed=done)

    def __call__(self, progress: TrainingProgress, share: float, speed: float) -> None:
        """After every step."""
        found = progress.estimate
        said = f"  {found['tokens_per_pass']:.2f} tokens/pass{covers(found)}" if found else ""
        words = f"step {progress.step}  loss {progress.loss:.3f}  {speed:,.0f} tokens/s{said}"
        self.progress.update(self.task, description=words, total=1.0, completed=share)
