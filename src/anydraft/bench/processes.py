"""Parts of a measurement in processes of their own, one after another.

Where memory lies and what a process has loaded stay as they are for as long as it lives. So two contenders that do the
same can differ by some percent in all prompts of one process, and the other way round in the next. Prompts that are
dealt to several processes average over that, too.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.process import BaseProcess
from typing import Any


def dealt(places: range, count: int) -> list[range]:
    """Places in so many runs of about the same length, in order; fewer where there are not so many.

    Raises:
        ValueError: the count is below 1.
    """
    if count < 1:
        raise ValueError(f"need at least 1 process, got {count}")
    count = min(count, len(places))
    bounds = [len(places) * i // max(count, 1) for i in range(count + 1)]
    return [places[start:stop] for start, stop in pairwise(bounds)]


class ProcessBroke(RuntimeError):
    """A process ended with an error."""


def one_after_another(work: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
    """Make each call in a new Python process, which imports what it needs anew.

    Ctrl-C, which a terminal gives to both, lets the process at hand end and begins no other; a second one stops it.

    Args:
        work: a function of a module, so that the process can find it; on Ctrl-C it returns early with what it has.
        calls: its arguments, which can be pickled.

    Raises:
        ProcessBroke: a process ended with an error. Later calls are not made.
        KeyboardInterrupt: it was pressed twice, or before the work could return early.
    """
    context = multiprocessing.get_context("spawn")
    for number, arguments in enumerate(calls, start=1):
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        try:
            process.join()
        except KeyboardInterrupt:
            _join_or_stop(process)
            if process.exitcode:
                raise
            return
        if process.exitcode:
            raise ProcessBroke(f"process {number} of {len(calls)} ended with {_status(process.exitcode)}")


def _join_or_stop(process: BaseProcess) -> None:
    try:
        process.join()
    except KeyboardInterrupt:
        process.terminate()
        process.join()


def _status(code: int) -> str:
    return f"status {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
