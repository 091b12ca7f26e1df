"""Which of several processes this is, by what launchers (accelerate, torchrun) leave in the environment."""

from __future__ import annotations

import os

import torch


def is_main() -> bool:
    """Whether this process speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def own_device() -> str | None:
    """The GPU of one of several processes; None to leave the choice to the loader."""
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return None
