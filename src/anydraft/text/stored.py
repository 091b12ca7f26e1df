"""Arrays that are slow to compute, kept on disk under a hash of what they were computed from.

Guarantees: a file is written whole or not at all; a damaged, foreign or outdated file is computed anew; a
folder that cannot be written costs time, never an error. Folder: `$ANYDRAFT_CACHE`, else `~/.cache/anydraft`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int32]
VERSION = 1  # of what is stored; raise it when the computation changes


def cache_root() -> Path:
    """Folder for everything that anydraft keeps between runs."""
    root = os.environ.get("ANYDRAFT_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "anydraft"


def stored(
    kind: str,
    inputs: tuple[str, ...],
    build: Callable[[], Mapping[str, Ints]],
    check: Callable[[Mapping[str, Ints]], bool],
    folder: Path | None = None,
) -> dict[str, Ints]:
    """The arrays of `build()`, from disk if they are there.

    Args:
        kind: names the computation.
        inputs: digests of everything it depends on.
        build: computes int32 arrays by name.
        check: whether arrays have the right shapes and values.
        folder: where the file lies; by default `vocabulary` under `cache_root()`.
    """
    key = hashlib.sha256("\n".join([kind, str(VERSION), *inputs]).encode()).hexdigest()
    try:
        path = (folder or cache_root() / "vocabulary") / f"{kind}-{key[:32]}.npz"
    except RuntimeError:  # no home directory
        return dict(build())
    arrays = _read(path, key)
    if arrays is not None and check(arrays):
        return arrays
    arrays = dict(build())
    _write(path, key, arrays)
    return arrays


def _read(path: Path, key: str) -> dict[str, Ints] | None:
    """Arrays of one file; None if there is none, or it is damaged or another's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        if str(arrays.pop("key")) != key or any(a.dtype != np.int32 for a in arrays.values()):
            raise ValueError("made from other inputs")
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged archive raises almost anything
        logger.warning("cannot use %s (%s); computing it anew", path, error)
        return None
    return arrays


def _write(path: Path, key: str, arrays: Mapping[str, Ints]) -> None:
    """Write one file under a temporary name, then give it its own."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, key=np.array(key), **dict(arrays))  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        logger.info("cannot keep %s (%s)", path, error)
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
