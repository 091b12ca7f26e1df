"""The command line of the recipe: `python -m recipes.pycode COMMAND --work FOLDER`."""

import json
import logging
import sys
import sysconfig
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from recipes.pycode import corpus, evaluate, vocabularies
from recipes.pycode.data import OwnTexts, RawWindows
from recipes.pycode.generate import generate
from recipes.pycode.pausing import pause_while
from recipes.pycode.prompts import Pool
from recipes.pycode.train import Plan, Trainer, export, llama_config, new_model
from recipes.pycode.widen import widened
from transformers import LlamaForCausalLM

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Work = Annotated[Path, typer.Option(help="where everything this recipe makes lies")]
PauseFile = Annotated[Path | None, typer.Option(help="sleep while this file exists")]
Megabytes = Annotated[float | None, typer.Option(help="use only so many million characters of the corpus")]
TARGET, ASSISTANT = "pycode-12m", "pycode-2m"
# width, layers, heads, key/value heads, MLP channels
SIZES = {TARGET: (384, 6, 6, 2, 1024), ASSISTANT: (256, 2, 4, 1, 768)}


@app.callback()
def start(threads: int = 2) -> None:
    """Set up what every command needs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)


@app.command("corpus")
def collect_corpus(work: Work, folders: Annotated[list[Path] | None, typer.Argument()] = None) -> None:
    """Collect Python files: the given folders, else the standard library and this environment's packages."""
    paths = sysconfig.get_paths()
    sizes = corpus.collect(folders or [Path(paths["stdlib"]), Path(paths["purelib"])], work / "corpus")
    typer.echo(f"characters: {sizes}")


@app.command("tokenizers")
def train_tokenizers(work: Work, megabytes: Megabytes = 60.0) -> None:
    """Train the two tokenizers anew on the first part of the corpus."""
    texts = corpus.limited(corpus.read_texts(work / "corpus/train.jsonl"), megabytes)
    for role, train in (("target", vocabularies.train_target), ("assistant", vocabularies.train_assistant)):
        train(texts).save_pretrained(work / "tokenizers" / role)


def tokens(work: Path, role: vocabularies.Role, split: str, megabytes: float | None = None) -> np.ndarray:
    """The ids of a split in a tokenizer, uint16, made once and kept."""
    path = work / "tokens" / f"{role}_{split}.npy"
    if not path.exists():
        tokenizer = vocabularies.load(work / "tokenizers" / role)
        texts = corpus.limited(corpus.read_texts(work / f"corpus/{split}.jsonl"), megabytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, corpus.encode(texts, tokenizer, vocabularies.end_of_text(tokenizer)))
        partial.replace(path)
    return np.asarray(np.load(path, mmap_mode="r"))


def start_model(work: Path, name: str, role: vocabularies.Role, init: Path | None, seed: int) -> LlamaForCausalLM:
    """Random weights of the name's sizes, or `init`, widened where it is narrower."""
    tokenizer = vocabularies.load(work / "tokenizers" / role)
    end = vocabularies.end_of_text(tokenizer)
    begin = tokenizer.token_to_id("<s>") or end
    torch.manual_seed(seed)
    if init is None:
        return new_model(tokenizer.get_vocab_size(), end, begin, *SIZES[name])
    model = LlamaForCausalLM.from_pretrained(init, dtype=torch.float32)
    config = llama_config(tokenizer.get_vocab_size(), end, begin, *SIZES[name])
    return model if config.hidden_size == model.config.hidden_size else widened(model, config, seed)


def run_training(
    work: Path,
    name: str,
    role: vocabularies.Role,
    init: Path | None,
    plan: Plan,
    own: OwnTexts | None,
    pause: Path | None,
) -> None:
    """Train or go on, exporting at every checkpoint."""
    trainer = Trainer(start_model(work, name, role, init, plan.seed), plan, work / "runs" / name)
    extras = sorted((work / "tokenizers" / role).glob("tokenizer*.json"))

    def on_checkpoint(model: LlamaForCausalLM) -> None:
        export(model, work / name, extras)
        if own is not None:
            own.refresh()

    trainer.run(RawWindows(tokens(work, role, "train")), own, wait=pause_while(pause), on_checkpoint=on_checkpoint)


@app.command()
def target(
    work: Work,
    minutes: float = 60.0,
    init: Annotated[Path | None, typer.Option(help="go on from this model's weights")] = None,
    pause_file: PauseFile = None,
    seed: int = 0,
) -> None:
    """Train the target on the corpus; started again, it goes on where it was."""
    plan = Plan(minutes=minutes, length=640, matrix_rate=0.012, decay=0.45, seed=seed)
    run_training(work, TARGET, "target", init, plan, None, pause_file)


@app.command("generate")
def generate_texts(
    work: Work,
    minutes: float = 15.0,
    model: Annotated[Path | None, typer.Option(help="the target, if not the one under WORK")] = None,
    function_share: float = 0.6,
    rows: int = 128,
    pause_file: PauseFile = None,
) -> None:
    """Let the target continue prompts from the training files, whole shards at a time; a new start adds to them."""
    loaded = LlamaForCausalLM.from_pretrained(model or work / TARGET, dtype=torch.bfloat16).eval()
    pool = Pool(corpus.read_texts(work / "corpus/train.jsonl"), vocabularies.load(work / "tokenizers/target"))
    wait = pause_while(pause_file)
    generate(loaded, pool, work / "own", minutes=minutes, rows=rows, function_share=function_share, wait=wait)


