"""Shards: a folder of JSON lines that grows by whole lines and survives a kill at any moment.

Lines go to `shard-00000.jsonl.partial`, flushed to disk call by call; a full shard loses the `.partial` by one rename.
On opening, a torn last line is cut off. What is on disk is therefore always whole, in the order of writing, and knows
by the ids in it what is still to be done. One process writes at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from anydraft.errors import OptionConflict

PARTIAL = ".partial"
Record = dict[str, Any]


def shard_paths(folder: Path) -> list[Path]:
    """Shards of a folder in order, the one being written last."""
    return sorted(folder.glob("shard-*.jsonl")) + sorted(folder.glob(f"shard-*.jsonl{PARTIAL}"))


def read_shard(path: Path, check: Callable[[Any], str | None]) -> Iterator[tuple[Record, int]]:
    """Records of a shard, each with the number of the byte behind it; a broken last line of a partial one is left out.

    Raises:
        OptionConflict: a line that is no JSON or fails `check`, named with file and number.
    """
    at = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            wrong = check(record)
        except ValueError as problem:
            record, wrong = None, f"no JSON: {problem}"
        if wrong is None and not line.endswith(b"\n"):
            wrong = "cut short"
        if wrong is not None:
            if path.suffix == PARTIAL and number == len(lines):
                return
            raise OptionConflict(
                f"line {number} of {path} is broken ({wrong}); remove the line, or the file and distil again"
            )
        at += len(line)
        yield record, at


class Shards:
    """The folder, open for appending; a context manager.

    Args:
        folder: made if missing.
        size: records per shard.
        check: says what is wrong with a record that was read, None for nothing.

    Raises:
        OptionConflict: another process is writing there, or a finished shard has a broken line.
    """

    def __init__(self, folder: Path, size: int, check: Callable[[Any], str | None]) -> None:
        if size < 1:
            raise OptionConflict(f"shard_size must be >= 1, got {size}")
        self.folder = folder
        self.size = size
        self.records = 0
        self.known: dict[str, Record] = {}
        """Ids on disk, each with a summary of its record."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = -1
        self._lock = locked(folder)
        try:
            self._recover(check)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def append(self, records: Sequence[Record]) -> None:
        """Write records, on disk when this returns.

        Raises:
            OSError: the disk is full or gone; what was written before is whole, and so is the folder.
        """
        waiting = list(records)
        while waiting:
            now, waiting = waiting[: self.size - self.records], waiting[self.size - self.records :]
            self._write(now)
            if self.records == self.size:
                self.finish()

    def finish(self) -> None:
        """Close the shard being written, if it holds anything."""
        if self.records == 0:
            return
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._partial.rename(self._partial.with_suffix(""))
        self._sync_folder()
        self._index += 1
        self.records = 0

    def close(self) -> None:
        """Let go of the files; the shard being written stays partial."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    @property
    def _partial(self) -> Path:
        return self.folder / f"shard-{self._index:05d}.jsonl{PARTIAL}"

    def _write(self, records: Sequence[Record]) -> None:
        content = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records).encode()
        whole = None
        try:
            if self._file < 0:
                self._file = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            whole = os.fstat(self._file).st_size
            while content:
                content = content[os.write(self._file, content) :]
            os.fsync(self._file)
        except BaseException as problem:
            if whole is not None:
                os.ftruncate(self._file, whole)
            if isinstance(problem, OSError):
                raise OSError(
                    problem.errno,
                    f"{problem.strerror}: {len(self.known)} answers are safe in {self.folder}; make room, then run the "
                    "same command again to go on",
                ) from problem
            raise
        self.records += len(records)
        self.known.update((record["id"], _summary(record)) for record in records)

    def _recover(self, check: Callable[[Any], str | None]) -> None:
        """Read what is there; cut the partial shard behind its last whole line."""
        paths = shard_paths(self.folder)
        self._index = len([path for path in paths if path.suffix != PARTIAL])
        for path in paths:
            end = 0
            for record, behind in read_shard(path, check):
                end = behind
                self.known[record["id"]] = _summary(record)
                self.records += path.suffix == PARTIAL
            if path.suffix == PARTIAL:
                if path != self._partial:
                    raise OptionConflict(
                        f"{path} is not the next shard of its folder: shards before it are missing; restore them, or "
                        "give another folder"
                    )
                if end < path.stat().st_size:
                    os.truncate(path, end)
        if self.records >= self.size:
            self.finish()

    def _sync_folder(self) -> None:
        if os.name == "posix":
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _summary(record: Record) -> Record:
    """What is kept of a record in memory."""
    kept = {key: value for key, value in record.items() if key not in ("id", "prompt", "answer", "seed")}
    return kept | {"tokens": len(record["answer"])}


def locked(folder: Path) -> int:
    """A descriptor that holds the folder for this process; -1 where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return -1
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        os.close(descriptor)
        raise OptionConflict(
            f"another process is writing into {folder}; wait for it, or give another folder"
        ) from problem
    except OSError:  # a file system without locks
        pass
    return descriptor
