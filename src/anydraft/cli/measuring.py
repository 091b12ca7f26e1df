"""What `bench` and `recommend` share: from names on the command line to a measurement that can begin."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anydraft.cli.candidates import named, places_of, short, unique
from anydraft.cli.loading import _require_folder, resolve, status, stderr, warm_up

if TYPE_CHECKING:
    from anydraft.bench.prompts import PromptSet
    from anydraft.bench.running import Texts
    from anydraft.bench.settings import Settings
    from anydraft.bench.suite import Suite
    from anydraft.decoder import Decoder

MEASURE = "Measurement"
HELD_OUT = "held-out"

Prompts = Annotated[
    str,
    typer.Option(
        help='A file of {"id", "turns"} lines; "held-out" for Python files of this installation; humaneval, mt_bench, '
        "alpaca_eval, gsm8k or spec_bench from the net.",
        rich_help_panel=MEASURE,
    ),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--no-chat",
        help="Put prompts into the target's chat template; default: those of chat sets.",
        rich_help_panel=MEASURE,
    ),
]
Temperatures = Annotated[
    list[float] | None,
    typer.Option("--temperature", "-t", help="May be repeated. Default: 0 and 1.", rich_help_panel=MEASURE),
]
Seed = Annotated[int, typer.Option(help="Of the first prompt's noise.", rich_help_panel=MEASURE)]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A measurement as it was asked for on the command line."""

    target: str
    drafters: Sequence[str]
    prompts: str = HELD_OUT
    limit: int
    temperatures: Sequence[float] = (0.0, 1.0)
    batches: Sequence[int] = (1,)
    max_new_tokens: int
    chat: bool | None = None
    peers: bool = False
    seed: int = 0
    dtype: str | None = None
    device: str | None = None
    exact: bool = False
    draft_tokens: int | None = None
    threads: int | None = None
    any_target: bool = False
    trust_remote_code: bool = False
    debug: bool = False


@dataclass(frozen=True)
class Ready:
    """Everything that `run_bench` takes."""

    suite: Suite
    texts: Texts
    settings: Settings
    title: str
    provenance: dict[str, Any]


def ready(asked: Asked) -> Ready:
    """Read prompts, load models.

    Raises:
        AnydraftError: bad input; a drafter that is there but cannot be loaded is not, it is reported as broken.
    """
    _require(asked)
    if asked.debug:  # what fails is a result; its traceback is in the log
        logging.basicConfig()
        logging.getLogger("anydraft.bench").setLevel(logging.INFO)
    candidates = named(asked.target, asked.drafters)
    warm_up()
    import torch
    import transformers

    from anydraft.bench.prompt_sets import prompt_set
    from anydraft.bench.provenance import provenance
    from anydraft.bench.settings import Settings, fingerprint, versions
    from anydraft.bench.suite import load_suite

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    place = str(resolve(asked.target, "none")[0])
    _require_folder(place)
    with status("reading prompts"):
        found, is_chat = prompt_set(asked.prompts, asked.limit + max(asked.batches))
    with status(f"loading {asked.target} and {len(candidates)} drafters"):
        suite = load_suite(
            place,
            candidates,
            peers=asked.peers,
            dtype=asked.dtype,
            device=asked.device,
            exact=asked.exact,
            draft_tokens=asked.draft_tokens,
            any_target=asked.any_target,
            trust_remote_code=asked.trust_remote_code,
        )
    model = suite.plain.target
    texts, templated = _texts(suite.plain, found, asked, is_chat if asked.chat is None else asked.chat)
    if templated:
        suite.write_draft_prompts([(tokens, text) for _, text, tokens in texts.timed])
    settings = Settings(
        target=asked.target,
        drafters=tuple(asked.drafters),
        models={name: fingerprint(path) for name, path in [(asked.target, place), *places_of(candidates)]},
        prompts=found.source,
        prompts_digest=found.digest,
        prompt_form="chat template" if templated else "text to continue",
        num_prompts=len(texts.timed),
        temperatures=tuple(asked.temperatures),
        batches=tuple(asked.batches),
        max_new_tokens=asked.max_new_tokens,
        seed=asked.seed,
        peers=asked.peers,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        threads=torch.get_num_threads(),
        exact=asked.exact,
        draft_tokens=asked.draft_tokens,
        any_target=asked.any_target,
        versions=versions(),
    )
    name = Path(asked.target).name
    title = f"{name}, {len(texts.timed)} prompts ({found.source}), {settings.dtype} on {model.device.type}"
    # Folders are named by their last part: what is published says nothing of the machine it was made on.
    kept = settings.to_dict() | {"target": name, "drafters": [short(drafter) for drafter in asked.drafters]}
    for part in ("dtype", "seed", "versions", "models", "threads"):
        kept.pop(part)
    kept["models"] = {short(model_name): digest for model_name, digest in settings.models.items()}
    taken = provenance(dtype=model.dtype, seed=asked.seed, settings_digest=settings.digest, **kept)
    return Ready(suite, texts, settings, title, taken)


def _require(asked: Asked) -> None:
    from anydraft.errors import OptionConflict

    def each(option: str, values: Sequence[float], good: Callable[[float], bool], allowed: str) -> None:
        for value in values:
            if not good(value):
                raise OptionConflict(f"{option} must be {allowed}, got {value}")

    each("--temperature", asked.temperatures, lambda value: 0 <= value < float("inf"), "a number of 0 or more")
    each("--batch", asked.batches, lambda value: value >= 1, "1 or more")
    each("--max-new-tokens", [asked.max_new_tokens], lambda value: value >= 1, "1 or more")
    if max(asked.batches) > asked.limit:
        raise OptionConflict(
            f"--batch {max(asked.batches)} needs at least as many prompts, and --limit is {asked.limit}; raise --limit"
        )


def _texts(plain: Decoder, found: PromptSet, asked: Asked, chat: bool) -> tuple[Texts, bool]:
    """Prompts that fit the target's context, the first ones to be timed; whether a chat template was used."""
    from anydraft.bench.prompt_sets import encode
    from anydraft.bench.running import Texts
    from anydraft.errors import OptionConflict

    ids, templated = encode(plain.tokenizer, found.prompts, chat=chat)
    room = plain.target.context_length - asked.max_new_tokens
    if asked.chat and not templated:
        raise OptionConflict(
            f"--chat needs a chat template, and the tokenizer of {asked.target!r} has none; leave it out"
        )
    triples = zip(unique([prompt.id for prompt in found.prompts]), found.prompts, ids, strict=True)
    fitting = [(name, prompt.text, tokens) for name, prompt, tokens in triples if 0 < len(tokens) <= room]
    most = max(asked.batches)
    if len(fitting) < most:
        raise OptionConflict(
            f"only {len(fitting)} of {len(ids)} prompts fit the target's context of {plain.target.context_length} "
            f"tokens with --max-new-tokens {asked.max_new_tokens}, and --batch {most} needs that many; give shorter or "
            "more prompts, or fewer new tokens"
        )
    if len(fitting) < len(ids):
        stderr().print(
            f"{len(ids) - len(fitting)} of {len(ids)} prompts are left out, because with {asked.max_new_tokens} new "
            "tokens they do not fit the target's context",
            markup=False,
        )
    return Texts(fitting[: asked.limit], [tokens for *_, tokens in fitting[asked.limit :]]), templated
