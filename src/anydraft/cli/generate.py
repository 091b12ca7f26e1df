"""`anydraft generate`: answer one prompt, text as it comes."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from anydraft.cli import options as opt
from anydraft.cli.loading import chosen_seed, load_decoder, stderr, warm_up


def generate(
    target: opt.Target = "embedded",
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; '-' or nothing reads standard input.")
    ] = None,
    drafter: opt.Drafter = None,
    prompt_file: opt.PromptFile = None,
    temperature: opt.Temperature = 0.0,
    top_p: opt.TopP = 1.0,
    top_k: opt.TopK = 0,
    min_p: opt.MinP = 0.0,
    seed: opt.Seed = None,
    max_new_tokens: opt.MaxNewTokens = 128,
    stop: opt.Stop = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Answers to give.", rich_help_panel=opt.SAMPLING)] = 1,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    exact: opt.Exact = False,
    draft_tokens: opt.DraftTokens = None,
    threads: opt.Threads = None,
    any_target: opt.AnyTarget = False,
    trust_remote_code: opt.TrustRemoteCode = False,
    json: opt.Json = False,
    stats: opt.ShowStats = True,
    color: opt.Color = False,
    debug: opt.Debug = False,
) -> None:
    """Continue a text. The tokens are the target's own, whatever the drafter."""
    text = read_prompt(prompt, prompt_file)
    warm_up()
    from anydraft.sampling import SamplingParams

    seed = chosen_seed(temperature, seed)
    params = SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
        stop=tuple(stop or ()),
        n=n,
    )
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
    )
    if json:
        answers = decoder.generate(text, params)
        for answer in answers if isinstance(answers, list) else [answers]:
            print_json(answer.to_dict())
        return
    line = _stream(decoder, text, params, color)
    if stats:
        stderr().print(line, style="dim", markup=False)


def _stream(decoder: Any, text: str, params: Any, color: bool) -> str:
    """Print the answers (several: one after the other); returns the line of figures."""
    from anydraft.cli.printing import Printer, Tally

    tally = Tally()
    steps = decoder.stream(text, params)
    printers = [Printer(decoder, color=color) for _ in range(params.n)]
    waiting: list[list[Any]] = [[] for _ in printers]
    shown = 0  # the answer being printed; those after it wait for their turn
    try:
        for step in steps:
            tally.step(step)
            waiting[step.row].append(step)
            while shown < params.n and waiting[shown]:
                now = waiting[shown].pop(0)
                printers[shown].step(now)
                if now.finish_reason is not None:
                    shown += 1
                    sys.stdout.write("\n" if shown == params.n else "\n---\n")
    finally:
        steps.close()
        if shown < params.n:
            sys.stdout.write("\n")
        sys.stdout.flush()
    return tally.line(params.seed)


def read_prompt(prompt: str | None, prompt_file: Path | None) -> str:
    """The prompt from the argument, a file or standard input.

    Raises:
        OptionConflict: none, or two of them.
    """
    from anydraft.errors import OptionConflict

    if prompt is not None and prompt_file is not None:
        raise OptionConflict("the prompt was given twice, as an argument and as --prompt-file; give it once")
    if prompt_file is not None and str(prompt_file) != "-":
        try:
            text = prompt_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise OptionConflict(f"cannot read --prompt-file {str(prompt_file)!r}: {problem}") from problem
    elif prompt is not None and prompt != "-":
        text = prompt
    elif prompt is None and prompt_file is None and sys.stdin.isatty():
        raise OptionConflict(
            'no prompt was given: anydraft generate TARGET "text to continue", or --prompt-file FILE, or text on '
            "standard input"
        )
    else:
        text = sys.stdin.read()
    if not text:
        raise OptionConflict("the prompt is empty; give at least one character to continue from")
    return text


def print_json(value: Any) -> None:
    """One JSON object on a line of standard output, in ASCII, so that no terminal setting can spoil it."""
    sys.stdout.write(jsonlib.dumps(value) + "\n")
    sys.stdout.flush()
