"""`anydraft distill`: the target's own answers to many prompts, to train a drafter on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import load_decoder, status, stderr, warm_up

if TYPE_CHECKING:
    from anydraft.decoder import Decoder
    from anydraft.target import Target
    from anydraft.training.distill import AnswerProgress
    from anydraft.training.plan import AnswerSettings
    from anydraft.training.prompts import PromptSet

PROMPTS = "Prompts"


SHARD_SIZE = 2048


def distill(
    target: opt.Target,
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts",
            help='A .jsonl file ("prompt", "turns" or "document" a line), a text file (one prompt a line), or a folder '
            "of texts to cut prompts from.",
            rich_help_panel=PROMPTS,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the answers; a stopped run goes on there.")],
    glob: Annotated[str, typer.Option(help="Which files of a folder, such as '*.py'.", rich_help_panel=PROMPTS)] = "*",
    per_file: Annotated[
        int, typer.Option(min=1, help="Prompts cut from each text.", rich_help_panel=PROMPTS)
    ] = 4,
    prompt_tokens: Annotated[
        int, typer.Option(min=4, help="Longest prompt cut from a text, in tokens.", rich_help_panel=PROMPTS)
    ] = 256,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many prompts.", rich_help_panel=PROMPTS)
    ] = None,
    sampled_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share sampled; the rest is greedy.", rich_help_panel=opt.SAMPLING)
    ] = 0.5,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", help="Of sampled answers.", rich_help_panel=opt.SAMPLING)
    ] = 1.0,
    max_new_tokens: opt.MaxNewTokens = 128,
    seed: Annotated[int, typer.Option(help="Of cuts, coins and noise.", rich_help_panel=opt.SAMPLING)] = 0,
    drafter: Annotated[
        str,
        typer.Option(
            "--drafter",
            "-d",
            help="'auto' tries lookup and plain decoding and goes on with the faster; 'lookup', 'none', or an "
            "assistant. The answers are the same.",
            rich_help_panel=opt.MODELS,
        ),
    ] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Default: 64 on a CPU, 256 on a GPU.", rich_help_panel=opt.MODELS)
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Answers per file.")] = SHARD_SIZE,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    threads: opt.Threads = None,
    trust_remote_code: opt.TrustRemoteCode = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Let the target answer prompts, for training a drafter on its own words.

    Stop it at any time: the same command goes on where it stopped.
    """
    warm_up()
    from anydraft.training.plan import AnswerSettings
    from anydraft.training.prompts import read_prompts

    settings = AnswerSettings(
        sampled_share=sampled_share, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
    )
    with status("reading prompts"):
        texts = read_prompts(prompts, glob=glob, per_file=per_file, prompt_tokens=prompt_tokens, seed=seed)
    decoder = load_decoder(
        target,
        "none" if drafter == "auto" else drafter,
        dtype=dtype,
        device=device,
        threads=threads,
        trust_remote_code=trust_remote_code,
    )
    answering = decoder.target if drafter == "auto" else decoder
    try:
        state = answer(answering, texts, out, settings, batch_size, shard_size, limit)
    except KeyboardInterrupt:
        stderr().print(f"stopped; run the same command again to go on in {out}", style="dim", markup=False)
        raise
    skipped = f", {state.skipped} prompts too long for the context skipped" if state.skipped else ""
    if json:
        print_json(
            {
                "answers": state.answers,
                "tokens": state.tokens,
                "skipped": state.skipped,
                "made": state.made,
                "seconds": state.seconds,
                "tokens_per_second": state.tokens_per_second,
            }
        )
    else:
        stderr().print(
            f"{state.answers} answers of {state.tokens} tokens in {out}{skipped}; {state.made} made now, "
            f"{state.tokens_per_second:.0f} tokens/s",
            style="dim",
            markup=False,
        )


def answer(
    target: Decoder | Target,
    texts: PromptSet,
    out: Path,
    settings: AnswerSettings,
    batch_size: int | None = None,
    shard_size: int = SHARD_SIZE,
    limit: int | None = None,
) -> AnswerProgress:
    """Distil under a progress bar; `anydraft train --prompts` does it too."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from anydraft.training.distill import distill

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("answers", total=None, speed="")

        def watch(state: AnswerProgress) -> None:
            with_ = f" ({state.drafter or 'plain'})" if state.made else ""
            speed = f"{state.tokens_per_second:.0f} tokens/s{with_}" if state.made else ""
            bar.update(task, completed=state.answers + state.skipped, total=state.total, speed=speed)

        return distill(
            target, texts, out, settings, batch_size=batch_size, shard_size=shard_size, limit=limit, watch=watch
        )
