"""`anydraft verify`: is the promise kept on these models? Exit status 1 if it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import load_decoder, stderr, warm_up

if TYPE_CHECKING:
    from anydraft.checks import Mode, Report
    from anydraft.decoder import Decoder

BROKEN = 1


def verify(
    target: opt.Target = "embedded",
    drafter: opt.Drafter = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A .jsonl file, or one prompt per line; default: built in.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first so many prompts.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Draws to test the law with; 0 leaves it out.")] = 2000,
    max_new_tokens: opt.MaxNewTokens = 64,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "-t", help="Default: 1, and 0.7 with top-p 0.9.", rich_help_panel=opt.SAMPLING),
    ] = None,
    top_p: opt.TopP = 1.0,
    top_k: opt.TopK = 0,
    min_p: opt.MinP = 0.0,
    seed: Annotated[int, typer.Option(help="Of the first prompt's noise.", rich_help_panel=opt.SAMPLING)] = 0,
    verification: Annotated[
        str, typer.Option(help="'exact' or 'rejection'.", rich_help_panel=opt.MODELS)
    ] = "exact",
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
    """Compare with plain decoding, token for token, and with exact probabilities."""
    warm_up()
    from anydraft.checks import modes_of
    from anydraft.checks.prompts import PROMPTS, read_prompts
    from anydraft.errors import OptionConflict
    from anydraft.sampling import SamplingParams

    texts = (list(PROMPTS) if prompts is None else read_prompts(prompts))[:limit]
    own = None
    if temperature is not None or (top_p, top_k, min_p) != (1.0, 0, 0.0):
        own = SamplingParams(
            temperature=1.0 if temperature is None else temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            max_new_tokens=max_new_tokens,
        )
    if drafter == "none":
        raise OptionConflict("--drafter none is plain decoding, which would be compared with itself; name a drafter")
    modes = modes_of(max_new_tokens=max_new_tokens, seed=seed, own=own, verification=verification)  # type: ignore[arg-type]
    decoder = load_decoder(
        target,
        drafter,
        dtype=dtype,
        device=device,
        exact=exact,
        draft_tokens=draft_tokens,
        threads=threads,
        any_target=any_target,
        trust_remote_code=trust_remote_code,
        verification=verification,
        always=True,
    )
    report = _check(decoder, texts, modes, own.temperature if own is not None else 1.0, seed, samples)
    if json:
        print_json(report.to_dict())
    else:
        from anydraft.cli.verify_table import show

        show(report)
    if not report.kept:
        raise typer.Exit(BROKEN)


def _check(
    decoder: Decoder, texts: list[str], modes: list[Mode], temperature: float, seed: int, samples: int
) -> Report:
    """All checks, under a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from anydraft.checks import Report, compare, most_telling
    from anydraft.sampling import SamplingParams

    report = Report(verification=decoder.verification)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task("prompts", total=len(texts) * len(modes))
        for outcome in compare(decoder, texts, modes):
            if not any(outcome is known for known in report.equalities):
                report.equalities.append(outcome)
            progress.update(task, advance=1, description=outcome.mode)
        if samples and temperature > 0:
            law = most_telling(decoder, texts[:12], SamplingParams(temperature=temperature, seed=seed), samples)
            task = progress.add_task("law of sampled tokens", total=samples)
            for drawn in law.draw():
                progress.update(task, completed=drawn)
            report.law = law.test()
    if not report.kept:
        report.hints = _hints(decoder)
    return report


def _hints(decoder: Decoder) -> list[str]:
    import torch

    target = decoder.target
    if target.dtype != torch.float32 and not target.exact:
        return [
            f"in {str(target.dtype).removeprefix('torch.')} a pass over several tokens rounds differently from a pass "
            "over one, and nearly equal scores may change places: --exact gives all passes one shape, --dtype "
            "float32 makes such ties rare"
        ]
    return ["no rounding explains a margin well above zero: please report this pair of models as a bug"]
