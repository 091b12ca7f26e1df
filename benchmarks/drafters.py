"""Trained drafters side by side on one target in one run: both ReDrafters, Medusa and EAGLE, beside UAG and lookup.

    python benchmarks/drafters.py --redrafter DIR --apple DIR --medusa DIR --eagle DIR --prompts humaneval.jsonl
    python benchmarks/drafters.py --redrafter DIR --drafter corpus-trained=DIR --enlarge 400e6 --limit 6

Every drafter drafts for every number of verified nodes, all of them alternating prompt by prompt with plain decoding
and with single passes of the target. See benchmarks/README.md for the columns and for what an enlarged target can show.
"""

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import anydraft
from anydraft import models
from anydraft.bench.aims import aims
from anydraft.bench.drafting import DraftedRun, DraftingContender, sizes_of
from anydraft.bench.drafting_report import summarise_drafting
from anydraft.bench.drafting_tables import markdown
from anydraft.bench.enlarge import enlarge_to
from anydraft.bench.enlarge_network import enlarge_network
from anydraft.bench.likelihood import Judge
from anydraft.bench.measure import Plan, Record
from anydraft.bench.passes import PassTimer, seconds_of
from anydraft.bench.prompts import PromptSet, held_out_prompts, read_prompts
from anydraft.bench.provenance import provenance
from anydraft.bench.session import collect, read_records, wide_console, write_json
from anydraft.bench.surroundings import surround
from anydraft.drafters.trained import trained_drafter
from anydraft.networks.registry import load_network
from anydraft.target import Target

PEERS = ("uag", "lookup")
WARM_UP = 32  # tokens
GUESSED_TAU, GUESSED_COST = 2.0, 0.3  # for the estimate only: tokens a pass, and a draft in plain passes
app = typer.Typer(add_completion=False)
Folder = Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="A trained drafter.")]


