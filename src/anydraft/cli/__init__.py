"""The command line: `anydraft generate | chat | inspect | verify | demo`.

Nothing here imports torch before a command needs it, so that `anydraft --help` answers at once.
"""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the `anydraft` program."""
    from anydraft.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode shows ? and does not fail
            stream.reconfigure(errors="replace")
    app(prog_name="anydraft")
