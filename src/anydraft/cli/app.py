"""The typer app: which commands there are, and how they end.

Exit status 0: done. 1: a promise was found broken (`verify`, `demo`). 2: bad input, told in one paragraph on
stderr (`--debug` shows the traceback). 130: interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from anydraft.cli.bench import bench
from anydraft.cli.chat import chat
from anydraft.cli.demo import demo
from anydraft.cli.distill import distill
from anydraft.cli.generate import generate
from anydraft.cli.inspect import inspect
from anydraft.cli.recommend import recommend
from anydraft.cli.train import train
from anydraft.cli.verify import verify
from anydraft.errors import AnydraftError

BAD_INPUT = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """Turns what a command raises into an exit status and, for bad input, a paragraph."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stdout.flush()
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe has seen enough
            raise
        except (ValueError, OSError, ImportError, RuntimeError) as problem:
            debug = bool((ctx.find_root().obj or {}).get("debug"))
            if debug or not _is_input(problem):
                raise
            typer.secho("error: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
            words = " ".join(str(problem).split()) or type(problem).__name__
            typer.echo(words if isinstance(problem, AnydraftError) else f"{words} (--debug shows where)", err=True)
            raise typer.Exit(BAD_INPUT) from problem


def _is_input(problem: Exception) -> bool:
    """Whether a user can do something about it; other RuntimeErrors are bugs and keep their traceback."""
    if isinstance(problem, RuntimeError):
        return "out of memory" in str(problem) or "device" in str(problem).lower()
    return True


app = typer.Typer(
    cls=Commands,
    help="Speculative decoding that never changes a token: any model drafts for any other.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, chat, inspect, verify, demo, bench, recommend, distill, train):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from anydraft import __version__

        typer.echo(f"anydraft {__version__}")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Speculative decoding that never changes a token: any model drafts for any other."""
    ctx.ensure_object(dict)
