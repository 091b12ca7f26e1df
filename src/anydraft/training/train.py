"""`train`: a target and data in, a trained drafter in a folder out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from transformers import PreTrainedModel

from anydraft.errors import OptionConflict, WrongTarget
from anydraft.networks.identity import TargetIdentity
from anydraft.text.token_bytes import TokenBytes
from anydraft.training.batches import Dataset
from anydraft.training.checkpoint import Checkpoints
from anydraft.training.corpus import Corpus
from anydraft.training.factory import new_network
from anydraft.training.features import Cached, Computed
from anydraft.training.log import Format, check_log, open_log
from anydraft.training.progress import Listener
from anydraft.training.settings import TrainingSettings
from anydraft.training.trainer import Trainer

RAW = "raw:"
PATIENCE = timedelta(days=1)
"""Of processes that wait for the main one to compute hidden states, or to calibrate."""
Done = dict[str, Any]


def _silent(text: str) -> None:
    """Announce nothing."""


def train(
    kind: str,
    model: PreTrainedModel,
    tokenizer: Any,
    data: str | Path,
    out: str | Path,
    settings: TrainingSettings,
    *,
    vocabulary: int | None = None,
    glob: str | None = None,
    checkpoint_minutes: float = 5.0,
    log: Format = "jsonl",
    listener: Listener | None = None,
    announce: Callable[[str], None] = _silent,
    advance: Callable[[int, int], None] = lambda done, total: None,
    **sizes: Any,
) -> Done:
    """Train a drafter, or go on with a training that was interrupted.

    Args:
        kind: "redrafter", "medusa" or "eagle".
        model: the target; its weights are not changed.
        tokenizer: the target's.
        data: a folder of `anydraft distill`, or "raw:PATH" for raw text.
        out: config.json, model.safetensors, training.json and the log go here, checkpoints below.
        settings: how.
        vocabulary: draft only so many of the most frequent tokens; None for all.
        glob: which files of a raw folder; None for all.
        checkpoint_minutes: between two checkpoints.
        log: "jsonl" or "tensorboard".
        listener: told after every step.
        announce: told what will take disk space, and what goes on; in the main process only, as the listener.
        advance: told while hidden states are computed for the disk: tokens done, tokens in all.
        sizes: further fields of the network's config.

    Returns:
        The content of training.json.

    Raises:
        OptionConflict: options that contradict each other, data without sequences, or a folder of another training.
        TokenizerMismatch, WrongTarget: data of another target.
        OSError: the disk is full; the newest checkpoint is intact.
    """
    out = Path(out)
    settings.require(kind)
    check_log(log)
    if not checkpoint_minutes > 0:
        raise OptionConflict(f"checkpoint_minutes must be > 0, got {checkpoint_minutes}")
    accelerator = Accelerator(
        cpu=model.device.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
    )
    if not accelerator.is_main_process:
        announce = _silent
    if accelerator.num_processes > 1 and model.device != accelerator.device:
        model = model.to(accelerator.device)
    corpus = open_corpus(data, model, tokenizer, glob)
    if corpus.incomplete is not None:
        announce(f"{data}: {corpus.incomplete}")
    target = Computed(model)
    longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
    dataset = Dataset.of(corpus, vocab_size=target.identity.vocab_size, longest=min(longest, 1 << 30))
    network = new_network(
        kind, model, dataset, vocabulary=vocabulary, depth=settings.depth, seed=settings.seed, **sizes
    )
    if settings.compile and network.reads_context:
        raise OptionConflict(
            f"compile does not work for {kind}, which reads the text before: its shapes follow the sequences. Leave it "
            "out" + (", or switch recall off with --recall-heads 0" if kind == "redrafter" else "")
        )
    run = {
        **settings.to_dict(),
        "kind": kind,
        "target": target.identity.to_dict(),
        "network": {name: value for name, value in network.config.to_dict().items() if name != "target"},
        "data": dataset.digest,
        "processes": accelerator.num_processes,
        "target_dtype": str(model.dtype).removeprefix("torch."),
    }
    checkpoints = Checkpoints(out, run)
    done = checkpoints.finished()
    if done is not None:
        announce(f"{out} holds this training already, finished")
        return done
    features: Computed | Cached = target
    if settings.cache_features:
        folder = out / "features" if str(data).startswith(RAW) else Path(data) / "features"
        with accelerator.main_process_first():
            features = Cached(
                target,
                dataset,
                folder,
                batch_tokens=settings.batch_tokens,
                announce=announce,
                advance=advance,
                write=accelerator.is_main_process,
            )
    trainer = Trainer(
        network,
        target,
        dataset,
        settings,
        checkpoints=checkpoints,
        accelerator=accelerator,
        features=features,
        checkpoint_minutes=checkpoint_minutes,
        listener=listener,
    )
    if trainer.progress.step:
        announce(f"goes on at step {trainer.progress.step}")
    if accelerator.is_main_process:
        trainer.log = open_log(log, out, trainer.progress.step)
    try:
        progress = trainer.run()
    finally:
        if trainer.log is not None:
            trainer.log.close()
    note: Done = {
        **{name: value for name, value in dataclasses.asdict(progress).items() if name not in ("epoch", "place")},
        "provenance": corpus.provenance,
    }
    if accelerator.is_main_process:
        network.save_pretrained(out)
        calibrate = getattr(network, "calibrate", None)
        if calibrate is not None:
            calibrate(trainer.held.all(), target.head)
            network.save_pretrained(out)
        checkpoints.finish(note)
    accelerator.wait_for_everyone()
    return note


def open_corpus(data: str | Path, model: PreTrainedModel, tokenizer: Any, glob: str | None = None) -> Corpus:
    """The data, checked against the target.

    Raises:
        OptionConflict: no such data, or none that can be read.
        TokenizerMismatch, WrongTarget: it was made with another target.
    """
    if str(data).startswith(RAW):
        if tokenizer is None:
            raise OptionConflict("raw text needs the target's tokenizer; give a target that comes with one")
        return Corpus.from_texts(str(data).removeprefix(RAW), tokenizer, glob=glob)
    if glob is not None:
        raise OptionConflict("--glob chooses files of --data raw:FOLDER; distilled data is read as a whole")
    corpus = Corpus.open(data, TokenBytes.of(tokenizer).digest if tokenizer is not None else None)
    theirs = corpus.provenance.get("target")
    if isinstance(theirs, dict):
        made, mine = TargetIdentity.from_dict(theirs), TargetIdentity.of(model)
        if not made.same_as(mine):
            raise WrongTarget(
                f"the data in {data} are answers of {made.name!r}, and the target is {mine.name!r} with other weights; "
                "a drafter learns its own target's answers: give that target, or distil again with this one"
            )
    return corpus