@app.command("prompts")
def write_prompts(
    work: Work,
    count: int = 20_000,
    function_share: float = 0.7,
    target_tokenizer: Annotated[Path | None, typer.Option(help="folder, if not the one under WORK")] = None,
    seed: int = 0,
) -> None:
    """Cut prompts from the training files for `anydraft distill --prompts WORK/prompts.jsonl`."""
    tokenizer = vocabularies.load(target_tokenizer or work / "tokenizers/target")
    pool = Pool(corpus.read_texts(work / "corpus/train.jsonl"), tokenizer, seed, functions=3 * count)
    rng, functions = np.random.default_rng(seed), round(count * function_share)
    heads = [ids for group in pool.functions.values() for ids in group]
    chosen = [heads[index] for index in rng.permutation(len(heads))[:functions]]
    chosen += pool.windows(rng, count - len(chosen), 128)
    lines = [
        json.dumps({"id": f"pycode-{index:05d}", "prompt": tokenizer.decode(chosen[place])}) + "\n"
        for index, place in enumerate(rng.permutation(len(chosen)))
    ]
    corpus.write_atomically(work / "prompts.jsonl", "".join(lines))
    typer.echo(f"{len(lines)} prompts, {functions} of them heads of functions")


@app.command()
def assistant(
    work: Work,
    minutes: float = 60.0,
    rows: int = 16,
    init: Annotated[Path | None, typer.Option(help="go on from this model's weights, widened if need be")] = None,
    megabytes: Megabytes = 80.0,
    pause_file: PauseFile = None,
    seed: int = 0,
) -> None:
    """Train the assistant on the corpus and on the target's own texts; started again, it goes on where it was."""
    tokens(work, "assistant", "train", megabytes)
    own = OwnTexts(work / "own", vocabularies.load(work / "tokenizers/assistant"))
    plan = Plan(minutes=minutes, rows=rows, seed=seed)
    run_training(work, ASSISTANT, "assistant", init, plan, own, pause_file)


@app.command("evaluate")
def evaluate_pair(
    work: Work,
    assistant: Annotated[list[Path] | None, typer.Option(help="assistants to compare")] = None,
    target: Annotated[Path | None, typer.Option(help="the target, if not the one under WORK")] = None,
    prompts: Annotated[Path | None, typer.Option(help='jsonl with "prompt"; else held-out function heads')] = None,
    count: int = 128,
) -> None:
    """Held-out loss of the models, and how closely each assistant follows the target; one line of JSON a model."""
    folder = target or work / TARGET
    model, tokenizer = load_pair(folder)
    held = corpus.limited(corpus.read_texts(work / "corpus/held.jsonl"), 0.6)
    typer.echo(json.dumps({"model": folder.name} | losses(model, tokenizer, held)))
    if prompts is None:
        pool = Pool(corpus.read_texts(work / "corpus/held.jsonl"), tokenizer, functions=20 * count)
        groups = list(pool.functions.values())  # whole groups of one length: they are written as one batch
        order = np.random.default_rng(0).permutation(len(groups))
        chosen = [tokenizer.decode(ids) for index in order for ids in groups[index]][:count]
    else:
        chosen = [json.loads(line)["prompt"] for line in prompts.read_text(encoding="utf-8").splitlines()][:count]
    greedy = evaluate.write(model, tokenizer, chosen, sampled=False)
    sampled = evaluate.write(model, tokenizer, chosen, sampled=True)
    for folder in assistant or [work / ASSISTANT]:
        follower, its_tokenizer = load_pair(folder)
        result = evaluate.agreement(follower, its_tokenizer, tokenizer, greedy)
        kl = evaluate.divergence(follower, its_tokenizer, sampled)
        row = {
            "right_bytes": result.right_bytes,
            "tokens_per_pass": result.tokens_per_pass,
            "kl_bits_per_character": kl,
        }
        row = {name: round(value, 4) for name, value in row.items()}
        typer.echo(json.dumps({"model": folder.name} | losses(follower, its_tokenizer, held) | row))


def load_pair(folder: Path) -> tuple[LlamaForCausalLM, vocabularies.Tokenizer]:
    """A model in float32 and its tokenizer."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), vocabularies.load(folder)


def losses(model: LlamaForCausalLM, tokenizer: vocabularies.Tokenizer, texts: list[str]) -> dict[str, float]:
    """Nats a token and bits a character on texts."""
    ids = corpus.encode(texts, tokenizer, vocabularies.end_of_text(tokenizer))
    nats = evaluate.held_out_loss(model, ids)
    bits = nats * len(ids) / sum(map(len, texts)) / evaluate.LN2
    return {"nats_per_token": round(nats, 4), "bits_per_character": round(bits, 4)}


if __name__ == "__main__":
    sys.exit(app())
