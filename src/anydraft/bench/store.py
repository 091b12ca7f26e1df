"""The folder of a measurement: `settings.json`, and `runs.jsonl`, which grows by a line with every run.

A prompt counts only when all contenders finished it one after the other in one process, because speed-ups are ratios
of neighbours in time. So what an interrupted process left of a prompt is dropped when the next one begins, and that
prompt is measured anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from anydraft.bench.measure import Record
from anydraft.bench.settings import Settings
from anydraft.errors import OptionConflict
from anydraft.training.shards import locked

RUNS, SETTINGS = "runs.jsonl", "settings.json"


class RunStore:
    """Records on disk; every one is safe there when `append` returns.

    Args:
        folder: made if it is not there.
        settings: of this measurement; a folder with others is refused.
        contenders: names by batch size, all of which a prompt needs to count.
        fresh: drop what the folder has.

    Attributes:
        records: complete prompts of earlier processes, and all records of this one.

    Raises:
        OptionConflict: the folder has runs of other settings, or runs that cannot be read, or another process writes
            there.
    """

    def __init__(
        self, folder: Path, settings: Settings, contenders: Mapping[int, Collection[str]], *, fresh: bool = False
    ) -> None:
        self.folder = folder
        self.contenders = {batch: set(names) for batch, names in contenders.items()}
        self.records: list[Record] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise OptionConflict(
                f"cannot write to {str(folder)!r}: {problem}; give another folder as --out"
            ) from problem
        self._lock = locked(folder)
        self._file: IO[str] | None = None
        try:
            if not fresh:
                self._require(settings)
                self.records = complete(read_runs(folder / RUNS), self.contenders)
            self.resumed = len(self.records)
            write_whole(folder / SETTINGS, json.dumps(settings.to_dict(), indent=2) + "\n")
            write_whole(folder / RUNS, "".join(_line(record) for record in self.records))
            self._file = (folder / RUNS).open("a", encoding="utf-8")
        except BaseException:
            self.close()
            raise

    def append(self, record: Record) -> None:
        """Write one, down to the disk."""
        if self._file is None:
            raise ValueError(f"the store in {self.folder} is closed")
        self.records.append(record)
        self._file.write(_line(record))
        self._file.flush()
        os.fsync(self._file.fileno())

    def done(self, batch: int) -> set[tuple[float, str]]:
        """Temperature and prompt id of what is complete at this batch size."""
        return {
            (record.task.temperature, record.prompt_id)
            for record in complete(self.records, self.contenders)
            if record.task.batch == batch
        }

    def complete(self) -> list[Record]:
        """Records of the prompts that all contenders finished."""
        return complete(self.records, self.contenders)

    def close(self) -> None:
        """Close the file and let others write."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _require(self, settings: Settings) -> None:
        path = self.folder / SETTINGS
        if not (self.folder / RUNS).is_file():
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            differences = settings.differences(known)
        except (OSError, ValueError, AttributeError) as problem:
            raise OptionConflict(
                f"{str(self.folder)!r} has runs but no {SETTINGS} that can be read ({problem}); give another --out, "
                "or --fresh to measure anew there"
            ) from problem
        if differences:
            raise OptionConflict(
                f"{str(self.folder)!r} has runs of another measurement ({'; '.join(differences)}); give another --out, "
                "the same options as there to go on, or --fresh to measure anew there"
            )


def read_runs(path: Path) -> list[Record]:
    """The records of a file; a last line that was torn off is left out, and no file has none.

    Raises:
        OptionConflict: any other line that is no record.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.from_dict(json.loads(line)))
        except (ValueError, KeyError, TypeError) as problem:
            if number == len(lines):  # a whole line ends with a line break, so something follows it
                break
            raise OptionConflict(f"{path} line {number} is no run of anydraft bench: {line[:60]!r}") from problem
    return records


def complete(records: Iterable[Record], contenders: Mapping[int, Collection[str]]) -> list[Record]:
    """Records of prompts that every contender of that batch size has one of."""
    groups: dict[tuple[int, float, str], dict[str, Record]] = {}
    for record in records:
        key = (record.task.batch, record.task.temperature, record.prompt_id)
        groups.setdefault(key, {})[record.contender] = record
    return [
        record
        for (batch, *_), group in groups.items()
        if set(contenders.get(batch, ())) == group.keys()
        for record in group.values()
    ]


def write_whole(path: Path, content: str) -> None:
    """Replace a file at once: a reader, or a crash, finds the old content or the new."""
    made = path.with_name(path.name + ".new")
    with made.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)


def _line(record: Record) -> str:
    content: dict[str, Any] = record.to_dict()
    return json.dumps(content) + "\n"
