"""The OpenMP that torch runs its threads with: a kernel shares them, for two pools would fight over the processor."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch


class OpenMP(NamedTuple):
    """Addresses of functions: fork and join, number of this thread, number of threads."""

    parallel: int
    thread: int
    threads: int


@cache
def of_torch() -> OpenMP | None:
    """The OpenMP that torch's calls go to; None where it cannot be told."""
    # Where the process itself finds the functions, torch does too, whatever was loaded before it (LD_PRELOAD).
    beside = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for place in (None, *map(str, beside[:1])):
        try:
            library = ctypes.CDLL(place)
            names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
            functions = [getattr(library, name) for name in names]
        except (OSError, TypeError, AttributeError):  # TypeError: Windows has no scope of the process
            continue
        return OpenMP(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions))
    return None
