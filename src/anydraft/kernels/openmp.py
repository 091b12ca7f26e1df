"""The OpenMP that torch runs its threads with: a kernel shares them, for two pools would fight over the processor."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

NAMES = ("libgomp", "libiomp5", "libomp")


class OpenMP(NamedTuple):
    """Addresses of functions: fork and join, number of this thread, number of threads."""

    parallel: int
    thread: int
    threads: int


@cache
def of_torch() -> OpenMP | None:
    """The OpenMP that torch is linked with; None where it cannot be told."""
    place = _place()
    if place is None:
        return None
    try:
        library = ctypes.CDLL(place)
        functions = [getattr(library, name) for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")]
    except (OSError, AttributeError):
        return None
    return OpenMP(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions))


def _place() -> str | None:
    """The file: the one beside torch, else the only one that is loaded."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None  # not Linux
    lines = (line.split(maxsplit=5) for line in maps.splitlines())
    loaded = {fields[5] for fields in lines if len(fields) == 6 and Path(fields[5]).name.startswith(NAMES)}
    beside = [name for name in loaded if Path(name).is_relative_to(Path(torch.__file__).resolve().parent)]
    found = beside or sorted(loaded)
    return found[0] if len(found) == 1 else None
