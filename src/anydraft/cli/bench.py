"""`anydraft bench`: how fast drafters are on this machine, beside plain decoding and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import EMBEDDED, EMBEDDED_REDRAFTER, resolve, status, stderr, warm_up

if TYPE_CHECKING:
    from anydraft.bench.running import Texts
    from anydraft.bench.suite import Candidate

MEASURE = "Measurement"
MIX = "mix"
DEFAULT_OUT = Path("runs/bench")
DEFAULT_LIMIT = 16

Drafters = Annotated[
    list[str] | None,
    typer.Option(
        "--drafter",
        "-d",
        help="What --drafter of `generate` takes; may be repeated. Several with commas between them are one "
        "contender that chooses among them. Default: all embedded ones for the embedded target, else lookup.",
        rich_help_panel=opt.MODELS,
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        help='A file of {"id", "turns"} lines; "held-out" for Python files; humaneval, mt_bench, alpaca_eval, gsm8k or '
        "spec_bench from the net. Default: held-out.",
        rich_help_panel=MEASURE,
    ),
]
Peers = Annotated[bool, typer.Option("--peers/--no-peers", help="Measure transformers too.", rich_help_panel=MEASURE)]


def bench(
    target: Annotated[str, typer.Argument(help="Hub name or folder of the target, or 'embedded'.")] = EMBEDDED,
    drafter: Drafters = None,
    prompts: Prompts = None,
    limit: Annotated[int, typer.Option(min=1, help="Prompts to time.", rich_help_panel=MEASURE)] = DEFAULT_LIMIT,
    temperature: Annotated[
        list[float] | None,
        typer.Option("--temperature", "-t", help="May be repeated. Default: 0 and 1.", rich_help_panel=MEASURE),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", "-b", help="Prompts at once; may be repeated. Default: 1 and 4.", rich_help_panel=MEASURE
        ),
    ] = None,
    max_new_tokens: opt.MaxNewTokens = 64,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Use the target's chat template.", rich_help_panel=MEASURE),
    ] = None,
    peers: Peers = True,
    seed: Annotated[int, typer.Option(help="Of the first prompt's noise.", rich_help_panel=MEASURE)] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder; the same command goes on there. Default: one for these settings."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what the folder has.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Two folders (or runs.jsonl) to set side by side, instead of measuring."),
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

    Contenders take turns prompt by prompt. Stop it at any time: what was measured is kept, and the same command goes
    on from there.
    """
    if compare is not None:
        _compare(*compare, json=json)
        return
    warm_up()
    import torch
    import transformers

    from anydraft.bench.bench_table import show
    from anydraft.bench.provenance import provenance
    from anydraft.bench.running import PAGE, run_bench
    from anydraft.bench.session import wide_console
    from anydraft.bench.settings import Settings, fingerprint, versions
    from anydraft.bench.suite import load_suite
    from anydraft.errors import OptionConflict

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if threads is not None:
        torch.set_num_threads(threads)
    temperatures = _once(temperature or [0.0, 1.0], "--temperature", lambda value: value >= 0, "0 or more")
    batches = _once(batch or [1, 4], "--batch", lambda value: value >= 1, "1 or more")
    if max(batches) > limit:
        raise OptionConflict(f"--batch {max(batches)} needs at least as many prompts, and --limit is {limit}")
    names = drafter if drafter is not None else _defaults(target)
    candidates = _candidates(target, names)
    place, _ = resolve(target, "none")
    source = prompts or "held-out"
    with status("reading prompts"):
        found, in_chat = _prompts(source, limit + max(batches))
    with status(f"loading {target} and {len(candidates)} drafters"):
        suite = load_suite(
            place,
            candidates,
            peers=peers,
            dtype=dtype,
            device=device,
            exact=exact,
            draft_tokens=draft_tokens,
            any_target=any_target,
            trust_remote_code=trust_remote_code,
        )
    model = suite.plain.target
    texts, templated = _texts(suite.plain, found, limit, max_new_tokens, in_chat if chat is None else chat)
    if len(texts.timed) < max(batches):
        raise OptionConflict(
            f"only {len(texts.timed)} prompts fit the target's context of {model.context_length} tokens with "
            f"--max-new-tokens {max_new_tokens}, and --batch {max(batches)} needs that many; give shorter or more "
            "prompts"
        )
    settings = Settings(
        target=target,
        drafters=tuple(names),
        models={name: fingerprint(path) for name, path in [(target, place), *_paths(candidates)]},
        prompts=found.source,
        prompts_digest=found.digest,
        num_prompts=len(texts.timed),
        temperatures=tuple(temperatures),
        batches=tuple(batches),
        max_new_tokens=max_new_tokens,
        seed=seed,
        peers=peers,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        threads=torch.get_num_threads(),
        exact=exact,
        draft_tokens=draft_tokens,
        any_target=any_target,
        versions=versions(),
    )
    folder = out if out is not None else DEFAULT_OUT / settings.digest[:12]
    title = f"{Path(target).name}, {len(texts.timed)} prompts ({found.source}), {settings.dtype} on {model.device.type}"
    taken = provenance(
        dtype=model.dtype,
        seed=seed,
        target=Path(target).name,
        drafters=[Path(name).name for name in names],
        prompts=found.source,
        prompts_digest=found.digest,
        prompts_timed=len(texts.timed),
        prompt_form="chat template" if templated else "text to continue",
        max_new_tokens=max_new_tokens,
        temperatures=temperatures,
        batches=batches,
        exact=exact,
        draft_tokens=draft_tokens,
        device=str(model.device),
        settings_digest=settings.digest,
    )
    outcome = run_bench(
        suite, texts, settings, out=folder, title=title, provenance=taken, console=stderr(), fresh=fresh
    )
    if json:
        print_json(outcome.summary)
    else:
        show(outcome.rows, title, wide_console())
    done, planned = outcome.summary["measured"]
    if outcome.interrupted:
        stderr().print(
            f"stopped after {done} of {planned} runs, which are in {folder}; the same command goes on from there",
            markup=False,
        )
        raise KeyboardInterrupt
    kept = f"; {outcome.resumed} of the runs were there already (--fresh measures anew)" if outcome.resumed else ""
    stderr().print(f"{folder / PAGE} shows it, {folder} has all runs{kept}", style="dim", markup=False)


