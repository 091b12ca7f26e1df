"""Files of a drafter: read from a folder or the hub, and written without half of one in place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from anydraft.errors import BrokenCheckpoint

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WRITING = ".writing-"


def read_config(name_or_path: str | os.PathLike[str], revision: str | None = None) -> dict[str, Any]:
    """Content of `config.json` in a folder or a hub repository.

    Raises:
        BrokenCheckpoint: it is missing or no JSON object.
    """
    path = Path(name_or_path)
    if path.is_dir():
        path = path / CONFIG
        if not path.is_file():
            raise BrokenCheckpoint(f"{name_or_path} has no {CONFIG}; give a folder written by save_pretrained")
    else:
        try:
            path = Path(hf_hub_download(str(name_or_path), CONFIG, revision=revision))
        except (OSError, HfHubHTTPError, HFValidationError) as problem:
            first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            raise BrokenCheckpoint(f"{name_or_path} is no folder, and no hub repository: {first}") from problem
    return read_object(path, "save or download it again")


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        BrokenCheckpoint: it cannot be read, or holds something else; with the remedy.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as problem:
        raise BrokenCheckpoint(f"{path} cannot be read ({problem}); {remedy}") from problem
    if not isinstance(content, dict):
        raise BrokenCheckpoint(f"{path} holds a {type(content).__name__} instead of an object; {remedy}")
    return content


def read_weights(name_or_path: str | os.PathLike[str], revision: str | None = None) -> dict[str, torch.Tensor]:
    """Content of `model.safetensors` in a folder or a hub repository that has a config.

    Raises:
        BrokenCheckpoint: it is missing or truncated.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = Path(snapshot_download(str(name_or_path), revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    path = folder / WEIGHTS
    if not path.is_file():
        raise BrokenCheckpoint(f"{name_or_path} has a {CONFIG} but no {WEIGHTS}; save or download it again")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as problem:
        raise BrokenCheckpoint(f"{path} cannot be read ({problem}); save or download it again") from problem
    return tensors


def write_whole(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files into a folder that nothing else writes to.

    All are written and flushed beside their places first, so that a full disk changes nothing. The move itself is
    atomic for one file only. Of several the last of `contents`, without which nothing reads the others, is taken away
    first and put in place last: an error in between restores the old files, a kill leaves a folder without it, which
    is refused. What earlier kills left is removed.

    Raises:
        OSError: one could not be written; the folder is as it was.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{WRITING}*"):
        shutil.rmtree(left, ignore_errors=True)
    waiting = Path(tempfile.mkdtemp(prefix=WRITING, dir=folder))
    try:
        for name, content in contents.items():
            with (waiting / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        old = [name for name in reversed(contents) if len(contents) > 1 and (folder / name).exists()]
        moved: list[str] = []
        placed: list[str] = []
        try:
            for name in old:
                (folder / name).replace(waiting / f"old-{name}")
                moved.append(name)
            for name in contents:
                (waiting / name).replace(folder / name)
                placed.append(name)
        except BaseException:
            for name in placed:
                (folder / name).unlink()
            for name in reversed(moved):
                (waiting / f"old-{name}").replace(folder / name)
            raise
    except BaseException:
        shutil.rmtree(waiting, ignore_errors=True)
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(waiting)
