"""Universal assisted generation, side by side: transformers and anydraft, plain and with an assistant of
another tokenizer, on one target in one run.

    python benchmarks/uag.py --prompts humaneval.jsonl --limit 20
    python benchmarks/uag.py --prompts held-out --limit 20 --enlarge 400e6

Every contender decodes the same number of tokens from the same token ids, alternating prompt by prompt. See
benchmarks/README.md for what the columns mean and what an enlarged target can and cannot show.
"""

import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import anydraft
from anydraft import models
from anydraft.bench.contenders import AnydraftContender, TransformersContender
from anydraft.bench.enlarge import enlarge_to
from anydraft.bench.likelihood import Judge
from anydraft.bench.measure import Contender, Plan
from anydraft.bench.prompts import PromptSet, held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance
from anydraft.bench.session import run_session
from anydraft.bench.surroundings import surround


class Name(StrEnum):
    """The contenders."""

    TRANSFORMERS = "transformers"
    TRANSFORMERS_UAG = "transformers-uag"
    ANYDRAFT = "anydraft"
    ANYDRAFT_UAG = "anydraft-uag"
    ANYDRAFT_LOOKUP = "anydraft-lookup"


DEFAULT = [Name.TRANSFORMERS, Name.TRANSFORMERS_UAG, Name.ANYDRAFT, Name.ANYDRAFT_UAG]
app = typer.Typer(add_completion=False)


@app.command()
def main(
    target: Annotated[str, typer.Option(help="Folder or hub name; 'embedded' is the pair's own.")] = "embedded",
    assistant: Annotated[str, typer.Option(help="Folder or hub name, or 'embedded'.")] = "embedded",
    prompts: Annotated[str, typer.Option(help="A .jsonl file, or 'held-out' for Python files.")] = "held-out",
    limit: Annotated[int, typer.Option(min=1, help="Prompts to time; one more warms up.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[list[float], typer.Option(help="May be repeated.")] = [0.0, 1.0],  # noqa: B006
    contender: Annotated[list[Name], typer.Option(help="May be repeated.")] = DEFAULT,
    enlarge: Annotated[float, typer.Option(help="Give the target the cost of so many parameters (400e6).")] = 0.0,
    dtype: str = "bfloat16",
    exact: Annotated[bool, typer.Option(help="anydraft's fixed shapes: same tokens in bfloat16 too.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for runs.jsonl, summary.json, provenance.json.")] = Path("runs/uag"),
) -> None:
    """Time the contenders and print their table."""
    try:
        precision = surround(dtype, threads)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    chosen = _prompts(prompts, limit + 1)
    with ExitStack() as stack:
        place, draft_place = _folder(target, "target"), _folder(assistant, "assistant")
        judge = place  # an enlarged target gives the same answers, at its cost
        name = Path(target).name
        if enlarge:
            place, parameters = _enlarged(place, enlarge, precision, seed, stack)
            name += f" enlarged to {parameters / 1e6:.0f} M parameters (same answers)"
        tokenizer = AutoTokenizer.from_pretrained(place)
        encoded = [(prompt.id, list(tokenizer(prompt.text)["input_ids"])) for prompt in chosen.prompts]
        plan = Plan(
            prompts=encoded[:limit],
            temperatures=temperature,
            max_new_tokens=max_new_tokens,
            warm_up=encoded[-1][1],
            seed=seed,
            judge=Judge(_model(judge, precision)),
        )
        made = [_contender(name, place, draft_place, precision, exact) for name in contender]
        run_session(
            made,
            plan,
            out=out,
            title=f"{name}, {chosen.source}, {dtype}, {threads} threads",
            provenance=provenance(
                dtype=precision,
                seed=seed,
                target=name,
                assistant=Path(assistant).name,
                exact=exact,
                prompts=chosen.source,
                prompts_digest=chosen.digest,
                prompts_timed=len(plan.prompts),
                max_new_tokens=max_new_tokens,
                temperatures=temperature,
                contenders=[str(name) for name in contender],
            ),
        )


def _prompts(name: str, count: int) -> PromptSet:
    try:
        return held_out_prompts(limit=count) if name == "held-out" else read_prompts(Path(name), count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _folder(name: str, role: Literal["target", "assistant"]) -> str:
    return str(models.path(role)) if name == "embedded" else name


def _model(place: str, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).eval()


def _enlarged(place: str, parameters: float, dtype: torch.dtype, seed: int, stack: ExitStack) -> tuple[str, int]:
    """A folder with the enlarged target, for every contender to load as any other, and its parameters."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="anydraft-bench-"))
    large = enlarge_to(_model(place, dtype), parameters, seed=seed)
    large.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place).save_pretrained(folder)
    return folder, large.num_parameters()


def _contender(name: Name, target: str, assistant: str, dtype: torch.dtype, exact: bool) -> Contender:
    """A contender with models of its own, since transformers changes what it is given."""
    if name is Name.TRANSFORMERS:
        return TransformersContender(name, _model(target, dtype))
    if name is Name.TRANSFORMERS_UAG:
        tokenizers = AutoTokenizer.from_pretrained(target), AutoTokenizer.from_pretrained(assistant)
        return TransformersContender(
            name, _model(target, dtype), tokenizers[0], _model(assistant, dtype), tokenizers[1]
        )
    drafter: Any = {Name.ANYDRAFT: None, Name.ANYDRAFT_UAG: assistant, Name.ANYDRAFT_LOOKUP: "lookup"}[name]
    return AnydraftContender(name, anydraft.load(target, drafter=drafter, dtype=dtype, exact=exact))


if __name__ == "__main__":
    app()
