"""`anydraft bench`: how fast drafters are on this machine, beside plain decoding and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anydraft.cli import options as opt
from anydraft.cli.candidates import default_drafters
from anydraft.cli.generate import print_json
from anydraft.cli.loading import EMBEDDED, stderr
from anydraft.cli.measuring import (
    HELD_OUT,
    MEASURE,
    Asked,
    Chat,
    Prompts,
    Seed,
    Temperatures,
    ready,
)

OUT = Path("runs/bench")


def bench(
    target: Annotated[str, typer.Argument(help="Hub name or folder of the target, or 'embedded'.")] = EMBEDDED,
    drafter: Annotated[
        list[str] | None,
        typer.Option(
            "--drafter",
            "-d",
            help="What --drafter of `generate` takes; may be repeated. Default: all embedded ones and their mix for "
            "the embedded target, else lookup.",
            rich_help_panel=opt.MODELS,
        ),
    ] = None,
    prompts: Prompts = HELD_OUT,
    limit: Annotated[int, typer.Option(min=1, help="Prompts to time.", rich_help_panel=MEASURE)] = 24,
    temperature: Temperatures = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", "-b", help="Prompts decoded at once; may be repeated. Default: 1 and 4.", rich_help_panel=MEASURE
        ),
    ] = None,
    max_new_tokens: opt.MaxNewTokens = 64,
    chat: Chat = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure transformers beside it.", rich_help_panel=MEASURE)
    ] = True,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the measurement; default: one in runs/bench for these settings.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure anew what the folder has.", rich_help_panel=opt.OUTPUT)
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            help="Two folders, or their runs.jsonl, to set side by side; nothing is measured.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    exact: opt.Exact = False,
    draft_tokens: opt.DraftTokens = None,
    threads: opt.Threads = None,
    any_target: opt.AnyTarget = False,
    trust_remote_code: opt.TrustRemoteCode = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Measure drafters side by side: speed, acceptance, cost, memory, equality.

    Plain decoding, every drafter and transformers take turns prompt by prompt. Stop it at any time: what was measured
    is kept, and the same command goes on from there.
    """
    if compare is not None:
        _compare(*compare, json=json)
        return
    prepared = ready(
        Asked(
            target=target,
            drafters=drafter or default_drafters(target),
            prompts=prompts,
            limit=limit,
            temperatures=list(dict.fromkeys(temperature or [0.0, 1.0])),
            batches=list(dict.fromkeys(batch or [1, 4])),
            max_new_tokens=max_new_tokens,
            chat=chat,
            peers=peers,
            seed=seed,
            dtype=dtype,
            device=device,
            exact=exact,
            draft_tokens=draft_tokens,
            threads=threads,
            any_target=any_target,
            trust_remote_code=trust_remote_code,
            debug=debug,
        )
    )
    from anydraft.bench.bench_table import show
    from anydraft.bench.running import PAGE, run_bench
    from anydraft.bench.session import wide_console

    folder = out if out is not None else OUT / prepared.settings.digest[:12]
    outcome = run_bench(
        prepared.suite,
        prepared.texts,
        prepared.settings,
        out=folder,
        title=prepared.title,
        provenance=prepared.provenance,
        console=stderr(),
        fresh=fresh,
    )
    if json:
        print_json(outcome.summary)
    else:
        show(outcome.rows, prepared.title, wide_console())
    done, planned = outcome.summary["measured"]
    if outcome.interrupted:
        stderr().print(
            f"stopped: {done} of {planned} runs are complete and kept in {folder}; the same command goes on from there",
            markup=False,
        )
        raise KeyboardInterrupt
    before = f"; {outcome.resumed} of {planned} runs were there already" if outcome.resumed else ""
    stderr().print(f"{folder / PAGE} shows it, {folder} has every run{before}", style="dim", markup=False)


def _compare(before: Path, after: Path, *, json: bool) -> None:
    from anydraft.bench.compare import compare, show
    from anydraft.bench.session import wide_console

    found = compare(before, after)
    if json:
        print_json(found.to_dict())
    else:
        show(found, wide_console())
