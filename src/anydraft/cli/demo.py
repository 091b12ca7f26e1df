"""`anydraft demo`: plain decoding, UAG and ReDrafter side by side, on the embedded models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import EMBEDDED, EMBEDDED_REDRAFTER, load_decoder, load_trained, stderr

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
    assistant: Annotated[
        str, typer.Option(help="Another assistant; 'none' leaves it out.", rich_help_panel=opt.MODELS)
    ] = EMBEDDED,
    redrafter: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub name of a ReDrafter (or Medusa, EAGLE) trained for the target; 'embedded'; 'none' "
            "leaves it out. Default: 'embedded' beside the embedded target and assistant.",
            rich_help_panel=opt.MODELS,
        ),
    ] = None,
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
    drafted = _contenders(
        target,
        assistant,
        redrafter,
        dtype=dtype,
        device=device,
        exact=exact,
        draft_tokens=draft_tokens,
        threads=threads,
    )
    prompts = PROMPTS if prompt is None else [prompt] * len(PROMPTS)
    races = _race(drafted, prompts, sorted(set(temperature or [0.0, 1.0])), max_new_tokens, seed, quiet=json)
    if picture:
        from anydraft.cli.picture import draw

        draw(races, out, _title(drafted, races))
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


def _contenders(target: str, assistant: str, redrafter: str | None, **options: Any) -> dict[str, Decoder]:
    """Decoders on one target by the name of their drafter.

    Raises:
        OptionConflict: all drafters were left out.
    """
    from anydraft.errors import OptionConflict

    if redrafter is None:
        redrafter = EMBEDDED if target == assistant == EMBEDDED else "none"
    if assistant == redrafter == "none":
        raise OptionConflict("a demo needs a drafter to show; leave --assistant none or --redrafter none out")
    if assistant == "none":
        named = EMBEDDED_REDRAFTER if redrafter == EMBEDDED else redrafter
        found = [load_decoder(target, named, always=True, **options)]
    else:
        found = [load_decoder(target, assistant, always=True, **options)]
        if redrafter != "none":
            found.append(load_trained(found[0], redrafter))
    drafted: dict[str, Decoder] = {}
    for decoder in found:
        assert decoder.drafter is not None
        name = decoder.drafter.name
        drafted[f"{name} {len(drafted) + 1}" if name in drafted else name] = decoder
    return drafted


def _race(
    drafted: dict[str, Decoder],
    prompts: list[str],
    temperatures: list[float],
    max_new_tokens: int,
    seed: int,
    *,
    quiet: bool,
) -> list[Race]:
    """Run all heats under a progress bar, showing the first heat of each temperature when it is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from anydraft.cli.demo_view import show_heat
    from anydraft.cli.race import lap, plain_of, run
    from anydraft.text.token_bytes import TokenBytes

    plain = plain_of(drafted)
    races: list[Race] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # No refreshing thread: it would take time from what is being timed.
    with Progress(*columns, console=stderr(), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("warming up", total=len(prompts) * len(temperatures))
        progress.refresh()
        for warm in temperatures:  # tables of text and kernels are filled by the first use
            for decoder in (plain, *drafted.values()):
                lap(decoder, prompts[0], {"max_new_tokens": 8, "temperature": warm, "seed": seed if warm else None})
        for race, heat in run(drafted, prompts, temperatures, max_new_tokens, seed):
            progress.update(task, advance=1, description=f"temperature {race.temperature:g}", refresh=True)
            if not any(race is known for known in races):
                races.append(race)
                if not quiet:
                    show_heat(heat, TokenBytes.of(plain.tokenizer))
    return races


def _title(drafted: dict[str, Decoder], races: list[Race]) -> str:
    from anydraft.cli.demo_view import title_of

    target = next(iter(drafted.values())).target
    sizes = [f"target {target.num_parameters / 1e6:.0f} M parameters"]
    for name, decoder in drafted.items():
        drafter = decoder.drafter
        model = getattr(drafter, "lm", None) or getattr(drafter, "network", None)
        if model is not None:
            what = "assistant" if hasattr(drafter, "lm") else title_of(name)
            sizes.append(f"{what} {model.num_parameters / 1e6:.1f} M")
    tokens = sum(race.plain_stats.num_tokens for race in races)
    same = "identical to plain decoding" if all(race.identical for race in races) else "NOT identical"
    names = " and ".join(title_of(name) for name in drafted)
    return f"{names} against plain decoding\n{', '.join(sizes)}; {tokens} tokens, {same}"
