"""anydraft beside llama.cpp on the same weights, on a CPU, in one run: plain decoding and two drafters.

    python -m venv llama
    CMAKE_ARGS=-DGGML_NATIVE=ON llama/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    python benchmarks/llamacpp.py --llama-python llama/bin/python --enlarge 400e6 --prompts humaneval.jsonl --limit 6

llama.cpp lives in a process of an environment of its own and reads a GGUF file written here, in bfloat16. All
contenders alternate prompt by prompt, one at a time. See benchmarks/README.md for what is fair here and what is not.
"""

import copy
import importlib
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import anydraft
from anydraft import models
from anydraft.bench.contenders import AnydraftContender, TransformersContender
from anydraft.bench.enlarge import enlarge_to
from anydraft.bench.enlarge_network import enlarge_network
from anydraft.bench.gguf_export import Precision, export_gguf
from anydraft.bench.likelihood import Judge
from anydraft.bench.llamacpp import LlamaCpp, LlamaCppContender, agreement
from anydraft.bench.llamacpp_report import RIVAL, aims, beside, markdown
from anydraft.bench.measure import Contender, Plan
from anydraft.bench.prompts import PromptSet, held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance, version
from anydraft.bench.session import collect, wide_console, write_json
from anydraft.bench.tables import speed_table, time_table
from anydraft.networks.registry import load_network

COMPARED = 2  # prompts whose logits are compared
app = typer.Typer(add_completion=False)


