"""Several processes: which one this is (by what accelerate and torchrun leave in the environment), and what all share.

Random numbers belong to seed, step and process, so that a step can be done again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from accelerate import Accelerator


def is_main() -> bool:
    """Whether this process speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def number() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device() -> str | None:
    """The GPU of one of several processes; None to leave the choice to the loader."""
    if "LOCAL_RANK" in os.environ and number() > 1 and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return None


@contextlib.contextmanager
def seeded(words: Sequence[int], device: torch.device) -> Iterator[None]:
    """Random numbers that depend on some numbers alone; the caller's own are left as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = np.random.SeedSequence(words).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> 1))
        yield


def agreed(accelerator: Accelerator, device: torch.device, seconds: float, asked: bool) -> tuple[float, bool]:
    """The main process's clock, and whether anyone was interrupted: all must stop at the same step."""
    if accelerator.num_processes == 1:
        return seconds, asked
    mine = [seconds if accelerator.is_main_process else 0.0, float(asked)]
    found = accelerator.reduce(torch.tensor(mine, dtype=torch.float64, device=device), "sum")
    return float(found[0]), bool(found[1] > 0)
