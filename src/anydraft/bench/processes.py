"""Parts of a measurement in processes of their own, one after another.

Where memory lies and what a process has loaded stay as they are for as long as it lives. So two contenders that do the
same can differ by some percent in all prompts of one process, and the other way round in the next. Prompts that are
dealt to several processes average over that, too.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any


def dealt(places: range, count: int) -> list[range]:
    """Places in so many runs of about the same length, in order; fewer where there are not so many."""
    if count < 1:
        raise ValueError(f"need at least 1 process, got {count}")
    count = min(count, len(places))
    bounds = [len(places) * i // count for i in range(count + 1)]
    return [places[start:stop] for start, stop in pairwise(bounds)]


def one_after_another(work: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> bool:
    """Do each call in a new Python process, which imports what it needs anew; Ctrl-C lets the one at hand end.

    Args:
        work: a function of a module, so that the process can find it; on Ctrl-C it returns early with what it has.
        calls: its arguments, which can be pickled.

    Returns:
        whether all were made.

    Raises:
        RuntimeError: a process ended with an error, which it has shown. Later calls are not made.
    """
    context = multiprocessing.get_context("spawn")
    for number, arguments in enumerate(calls, start=1):
        process = context.Process(target=work, args=arguments)
        process.start()
        interrupted = _joined(process)
        if process.exitcode and not interrupted:
            raise RuntimeError(f"process {number} of {len(calls)} ended with status {process.exitcode}")
        if interrupted:
            return False
    return True


def _joined(process: Any) -> bool:
    """Wait for a process; whether there was a Ctrl-C, which the terminal gives to both."""
    interrupted = False
    while process.is_alive():
        try:
            process.join()
        except KeyboardInterrupt:
            interrupted = True
    return interrupted
