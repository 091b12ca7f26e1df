"""`anydraft inspect`: what to expect of a pair of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import EMBEDDED, load_decoder, stderr

if TYPE_CHECKING:
    from anydraft.checks.timing import Timing
    from anydraft.decoder import Decoder

PROMPTS = 3


def inspect(
    target: opt.Target = EMBEDDED,
    assistant: opt.Assistant = EMBEDDED,
    text: Annotated[
        Path | None, typer.Option("--text", help="A text to count the overlap on; default: prose and code, built in.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Time both and generate a little.")] = True,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    exact: opt.Exact = False,
    threads: opt.Threads = None,
    trust_remote_code: opt.TrustRemoteCode = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show how two vocabularies overlap, what the target can verify, memory, and the expected gain."""
    from anydraft.errors import OptionConflict

    try:
        probe = None if text is None else text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionConflict(f"cannot read --text {str(text)!r}: {problem}") from problem
    if assistant in ("none", "lookup"):
        raise OptionConflict(f"inspect compares two models, and {assistant!r} is none; name an assistant")
    decoder = load_decoder(
        target,
        assistant,
        dtype=dtype,
        device=device,
        exact=exact,
        threads=threads,
        trust_remote_code=trust_remote_code,
    )
    from anydraft.inspection import PROBE
    from anydraft.inspection import inspect as look

    timing = _measure(decoder) if measure else None
    found = look(decoder, text=PROBE if probe is None else probe, timing=timing)
    if json:
        print_json(found.to_dict())
    else:
        from anydraft.cli.inspect_table import show

        show(found)


def _measure(decoder: Decoder) -> Timing | None:
    """Time the pair under a progress bar."""
    from rich.progress import BarColumn, Progress, TextColumn

    from anydraft.checks.prompts import PROMPTS as TEXTS
    from anydraft.checks.timing import WIDTHS
    from anydraft.checks.timing import measure as timed

    result = None
    with Progress(TextColumn("measuring"), BarColumn(), console=stderr(), transient=True) as progress:
        task = progress.add_task("", total=PROMPTS + len(WIDTHS) + 1)
        for part in timed(decoder, TEXTS[:PROMPTS]):
            result = part
            progress.advance(task)
    return result
