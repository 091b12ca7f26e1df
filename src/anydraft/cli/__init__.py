"""The command line: `anydraft generate | chat | inspect | verify | demo`.

Nothing here imports torch before a command needs it, so that `anydraft --help` answers at once.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the `anydraft` program."""
    from anydraft.cli.app import app

    app(prog_name="anydraft")
