"""A training's state on disk: written whole or not at all, and taken up only by the same training."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from anydraft.errors import BrokenCheckpoint, OptionConflict
from anydraft.networks.files import read_object, write_whole
from anydraft.networks.identity import TargetIdentity
from anydraft.training.settings import differences

STATE = "state.pt"
RUN = "run.json"
DONE = "training.json"
TARGET = "target"
ANEW = "remove it to start anew"


class Checkpoints:
    """The folder of a training.

    Args:
        out: where the trained network goes; the state lies in `checkpoint` below.
        run: description of the training (settings, data, network; its "target" is a `TargetIdentity` as JSON); another
            one's state is refused.
    """

    def __init__(self, out: Path, run: dict[str, Any]) -> None:
        self.out, self.run = out, json.loads(json.dumps(run))
        self.folder = out / "checkpoint"

    def finished(self) -> dict[str, Any] | None:
        """What the finished training in this folder noted; None if it is not finished.

        Raises:
            OptionConflict: the folder is another training's, and what differs.
        """
        if (self.folder / RUN).is_file():
            self._same(read_object(self.folder / RUN, ANEW))
        if not (self.out / DONE).is_file():
            return None
        content = read_object(self.out / DONE, ANEW)
        self._same(content.get("run", {}))
        return content

    def save(self, state: dict[str, Any]) -> None:
        """Write the state beside its place and move it there; a kill at any moment leaves the old one or the new one.

        Raises:
            OSError: it could not be written; the old one is intact.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / RUN).is_file():
            write_whole(self.folder, {RUN: _json(self.run)})
        partial = self.folder / f"{STATE}.partial"
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / STATE)
        except (OSError, RuntimeError) as problem:
            partial.unlink(missing_ok=True)
            # torch wraps what the file said.
            cause = problem if isinstance(problem, OSError) else OSError(f"{problem}")
            raise OSError(
                f"the checkpoint in {self.folder} could not be written, the one before is intact: {cause}; "
                "make room and run the same command again"
            ) from problem

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state; None at the beginning.

        Raises:
            BrokenCheckpoint: it cannot be read.
        """
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location=device, weights_only=True)  # type: ignore[no-any-return]
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as problem:
            raise BrokenCheckpoint(
                f"{path} cannot be read ({problem}); remove {self.folder} to start anew"
            ) from problem

    def finish(self, note: dict[str, Any]) -> None:
        """Note that the training is done, and remove its state."""
        write_whole(self.out, {DONE: _json({**note, "run": self.run})})
        shutil.rmtree(self.folder, ignore_errors=True)

    def _same(self, theirs: dict[str, Any]) -> None:
        found = differences({**self.run, TARGET: None}, {**theirs, TARGET: None})
        if not _same_target(self.run.get(TARGET), theirs.get(TARGET)):
            found += differences({TARGET: self.run.get(TARGET)}, {TARGET: theirs.get(TARGET)})
        if found:
            raise OptionConflict(
                f"{self.out} holds another training: {'; '.join(found)}. Give the same options to go on with it, or "
                "another --out"
            )


def _same_target(mine: Any, theirs: Any) -> bool:
    """Whether two targets, as JSON, may be one; those of which nothing can be read are if they are equal."""
    try:
        return TargetIdentity.from_dict(mine).same_as(TargetIdentity.from_dict(theirs))
    except TypeError:
        return bool(mine == theirs)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
