"""`anydraft chat`: a conversation, with the chat templates of both sides."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import chosen_seed, load_decoder, stderr, warm_up

if TYPE_CHECKING:
    from anydraft.cli.conversation import Conversation

HELP = "/new starts over, /quit (or Ctrl-D) leaves, Ctrl-C stops an answer"


def chat(
    target: Annotated[str, typer.Argument(help="Hub name or folder of a target with a chat template.")],
    drafter: opt.Drafter = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file, for a target whose tokenizer has no template.")
    ] = None,
    temperature: opt.Temperature = 0.7,
    top_p: opt.TopP = 1.0,
    top_k: opt.TopK = 0,
    min_p: opt.MinP = 0.0,
    seed: opt.Seed = None,
    max_new_tokens: opt.MaxNewTokens = 512,
    stop: opt.Stop = None,
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
    """Talk with a model. Without a terminal: one user turn per line of standard input."""
    from anydraft.errors import OptionConflict

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
    )
    try:
        template = None if chat_template is None else chat_template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionConflict(f"cannot read --chat-template {str(chat_template)!r}: {problem}") from problem
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
    from anydraft.cli.conversation import Conversation

    conversation = Conversation(decoder, params, system=system, template=template)
    interactive = sys.stdin.isatty() and not json
    if interactive:
        stderr().print(HELP, style="dim")
    for turn in _turns(interactive):
        if turn == "/new":
            conversation.clear()
        elif turn == "/help":
            stderr().print(HELP, style="dim")
        else:
            _answer(conversation, turn, interactive=interactive, json=json, stats=stats, color=color)


def _turns(interactive: bool) -> Generator[str]:
    """What the user says, turn by turn."""
    while True:
        if interactive:
            try:
                line = input("> ")
            except EOFError:
                sys.stdout.write("\n")
                return
        else:
            line = sys.stdin.readline()
            if not line:
                return
        line = line.strip()
        if interactive and line == "/quit":
            return
        if line:
            yield line


def _answer(
    conversation: Conversation, turn: str, *, interactive: bool, json: bool, stats: bool, color: bool
) -> None:
    from anydraft.cli.printing import Printer, Tally

    if json:
        print_json(_to_dict(conversation, turn))
        return
    decoder, tally = conversation.decoder, Tally()
    printer = Printer(decoder, color=color)
    try:
        with closing(conversation.answer(turn)) as steps:
            for step in steps:
                tally.step(step)
                printer.step(step)
    except KeyboardInterrupt:
        if not interactive:
            raise
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()
    if conversation.dropped:
        stderr().print(f"the oldest {conversation.dropped} messages no longer fit into the context", style="yellow")
    if stats:
        stderr().print(tally.line(conversation.params.seed), style="dim", markup=False)


def _to_dict(conversation: Conversation, turn: str) -> dict[str, Any]:
    """One turn as JSON."""
    from anydraft.cli.printing import Tally

    tally, tokens, reason = Tally(), [], None
    for step in conversation.answer(turn):
        tally.step(step)
        tokens += step.tokens
        reason = step.finish_reason
    return {
        "role": "assistant",
        "content": conversation.messages[-1]["content"],
        "tokens": tokens,
        "finish_reason": reason,
        "seed": conversation.params.seed,
        "dropped_messages": conversation.dropped,
        "stats": tally.stats.to_dict(),
    }
