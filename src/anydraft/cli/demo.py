"""`anydraft demo`: plain decoding and UAG side by side, on the embedded pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import EMBEDDED, load_decoder, stderr

if TYPE_CHECKING:
    from anydraft.cli.race import Race
    from anydraft.decoder import Decoder

PROMPTS = [
    'class Stack:\n    """A last-in, first-out stack of items."""\n\n    def __init__(self) -> None:\n',
    'def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n',
    "import os\nimport sys\nfrom pathlib import Path\n\n\ndef main() -> None:\n",
]
DIFFERENT = 1


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write: .svg, .png or .pdf.")] = Path(
        "anydraft-demo.svg"
    ),
    picture: Annotated[bool, typer.Option("--picture/--no-picture", help="Write the picture.")] = True,
    prompt: Annotated[str | None, typer.Option(help="Decode this text instead of the built-in ones.")] = None,
    target: Annotated[str, typer.Option(help="Another target.", rich_help_panel=opt.MODELS)] = EMBEDDED,
    assistant: Annotated[str, typer.Option(help="Another assistant.", rich_help_panel=opt.MODELS)] = EMBEDDED,
    temperature: Annotated[
        list[float] | None,
        typer.Option("--temperature", "-t", help="May be repeated; default: 0 and 1.", rich_help_panel=opt.SAMPLING),
    ] = None,
    max_new_tokens: opt.MaxNewTokens = 96,
    seed: Annotated[int, typer.Option(help="Of the first prompt's noise.", rich_help_panel=opt.SAMPLING)] = 1,
    dtype: Annotated[
        str, typer.Option(help="bfloat16 with exact shapes, or float32.", rich_help_panel=opt.MODELS)
    ] = "bfloat16",
    exact: opt.Exact = True,
    device: opt.Device = None,
    draft_tokens: opt.DraftTokens = None,
    threads: opt.Threads = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show what drafting does: same tokens, fewer passes. Also writes a picture."""
    from anydraft.errors import OptionConflict

    if picture:
        from anydraft.cli.picture import FORMATS, matplotlib_ready

        if out.suffix not in FORMATS:
            raise OptionConflict(f"--out ends in one of {', '.join(FORMATS)}, got {str(out)!r}")
        if not out.resolve().parent.is_dir():
            raise OptionConflict(f"--out: there is no folder {str(out.parent)!r}")
        matplotlib_ready()
    decoder = load_decoder(
        target,
        assistant,
        dtype=dtype,
        device=device,
        exact=exact,
        draft_tokens=draft_tokens,
        threads=threads,
    )
    prompts = PROMPTS if prompt is None else [prompt] * len(PROMPTS)
    races = _race(decoder, prompts, sorted(set(temperature or [0.0, 1.0])), max_new_tokens, seed, quiet=json)
    if picture:
        from anydraft.cli.picture import draw

        draw(races, out, _title(decoder, races))
    same = all(race.identical for race in races)
    if json:
        print_json(
            {
                "identical": same,
                "dtype": dtype,
                "exact": exact,
                "max_new_tokens": max_new_tokens,
                "races": [race.to_dict() for race in races],
                "picture": str(out) if picture else None,
            }
        )
    else:
        from anydraft.cli.demo_view import summary

        summary(races)
        if picture:
            stderr().print(f"picture: {out}", markup=False)
    if not same:
        raise typer.Exit(DIFFERENT)


def _race(
    decoder: Decoder, prompts: list[str], temperatures: list[float], max_new_tokens: int, seed: int, *, quiet: bool
) -> list[Race]:
    """Run all heats under a progress bar, showing the first heat of each temperature when it is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from anydraft.cli.demo_view import side_by_side
    from anydraft.cli.race import lap, run

    races: list[Race] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # No refreshing thread: it would take time from what is being timed.
    with Progress(*columns, console=stderr(), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("warming up", total=len(prompts) * len(temperatures))
        progress.refresh()
        for warm in temperatures:  # tables of text and kernels are filled by the first use
            lap(decoder, prompts[0], {"max_new_tokens": 8, "temperature": warm, "seed": seed if warm else None})
        for race, heat in run(decoder, prompts, temperatures, max_new_tokens, seed):
            progress.update(task, advance=1, description=f"temperature {race.temperature:g}", refresh=True)
            if not any(race is known for known in races):
                races.append(race)
                if not quiet:
                    side_by_side(decoder, heat)
    return races


def _title(decoder: Decoder, races: list[Race]) -> str:
    from anydraft.cli.demo_view import title_of

    millions = decoder.target.num_parameters / 1e6
    lm = getattr(decoder.drafter, "lm", None)
    sizes = f"target {millions:.0f} M parameters"
    if lm is not None:
        sizes += f", assistant {lm.num_parameters / 1e6:.1f} M"
    same = "identical to plain decoding" if all(race.identical for race in races) else "NOT identical"
    first = title_of(decoder).capitalize()
    return f"{first}\n{sizes}; {sum(race.stats.num_tokens for race in races)} tokens, {same}"
