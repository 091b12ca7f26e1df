"""A pause file: while it exists, the long loops sleep, so that others can measure on the same machine."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


def pause_while(path: Path | None, poll_seconds: float = 2.0) -> Callable[[], None]:
    """A function that returns at once, or sleeps for as long as the file exists."""

    def wait() -> None:
        if path is None or not path.exists():
            return
        log.info("paused: %s exists", path.name)
        while path.exists():
            time.sleep(poll_seconds)
        log.info("going on")

    return wait
