"""`anydraft recommend`: which drafter to use for a target on this machine, from a short measurement."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anydraft.cli import options as opt
from anydraft.cli.candidates import default_drafters, named
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

if TYPE_CHECKING:
    from rich.console import Console

    from anydraft.bench.recommend import Advice, Recommendation


def recommend(
    target: Annotated[str, typer.Argument(help="Hub name or folder of the target, or 'embedded'.")] = EMBEDDED,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidates",
            "-c",
            help="What --drafter of `generate` takes; may be repeated. Default: all embedded ones and their mix for "
            "the embedded target, else lookup.",
            rich_help_panel=opt.MODELS,
        ),
    ] = None,
    prompts: Prompts = HELD_OUT,
    limit: Annotated[int, typer.Option(min=2, help="Prompts to time.", rich_help_panel=MEASURE)] = 8,
    temperature: Temperatures = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, help="Prompts decoded at once.", rich_help_panel=MEASURE)
    ] = 1,
    max_new_tokens: opt.MaxNewTokens = 64,
    chat: Chat = None,
    seed: Seed = 0,
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
    """Which drafter to use here, with what settings, and what to expect of it; "none" when none helps.

    Measures for a minute or so: every candidate and plain decoding, prompt by prompt in turn. Give prompts like your
    own, because the gain depends on the text.
    """
    names = list(dict.fromkeys(candidates)) if candidates else default_drafters(target)
    prepared = ready(
        Asked(
            target=target,
            drafters=names,
            prompts=prompts,
            limit=limit,
            temperatures=list(dict.fromkeys(temperature or [0.0, 1.0])),
            batches=[batch],
            max_new_tokens=max_new_tokens,
            chat=chat,
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
    import torch

    from anydraft.bench.recommend import recommend as weigh
    from anydraft.bench.running import run_bench
    from anydraft.bench.session import wide_console
    from anydraft.bench.store import RUNS, complete, read_runs
    from anydraft.onednn import half_precision_hint

    with tempfile.TemporaryDirectory(prefix="anydraft-") as folder:
        outcome = run_bench(
            prepared.suite,
            prepared.texts,
            prepared.settings,
            out=Path(folder),
            title=prepared.title,
            provenance=prepared.provenance,
            console=stderr(),
        )
        contenders = {batch: [contender.name for contender in prepared.suite.of_batch(batch)]}
        records = complete(read_runs(Path(folder) / RUNS), contenders)
    if outcome.interrupted:
        stderr().print("stopped before there was enough to go by", markup=False)
        raise KeyboardInterrupt
    flags = {
        "--dtype": dtype,
        "--device": device,
        "--draft-tokens": draft_tokens if draft_tokens is not None else None,
        "--threads": threads,
    }
    options = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    options += [flag for flag, given in (("--exact", exact), ("--any-target", any_target)) if given]
    options += ["--trust-remote-code"] if trust_remote_code else []
    found = weigh(
        target,
        [(candidate.name, name) for candidate, name in zip(named(target, names), names, strict=True)],
        records,
        outcome.rows,
        options=options,
        hint=half_precision_hint(getattr(torch, prepared.settings.dtype), prepared.settings.device),
        keywords=_keywords(dtype=dtype, device=device, exact=exact or None, draft_tokens=draft_tokens),
        seed=seed,
    )
    if json:
        print_json(found.to_dict() | {"provenance": outcome.summary["provenance"]})
    else:
        show(found, wide_console())


def _keywords(**values: object) -> str:
    return "".join(f", {name}={value!r}" for name, value in values.items() if value is not None)


def show(found: Recommendation, console: Console) -> None:
    """Print the advice, the calls to copy, and what all candidates did."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    chosen = found.chosen
    if chosen is None:
        console.print(Text.assemble("Use ", ("no drafter", "bold"), f": {found.reason}."))
    else:
        console.print(Text.assemble("Use ", (found.drafter, "bold green"), f": {found.reason}."))
    console.print(Text(f"  {found.command}"), Text(f"  {found.python}"), sep="\n")
    if chosen is not None:
        console.print(Text(_expectations(chosen, found)))
        for at, said in chosen.pacing.items():
            console.print(Text(f"Pacing at temperature {at:g}: {said}"))
    elsewhere = {at: drafter for at, drafter in found.best_at.items() if drafter != found.drafter}
    for at, drafter in elsewhere.items():
        better = "plain decoding is as good" if drafter == "none" else f"{drafter} is better"
        console.print(Text(f"At temperature {at:g} alone {better}.", style="yellow"))
    if found.hint is not None:
        console.print(Text(f"hint: {found.hint}", style="yellow"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    temperatures = list(found.best_at)
    headings = ["candidate", "x plain", *(f"T={at:g}" for at in temperatures), "tokens/s", "tau", "memory", ""]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("candidate", "") else "right", no_wrap=True)
    for advice in found.candidates:
        table.add_row(*_cells(advice, temperatures))
    plain = ["-", *("-" for _ in temperatures), _number(found.plain_tokens_per_second, ".1f"), "1.00"]
    table.add_row("none (plain)", *plain, _size(found.plain_memory), "")
    console.print(table)
    for advice in found.candidates:
        for problem in advice.problems:
            console.print(Text.assemble((f"{advice.name} broke: ", "red"), problem))


def _expectations(chosen: Advice, found: Recommendation) -> str:
    return (
        f"Expect {_number(chosen.tokens_per_second, '.1f')} tokens a second instead of "
        f"{_number(found.plain_tokens_per_second, '.1f')}, {_number(chosen.tau, '.2f')} tokens a pass, and "
        f"{_size(chosen.memory)} of memory instead of {_size(found.plain_memory)}."
    )


def _cells(advice: Advice, temperatures: list[float]) -> list[str]:
    from anydraft.bench.bench_table import number

    gains = [advice.by_temperature.get(at) for at in temperatures]
    return [
        advice.name,
        number(advice.speedup),
        *(number(gain) for gain in gains),
        _number(advice.tokens_per_second, ".1f"),
        _number(advice.tau, ".2f"),
        _size(advice.memory),
        advice.verdict,
    ]


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else f"{value:{spec}}"


def _size(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.0f} MiB"