def _defaults(target: str) -> list[str]:
    if target != EMBEDDED:
        return ["lookup"]
    return [EMBEDDED, EMBEDDED_REDRAFTER, "lookup", ",".join((EMBEDDED_REDRAFTER, EMBEDDED, "lookup"))]


def _candidates(target: str, names: list[str]) -> list[Candidate]:
    """What was named, for `load`; a folder that is not there is refused before anything is measured."""
    from anydraft.bench.suite import Candidate
    from anydraft.cli.loading import _require_folder
    from anydraft.errors import OptionConflict

    made: list[Candidate] = []
    shown: set[str] = set()
    for name in names:
        parts = [part.strip() for part in name.split(",")]
        if "none" in parts:
            raise OptionConflict("plain decoding is always measured; leave --drafter none out")
        resolved = [resolve(target, part)[1] for part in parts]
        for path in resolved:
            _require_folder(str(path))
        label = MIX if len(parts) > 1 else Path(name.rstrip("/")).name
        unique = label
        while unique in shown:
            unique = f"{label}-{sum(other.startswith(label) for other in shown) + 1}"
        shown.add(unique)
        made.append(Candidate(unique, resolved[0] if len(parts) == 1 else resolved))
    return made


def _paths(candidates: list[Candidate]) -> list[tuple[str, str]]:
    """Names and places of all drafters that are models."""
    pairs = []
    for candidate in candidates:
        given = candidate.drafter if isinstance(candidate.drafter, list) else [candidate.drafter]
        pairs += [(Path(str(path)).name, str(path)) for path in given if path != "lookup"]
    return pairs


def _prompts(source: str, count: int) -> tuple[Any, bool]:
    from anydraft.bench.prompt_sets import prompt_set

    return prompt_set(source, count)


def _texts(plain: Any, found: Any, limit: int, max_new_tokens: int, chat: bool) -> tuple[Texts, bool]:
    """Prompts that fit the target's context, the first ones to be timed; whether a chat template was used."""
    from anydraft.bench.prompt_sets import encode
    from anydraft.bench.running import Texts

    ids, templated = encode(plain.tokenizer, found.prompts, chat=chat)
    room = plain.target.context_length - max_new_tokens
    fitting = [
        (prompt.id, prompt.text, tokens)
        for prompt, tokens in zip(found.prompts, ids, strict=True)
        if 0 < len(tokens) <= room
    ]
    if len(fitting) < len(ids):
        stderr().print(
            f"{len(ids) - len(fitting)} of {len(ids)} prompts are left out: with {max_new_tokens} new tokens they do "
            "not fit the target's context",
            markup=False,
        )
    return Texts(fitting[:limit], [tokens for *_, tokens in fitting[limit:]]), templated


def _once(values: list[Any], option: str, good: Any, allowed: str) -> list[Any]:
    from anydraft.errors import OptionConflict

    for value in values:
        if not good(value):
            raise OptionConflict(f"{option} must be {allowed}, got {value}")
    return list(dict.fromkeys(values))


def _compare(before: Path, after: Path, *, json: bool) -> None:
    from anydraft.bench.compare import compare, show
    from anydraft.bench.session import wide_console

    found = compare(before, after)
    if json:
        print_json(found.to_dict())
    else:
        show(found, wide_console())