@app.command()
def main(
    target: Annotated[str, typer.Option(help="Folder or hub name, or 'embedded'.")] = "embedded",
    redrafter: Folder = None,
    apple: Folder = None,
    medusa: Folder = None,
    eagle: Folder = None,
    drafter: Annotated[list[str], typer.Option(help="NAME=DIR, one more; tau is also given over its own.")] = [],  # noqa: B006
    assistant: Annotated[str, typer.Option(help="Folder, hub name, 'embedded', or 'none'.")] = "embedded",
    lookup: bool = True,
    nodes: Annotated[list[str], typer.Option(help="Verified a pass, root included; or 'default'.")] = [  # noqa: B006
        "4",
        "8",
        "16",
        "32",
        "default",
    ],
    peer_nodes: Annotated[list[str], typer.Option(help="Those of uag and lookup; by default the same.")] = [],  # noqa: B006
    prompts: Annotated[list[str], typer.Option(help="A .jsonl file, or 'held-out'.")] = ["held-out"],  # noqa: B006
    limit: Annotated[int, typer.Option(min=1, help="Prompts of each set.")] = 6,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 96,
    temperature: Annotated[list[float], typer.Option(help="May be repeated.")] = [0.0, 1.0],  # noqa: B006
    enlarge: Annotated[float, typer.Option(help="Give the target the cost of so many parameters (400e6).")] = 0.0,
    dtype: str = "bfloat16",
    device: str = "cpu",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder for all files of the run.")] = Path("runs/drafters"),
    docs: Annotated[Path | None, typer.Option(help="PREFIX of copies: .md, .summary.json, .provenance.json")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say how long it would take, and stop.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Figures of the runs in OUT, without measuring.")] = False,
) -> None:
    """Time the drafters and print their tables."""
    try:
        precision = surround(dtype, threads)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    counts = [_nodes(count) for count in nodes]
    of_peers = [_nodes(count) for count in peer_nodes] or counts
    extra = dict(_named(text) for text in drafter)
    given = {"medusa": medusa, "eagle": eagle, "apple": apple, "redrafter": redrafter, **extra}
    folders = {name: folder for name, folder in given.items() if folder is not None}
    baselines = [("redrafter", name) for name in extra]
    console = wide_console()
    if again:
        if not (out / "runs.jsonl").is_file():
            raise typer.BadParameter(f"--again needs the runs of an earlier measurement, and {out} has none")
        kept = read_records(out / "runs.jsonl", DraftedRun)
        _report(kept, out, docs, baselines, (out / "title.txt").read_text("utf-8").strip(), seed, console)
        return
    sets = [_prompts(name, limit + 1) for name in prompts]
    place = str(models.path("target")) if target == "embedded" else target
    tokenizer = AutoTokenizer.from_pretrained(place)
    small = _model(place, precision, device)
    large = enlarge_to(small, enlarge, seed=seed) if enlarge else small
    size = f"{large.num_parameters() / 1e6:.0f} M parameters"
    name = f"{Path(target).name} target" + (f" enlarged to {size} (same answers)" if enlarge else f", {size}")
    decoders = _decoders(small, large, tokenizer, folders, assistant, lookup, precision)
    verifier = decoders["plain"].target
    timer = PassTimer(verifier, sizes_of([*counts, *of_peers]))
    contenders = [DraftingContender("plain", decoders.pop("plain"), None, timer)]
    for count in dict.fromkeys([*counts, *of_peers]):
        contenders += [
            DraftingContender(drafts, anydraft.Decoder(verifier, decoder.drafter), count, timer)
            for drafts, decoder in decoders.items()
            if count in (of_peers if drafts in PEERS else counts)
        ]
    encoded = {
        label: [(f"{label}:{prompt.id}", list(tokenizer(prompt.text)["input_ids"])) for prompt in chosen.prompts]
        for label, chosen in sets
    }
    plan = Plan(
        prompts=[prompt for chosen in encoded.values() for prompt in chosen[:limit]],
        temperatures=temperature,
        max_new_tokens=max_new_tokens,
        warm_up=next(iter(encoded.values()))[-1][1],
        warm_up_tokens=min(WARM_UP, max_new_tokens),
        seed=seed,
        judge=Judge(small),
    )
    minutes = _estimated(plan, contenders, timer) / 60
    console.print(f"{name}: {len(contenders)} contenders, {len(plan.prompts)} prompts")
    console.print(f"about {minutes:.0f} min at the present load")
    if estimate:
        return
    title = f"Drafters: {name}, {dtype}, {threads} threads"
    taken = provenance(
        dtype=precision,
        seed=seed,
        target=name,
        assistant=Path(assistant).name,
        drafters={drafts: _described(folder) for drafts, folder in folders.items()},
        nodes=nodes,
        peer_nodes=peer_nodes or nodes,
        prompts={label: {"source": chosen.source, "digest": chosen.digest} for label, chosen in sets},
        prompts_timed=len(plan.prompts),
        max_new_tokens=max_new_tokens,
        temperatures=temperature,
        device=device,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "title.txt").write_text(title + "\n", "utf-8")
    records = collect(contenders, plan, out=out, provenance=taken, console=console)
    _report(records, out, docs, baselines, title, seed, console)


def _report(
    records: list[Record],
    out: Path,
    docs: Path | None,
    baselines: list[tuple[str, str]],
    title: str,
    seed: int,
    console: Console,
) -> None:
    rows = summarise_drafting(records, baselines=baselines, seed=seed)
    summary = {"rows": [row.to_dict() for row in rows], "aims": [aim.to_dict() for aim in aims(rows)]}
    table = markdown(rows, title)
    write_json(out / "summary.json", summary)
    (out / "table.md").write_text(table, "utf-8")
    if docs is not None:
        docs.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{docs}.md").write_text(table, "utf-8")
        for part in ("summary.json", "provenance.json"):
            Path(f"{docs}.{part}").write_text((out / part).read_text("utf-8"), "utf-8")
    console.print(table, markup=False, soft_wrap=True)


def _decoders(
    small: PreTrainedModel,
    large: PreTrainedModel,
    tokenizer: Any,
    folders: dict[str, Path],
    assistant: str,
    lookup: bool,
    dtype: torch.dtype,
) -> dict[str, anydraft.Decoder]:
    """A decoder of every drafter for the one target; `plain` has none."""
    target = Target(large, tokenizer)
    made = {"plain": anydraft.Decoder(target)}
    if assistant != "none":
        place = str(models.path("assistant")) if assistant == "embedded" else assistant
        made["uag"] = anydraft.load(large, drafter=place, tokenizer=tokenizer, device=str(large.device))
    if lookup:
        made["lookup"] = anydraft.load(large, drafter="lookup", tokenizer=tokenizer)
    for name, folder in folders.items():
        network = load_network(folder, dtype=dtype).to(large.device)
        network.attach(small)  # refuses a drafter of another target
        grown = network if large is small else enlarge_network(network, large)
        made[name] = anydraft.Decoder(target, trained_drafter(target, grown))
    return made


def _estimated(plan: Plan, contenders: list[DraftingContender], timer: PassTimer) -> float:
    """Seconds that the whole plan will take, roughly: passes are timed, the rest is guessed."""
    context = len(plan.warm_up)
    timer.sweep(context)  # the first use of a shape takes longer
    sweep = [timer.sweep(context) for _ in range(2)]
    own = {size: min(timed[size] for timed in sweep) for size in timer.sizes}
    start = time.perf_counter()
    timer.target.prefill(timer.target.new_cache(1, context), 0, plan.warm_up)
    prefill = time.perf_counter() - start
    sweeps = (sum(own.values()) + prefill) * len(contenders)
    passes = 0.0
    for contender in contenders:
        drafts = contender.decoder.drafter is not None
        cost = seconds_of([(contender.nodes or 32) if drafts else 1], own)
        passes += (cost + GUESSED_COST * own[1]) / GUESSED_TAU if drafts else cost
    warm = (plan.warm_up_tokens or 0) * passes + sweeps
    return len(plan.temperatures) * (warm + len(plan.prompts) * (plan.max_new_tokens * passes + sweeps))


def _nodes(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdigit() or int(text) < 2:
        raise typer.BadParameter(f"--nodes is a number >= 2 (root included) or 'default', got {text!r}")
    return int(text)


def _named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not Path(folder).is_dir():
        raise typer.BadParameter(f"--drafter is NAME=DIR with an existing folder, got {text!r}")
    return name, Path(folder)


def _prompts(name: str, count: int) -> tuple[str, PromptSet]:
    try:
        if name == "held-out":
            return name, held_out_prompts(limit=count)
        return Path(name).stem, read_prompts(Path(name), count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _model(place: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(place, dtype=dtype).to(device).eval()


def _described(folder: Path) -> dict[str, Any]:
    weights = folder / "model.safetensors"
    return {"folder": folder.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}


if __name__ == "__main__":
    app()
