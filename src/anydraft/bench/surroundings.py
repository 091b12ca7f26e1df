"""What every contender of a measurement runs in: torch's threads, a precision, and no chatter from transformers."""

from __future__ import annotations

import torch
import transformers

from anydraft.errors import OptionConflict


def surround(dtype: str, threads: int) -> torch.dtype:
    """Set threads, silence transformers, and return the precision of that name.

    Raises:
        OptionConflict: torch knows no such precision.
    """
    precision = getattr(torch, dtype, None)
    if not isinstance(precision, torch.dtype):
        raise OptionConflict(f"{dtype!r} is no torch dtype; bfloat16 and float32 are")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    return precision
