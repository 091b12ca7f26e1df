"""`anydraft train`: a drafter for a target, from the target's own answers."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anydraft.cli import options as opt
from anydraft.cli.generate import print_json
from anydraft.cli.loading import resolve, status, stderr, warm_up
from anydraft.cli.training_bar import TrainingBar, covers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LENGTH = "How long"
LEARNING = "Learning"
DATA = "Data"


class Kind(StrEnum):
    """What can be trained."""

    redrafter = "redrafter"
    medusa = "medusa"
    eagle = "eagle"


def train(
    kind: Annotated[Kind, typer.Argument(help="What to train.")],
    target: opt.Target,
    out: Annotated[str, typer.Option(help="Folder for the trained drafter.", rich_help_panel=opt.OUTPUT)],
    glob: Annotated[
        str | None, typer.Option(help="Which files of raw:FOLDER, such as '*.py'.", rich_help_panel=DATA)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder written by `anydraft distill`, or raw:PATH for raw text (a file or folder).",
            rich_help_panel=DATA,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --data: prompts as `anydraft distill` takes them, which the target answers first "
            "(OUT/answers).",
            rich_help_panel=DATA,
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="For redrafter: 'lean' (default), or 'redrafter', Apple's.", rich_help_panel=LEARNING),
    ] = None,
    recall_heads: Annotated[
        int | None,
        typer.Option(help="Lean form: heads that look up the text before; 0 = none.", rich_help_panel=LEARNING),
    ] = None,
    state_size: Annotated[
        int | None, typer.Option(help="For lean: width of its state. Default: 512.", rich_help_panel=LEARNING)
    ] = None,
    num_layers: Annotated[
        int | None, typer.Option(help="For redrafter: residual blocks. Default: 2.", rich_help_panel=LEARNING)
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="For lean: 'gated' (default) or 'elman'.", rich_help_panel=LEARNING)
    ] = None,
    objective: Annotated[
        str, typer.Option(help="'kl': the target's distribution; 'ce': its tokens alone.", rich_help_panel=LEARNING)
    ] = "kl",
    depth: Annotated[
        int | None,
        typer.Option(help="Deepest prediction taught (Medusa: heads). Default: 6.", rich_help_panel=LEARNING),
    ] = None,
    depth_decay: Annotated[
        float, typer.Option(help="Weight of a depth relative to the one before.", rich_help_panel=LEARNING)
    ] = 0.9,
    rows_share: Annotated[
        float, typer.Option(help="Share of the positions each loss is taken over.", rich_help_panel=LEARNING)
    ] = 1.0,
    vocabulary: Annotated[
        int | None,
        typer.Option(help="Draft only so many of the answers' most frequent tokens.", rich_help_panel=LEARNING),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="By the clock.", rich_help_panel=LENGTH)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", rich_help_panel=LENGTH)] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the weights.", rich_help_panel=LENGTH)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many estimates without a better one.", rich_help_panel=LENGTH)
    ] = None,
    evaluations: Annotated[int, typer.Option(help="Estimates over the run.", rich_help_panel=LENGTH)] = 20,
    batch_tokens: Annotated[int, typer.Option(help="Positions of a batch.", rich_help_panel=DATA)] = 4096,
    accumulate: Annotated[int, typer.Option(help="Batches of an update.", rich_help_panel=DATA)] = 1,
    held_out: Annotated[float, typer.Option(help="Share of prompts for the estimate.", rich_help_panel=DATA)] = 0.02,
    cache_features: Annotated[
        bool,
        typer.Option(
            "--cache-features", help="Keep the target's hidden states on disk, beside the data.", rich_help_panel=DATA
        ),
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first.", rich_help_panel=LEARNING)
    ] = False,
    lr: Annotated[float, typer.Option(help="Highest learning rate.", rich_help_panel=LEARNING)] = 1e-3,
    warmup: Annotated[int, typer.Option(help="Updates until it is reached.", rich_help_panel=LEARNING)] = 30,
    optimizer: Annotated[str, typer.Option(help="'adamw' or 'muon'.", rich_help_panel=LEARNING)] = "adamw",
    seed: Annotated[int, typer.Option(help="Of order, weights and noise.", rich_help_panel=LEARNING)] = 0,
    precision: Annotated[str, typer.Option(help="'bf16' or 'fp32'.", rich_help_panel=LEARNING)] = "bf16",
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Between two checkpoints.", rich_help_panel=opt.OUTPUT)
    ] = 5.0,
    log: Annotated[str, typer.Option(help="'jsonl' or 'tensorboard'.", rich_help_panel=opt.OUTPUT)] = "jsonl",
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    threads: opt.Threads = None,
    trust_remote_code: opt.TrustRemoteCode = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Train a drafter for a target. Run the same command again after an interruption: it goes on."""
    from anydraft.errors import OptionConflict

    shape = {"arch": arch, "state_size": state_size, "num_layers": num_layers, "cell": cell}
    shape["recall_heads"] = recall_heads
    sizes: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    if sizes and kind != Kind.redrafter:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in sizes)
        raise OptionConflict(f"{given}: for redrafter only; leave it out for {kind.value}")
    if kind == Kind.eagle and depth not in (None, 1):
        raise OptionConflict("EAGLE is taught one step and drafts deeper by itself; leave out --depth")
    if (data is None) == (prompts is None):
        raise OptionConflict("give one of --data (answers of `anydraft distill`) and --prompts (to be answered first)")
    warm_up()
    try:
        import accelerate  # noqa: F401
    except ImportError as problem:
        raise OptionConflict("training needs accelerate: pip install 'anydraft[train]'") from problem
    import torch
    import transformers

    from anydraft.pretrained import load_model, load_tokenizer
    from anydraft.training.processes import is_main, own_device
    from anydraft.training.settings import TrainingSettings
    from anydraft.training.train import train as run

    settings = TrainingSettings(
        objective=objective,  # type: ignore[arg-type]
        depth=depth if depth is not None else 1 if kind == Kind.eagle else 6,
        depth_decay=depth_decay,
        rows_share=rows_share,
        minutes=minutes,
        steps=steps,
        epochs=epochs,
        batch_tokens=batch_tokens,
        accumulate=accumulate,
        lr=lr,
        warmup=warmup,
        optimizer=optimizer,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        held_out=held_out,
        evaluations=evaluations,
        patience=patience,
        compile=compile,
        cache_features=cache_features,
        seed=seed,
    )
    transformers.utils.logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    name, _ = resolve(target, "none")
    device = device if device is not None else own_device()
    with status(f"loading {target}"):
        model = load_model(
            name, role="target", dtype=dtype, device=device, trust_remote_code=trust_remote_code, packed=False
        )
        tokenizer = load_tokenizer(name, trust_remote_code)
    if prompts is not None:
        data = _answers(model, tokenizer, prompts, Path(out) / "answers", glob, seed)
        glob = None
    console = stderr()
    with TrainingBar(is_main()) as bar:
        done = run(
            kind.value,
            model,
            tokenizer,
            str(data),
            out,
            settings,
            vocabulary=vocabulary,
            glob=glob,
            checkpoint_minutes=checkpoint_minutes,
            log=log,  # type: ignore[arg-type]
            listener=bar,
            advance=bar.prepare,
            announce=partial(console.print, markup=False),
            **sizes,
        )
    if not is_main():
        return
    if json:
        print_json(done)
        return
    found = done["estimate"]
    said = f", {found['tokens_per_pass']:.2f} tokens per pass estimated{covers(found)}" if found else ""
    words = f"{out}: {done['step']} steps, {done['tokens']:,} tokens, {done['seconds'] / 60:.1f} minutes{said}"
    console.print(words, markup=False)


def _answers(
    model: PreTrainedModel, tokenizer: Any, prompts: Path, folder: Path, glob: str | None, seed: int
) -> str:
    """Let the target answer the prompts, with the defaults of `anydraft distill`."""
    from anydraft.cli.distill import answer
    from anydraft.errors import OptionConflict
    from anydraft.target import Target
    from anydraft.training.plan import AnswerSettings
    from anydraft.training.processes import number
    from anydraft.training.prompts import read_prompts

    if number() > 1:
        raise OptionConflict("--prompts is for one process; run `anydraft distill` first and give its folder as --data")
    texts = read_prompts(prompts, glob=glob or "*", seed=seed)
    answer(Target(model, tokenizer), texts, folder, AnswerSettings(seed=seed))
    return str(folder)
