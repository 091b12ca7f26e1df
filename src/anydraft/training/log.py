"""What a training writes down as it goes: JSON lines, and TensorBoard's events where wanted."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from anydraft.errors import OptionConflict

Format = Literal["jsonl", "tensorboard"]
FILE = "log.jsonl"


class Log(Protocol):
    """Takes a record per event: step, and numbers by name."""

    def write(self, record: dict[str, Any]) -> None:
        """Write one record."""

    def close(self) -> None:
        """Nothing more comes."""


class JsonLines:
    """One JSON object a line in `log.jsonl`.

    Args:
        out: the training's folder.
        step: from where it goes on; later lines, of a run that was killed after its checkpoint, are dropped.
    """

    def __init__(self, out: Path, step: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / FILE
        kept = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # torn by a kill
                if step and record.get("step", 0) <= step:
                    kept.append(line + "\n")
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(self.path)

    def write(self, record: dict[str, Any]) -> None:
        """Append a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoard:
    """Scalars for TensorBoard, in the training's folder."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def write(self, record: dict[str, Any]) -> None:
        """Every number of the record under its name; of lists every entry."""
        for name, value in record.items():
            values = enumerate(value, 1) if isinstance(value, list) else [(None, value)]
            for number, one in values:
                if isinstance(one, int | float) and name != "step" and math.isfinite(one):
                    tag = name if number is None else f"{name}/{number}"
                    self.writer.add_scalar(tag, one, record["step"])

    def close(self) -> None:
        """Write what is held back."""
        self.writer.close()


def open_log(kind: Format, out: Path, step: int) -> Log:
    """The log of a kind; see `check_log`."""
    check_log(kind)
    return JsonLines(out, step) if kind == "jsonl" else TensorBoard(out, step)


def check_log(kind: Format) -> None:
    """Whether there can be such a log, before anything costs time.

    Raises:
        OptionConflict: there is no such kind, or it is not installed.
    """
    if kind not in ("jsonl", "tensorboard"):
        raise OptionConflict(f"log is 'jsonl' or 'tensorboard', got {kind!r}")
    if kind == "tensorboard" and find_spec("tensorboard") is None:
        raise OptionConflict(
            "--log tensorboard needs the tensorboard package: pip install tensorboard, or choose --log jsonl"
        )