@app.command()
def main(
    llama_python: Annotated[Path, typer.Option(help="Python of an environment with llama-cpp-python.")],
    enlarge: Annotated[float, typer.Option(help="Parameters of the target (0: as it is).")] = 400e6,
    redrafter: Annotated[str, typer.Option(help="Folder of a trained drafter, 'embedded', or 'none'.")] = "embedded",
    prompts: Annotated[str, typer.Option(help="A .jsonl file, or 'held-out' for Python files.")] = "held-out",
    limit: Annotated[int, typer.Option(min=1, help="Prompts to time; one more warms up.")] = 6,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    temperature: Annotated[list[float], typer.Option(help="May be repeated.")] = [0.0, 1.0],  # noqa: B006
    q8: Annotated[bool, typer.Option(help="Also llama.cpp with weights of eight bits: another model.")] = False,
    repack: Annotated[bool, typer.Option(help="llama.cpp's own layouts of weights; off where they crash.")] = True,
    packed: Annotated[bool, typer.Option(help="anydraft's weights laid out once for this processor.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Of every contender.")] = 2,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for all files of the run.")] = Path("runs/llamacpp"),
    docs: Annotated[Path | None, typer.Option(help="PREFIX of copies: .md, .summary.json, .provenance.json")] = None,
) -> None:
    """Check that both engines compute the same, time the contenders, print their tables."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    pack = _packer() if packed else None
    console = wide_console()
    chosen = _prompts(prompts, limit + 1)
    place = str(models.path("target"))
    tokenizer = AutoTokenizer.from_pretrained(place)
    encoded = [(prompt.id, list(tokenizer(prompt.text)["input_ids"])) for prompt in chosen.prompts]
    small = _model(place, torch.bfloat16)
    large = enlarge_to(small, enlarge, seed=seed) if enlarge else copy.deepcopy(small)
    size = f"{large.num_parameters() / 1e6:.0f} M parameters"
    name = "embedded target" + (f" enlarged to {size} (same answers)" if enlarge else f", {size}")
    warm_up = encoded[-1][1]
    context = max(len(ids) for _, ids in encoded) + max_new_tokens
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anydraft-bench-")))
        kinds: list[Precision] = ["bf16", "q8_0"] if q8 else ["bf16"]
        engines: dict[str, LlamaCpp] = {}
        for kind in kinds:
            export_gguf(large, folder / f"{kind}.gguf", precision=kind)
            label = RIVAL if kind == "bf16" else f"{RIVAL}-{kind}"
            try:
                engine = LlamaCpp(
                    str(llama_python), folder / f"{kind}.gguf", threads=threads, context=context, repack=repack
                )
                engines[label] = stack.enter_context(engine)
                engine.ask(ids=warm_up, n=1)
            except ValueError as error:
                raise typer.BadParameter(f"{error}; is --llama-python right, and does --no-repack help?") from error
        console.print(engines[RIVAL].about, markup=False)
        compared = [ids for _, ids in encoded[:COMPARED]]
        agreed = _agreement(place, large, engines, compared)
        for label, found in agreed.items():
            console.print(f"logits, {label} and float32: {_line(found)}", markup=False)
        trials = {label: engine.flash_trials(warm_up, max_new_tokens) for label, engine in engines.items()}
        flash = {label: seconds[True] < seconds[False] for label, seconds in trials.items()}
        idle = engines[RIVAL].idle_load(warm_up)
        console.print(f"flash attention, the quicker way: {flash}; idle, llama.cpp keeps {idle:.3f} processors busy")
        made: list[Contender] = [LlamaCppContender(label, engines[label], flash=flash[label]) for label in engines]
        made.append(TransformersContender("transformers", copy.deepcopy(large)))
        made += _ours(small, large, tokenizer, redrafter, pack)
        plan = Plan(
            prompts=encoded[:limit],
            temperatures=temperature,
            max_new_tokens=max_new_tokens,
            warm_up=warm_up,
            seed=seed,
            judge=Judge(small),
        )
        taken = provenance(
            dtype=torch.bfloat16,
            seed=seed,
            target=name,
            redrafter=Path(redrafter).name,
            packed=packed,
            repack=repack,
            llamacpp=engines[RIVAL].about,
            gguf=version("gguf"),
            flash_attention=flash,
            flash_seconds={label: {str(key): value for key, value in part.items()} for label, part in trials.items()},
            idle_load=idle,
            logits=agreed,
            prompts=chosen.source,
            prompts_digest=chosen.digest,
            prompts_timed=len(plan.prompts),
            max_new_tokens=max_new_tokens,
            temperatures=temperature,
        )
        records = collect(made, plan, out=out, provenance=taken, console=console)
    title = f"llama.cpp and anydraft: {name}, {chosen.source}, bfloat16, {threads} threads"
    found = beside(records, seed=seed)
    reached = aims(found)
    rows = [of.row for of in found]
    console.print(speed_table(rows, title), time_table(rows))
    for aim in reached:
        console.print(f"{aim.aim}: {aim.found}, {'holds' if aim.holds else 'does not hold'}", markup=False)
    summary = {"rows": [of.to_dict() for of in found], "aims": [aim.to_dict() for aim in reached], "logits": agreed}
    write_json(out / "summary.json", summary)
    (out / "table.md").write_text(markdown(found, title, agreed), "utf-8")
    if docs is not None:
        _copy(out, docs, console)


def _ours(
    small: PreTrainedModel, large: PreTrainedModel, tokenizer: Any, redrafter: str, pack: Any
) -> list[AnydraftContender]:
    """Plain decoding, an assistant with another tokenizer and the ReDrafter, all on one target."""
    assistant = _model(str(models.path("assistant")), torch.bfloat16)
    drafters: dict[str, dict[str, Any]] = {
        "anydraft": {"drafter": None},
        "anydraft-uag": {
            "drafter": assistant,
            "assistant_tokenizer": AutoTokenizer.from_pretrained(models.path("assistant")),
        },
    }
    if redrafter != "none":
        network = load_network(
            models.path("redrafter") if redrafter == "embedded" else Path(redrafter), dtype=torch.bfloat16
        )
        network.attach(small)  # refuses a drafter of another target
        grows = large.config.hidden_size > small.config.hidden_size
        drafters["anydraft-redrafter"] = {"drafter": enlarge_network(network, large) if grows else network}
    if pack is not None:
        pack(large)
        pack(assistant, drafter=True)
    return [
        AnydraftContender(name, anydraft.load(large, tokenizer=tokenizer, **options))
        for name, options in drafters.items()
    ]


def _agreement(
    place: str, large: PreTrainedModel, engines: dict[str, LlamaCpp], prompts: list[list[int]]
) -> dict[str, dict[str, float]]:
    """Each engine's logits against the small model's in float32, which is the same function without rounding."""
    with torch.inference_mode():
        scores = {"transformers": [large(torch.tensor([ids])).logits[0] for ids in prompts]}
    for label, engine in engines.items():
        scores[label] = [engine.logits(ids) for ids in prompts]
    return agreement(scores, _model(place, torch.float32), prompts)


def _line(found: dict[str, float]) -> str:
    return (
        f"same choice at {found['same_choice']:.1%} of {found['positions']:.0f} positions, log probabilities "
        f"{found['mean']:.4f} nats apart on average, {found['largest']:.3f} at most"
    )


def _packer() -> Any:
    try:
        return importlib.import_module("anydraft.packing").pack
    except ImportError as error:
        raise typer.BadParameter("this version of anydraft cannot pack weights; add --no-packed") from error


def _prompts(name: str, count: int) -> PromptSet:
    try:
        return held_out_prompts(limit=count) if name == "held-out" else read_prompts(Path(name), count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _model(place: str, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).eval()


def _copy(out: Path, docs: Path, console: Console) -> None:
    docs.parent.mkdir(parents=True, exist_ok=True)
    for source in ("table.md", "summary.json", "provenance.json"):
        Path(f"{docs}.{source.removeprefix('table.')}").write_text((out / source).read_text("utf-8"), "utf-8")
    console.print(f"copies at {docs}.md, .summary.json and .provenance.json", markup=False)


if __name__ == "__main__":
    app()
