"""One training loop for both models: Muon for matrices, AdamW for the rest, constant and then falling to zero.

The schedule follows the time spent training (kept over resumes, pauses not counted), because on a CPU the minutes are
what is given. A run that was killed goes on from its last checkpoint with the same weights, optimizers and random
numbers. Cross-entropy in checkpointed chunks and a compiled model body make it 2.4 times as fast as the plain loop on
two cores. It does no data-parallel training: the models are small.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

log = logging.getLogger(__name__)
CHUNK = 1024


class Source(Protocol):
    """Where rows come from."""

    def draw(self, rng: np.random.Generator, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and loss weights, both (rows, length)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train: for so many minutes, or for so many steps (then nothing depends on the clock)."""

    minutes: float | None = None
    steps: int | None = None
    rows: int = 12
    length: int = 512
    matrix_rate: float = 0.02
    other_rate: float = 3e-3
    warm_up: int = 30
    decay: float = 0.4  # the share of the run in which the rates fall
    raw_share: float = 0.6  # of the rows, before and after `switch`; the rest are the target's own texts
    raw_share_later: float = 0.15
    switch: float = 0.35
    checkpoint_minutes: float = 4.0
    seed: int = 0
    compiled: bool = True

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError(f"give minutes or steps, one of them; got {self.minutes} and {self.steps}")

    def progress(self, step: int, elapsed: float) -> float:
        """How much of the run is done, from 0 to 1; elapsed in seconds."""
        if self.steps is not None:
            return step / self.steps
        return elapsed / (60 * (self.minutes or 1))

    def rate(self, step: int, progress: float) -> float:
        """What the learning rates are multiplied by."""
        falling = 1.0 if progress < 1 - self.decay else max(0.02, (1 - progress) / self.decay)
        return min(1.0, (step + 1) / self.warm_up) * falling


def new_model(
    vocabulary: int, end: int, begin: int, width: int, layers: int, heads: int, kv_heads: int, channels: int
) -> LlamaForCausalLM:
    """A Llama of the given sizes with random weights, tied embeddings and heads of 64 dimensions."""
    return LlamaForCausalLM(llama_config(vocabulary, end, begin, width, layers, heads, kv_heads, channels)).float()


def llama_config(
    vocabulary: int, end: int, begin: int, width: int, layers: int, heads: int, kv_heads: int, channels: int
) -> LlamaConfig:
    """The form both models share."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=64,
        intermediate_size=channels,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=0,
    )


class Trainer:
    """The state of a run: model, optimizers, random numbers, steps and seconds; it saves and restores all of it."""

    def __init__(self, model: LlamaForCausalLM, plan: Plan, folder: Path) -> None:
        self.model, self.plan, self.folder = model.float().train(), plan, folder
        matrices, rest = [], []
        for name, weight in model.named_parameters():
            (matrices if weight.ndim == 2 and "embed" not in name else rest).append(weight)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=plan.matrix_rate, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=plan.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.rng = np.random.default_rng(plan.seed)
        self.step, self.elapsed, self.smooth, self.tokens = 0, 0.0, float("nan"), 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.state_file.exists():
            self.restore()
        if plan.compiled:
            model.model.compile()

    @property
    def state_file(self) -> Path:
        """The checkpoint."""
        return self.folder / "state.pt"

    def save(self) -> None:
        """Write the checkpoint; a kill at any moment leaves the old one or the new one."""
        partial = self.state_file.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rng": self.rng.bit_generator.state,
            "counters": (self.step, self.elapsed, self.smooth, self.tokens),
        }
        torch.save(state, partial)
        partial.replace(self.state_file)

    def restore(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, content in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(content)
        self.rng.bit_generator.state = state["rng"]
        self.step, self.elapsed, self.smooth, self.tokens = state["counters"]
        log.info("goes on at step %d, %.1f minutes", self.step, self.elapsed / 60)

    def loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean cross-entropy of a batch, ids and weights (rows, length)."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.model.model(input_ids=ids, use_cache=False)[0][:, :-1]
            hidden = hidden.reshape(-1, hidden.shape[-1])
            wanted, scale = ids[:, 1:].reshape(-1), weights[:, 1:].reshape(-1)
            parts = zip(hidden.split(CHUNK), wanted.split(CHUNK), scale.split(CHUNK), strict=True)
            total = sum(checkpoint(self._chunk, *part, use_reentrant=False) for part in parts)
        return total / scale.sum()

    def _chunk(self, hidden: Tensor, wanted: Tensor, scale: Tensor) -> Tensor:
        logits = (hidden @ self.model.lm_head.weight.t().to(hidden.dtype)).float()
        return (F.cross_entropy(logits, wanted, reduction="none") * scale).sum()

    def update(self, raw: Source, own: Source | None, progress: float) -> float:
        """One step; returns its loss."""
        plan, rng = self.plan, self.rng
        rate = plan.rate(self.step, progress)
        for optimizer, base in zip(self.optimizers, (plan.matrix_rate, plan.other_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * rate
        share = plan.raw_share if progress < plan.switch else plan.raw_share_later
        raws = plan.rows if own is None else int(rng.binomial(plan.rows, share))
        drawn = [raw.draw(rng, raws, plan.length)] if raws else []
        if own is not None and raws < plan.rows:
            drawn.append(own.draw(rng, plan.rows - raws, plan.length))
        ids, weights = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*drawn, strict=True))
        loss = self.loss(ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += ids.numel()
        return float(loss.detach())

    def run(
        self,
        raw: Source,
        own: Source | None = None,
        *,
        wait: Callable[[], None] = lambda: None,
        on_checkpoint: Callable[[LlamaForCausalLM], None] = lambda model: None,
        stop_after: int | None = None,
    ) -> None:
        """Train until the plan is done (or for `stop_after` steps more), with a checkpoint every few minutes."""
        saved, last = self.elapsed, None if stop_after is None else self.step + stop_after
        while (progress := self.plan.progress(self.step, self.elapsed)) < 1 and self.step != last:
            wait()
            began = time.monotonic()
            loss = self.update(raw, own, progress)
            self.smooth = loss if self.smooth != self.smooth else 0.97 * self.smooth + 0.03 * loss
            if self.step % 20 == 0:
                self.report(loss, progress)
            if self.elapsed - saved > 60 * self.plan.checkpoint_minutes:
                self.save()
                on_checkpoint(self.model)
                saved = self.elapsed
            self.elapsed += time.monotonic() - began
        self.save()
        on_checkpoint(self.model)

    def report(self, loss: float, progress: float) -> None:
        """A line of the log and of `log.jsonl`."""
        speed = self.tokens / max(self.elapsed, 1e-9)
        log.info("step %d %.1f%% loss %.3f %.0f tokens/s", self.step, 100 * progress, self.smooth, speed)
        row = {"step": self.step, "seconds": self.elapsed, "loss": loss, "smooth": self.smooth, "tokens": self.tokens}
        with (self.folder / "log.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")


def export(model: LlamaForCausalLM, out: Path, extras: Sequence[Path]) -> None:
    """Write a model in bfloat16 with tokenizer files (and whatever else) beside it; readers never see a part."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict({name: weight.detach() for name, weight in model.state_dict().items()})
    copy.generation_config = model.generation_config
    copy.to(torch.bfloat16).save_pretrained(partial)
    for path in extras:
        shutil.copy(path, partial / path.name)
    previous = out.with_name(out.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if out.exists():
        out.rename(previous)
    partial.rename(out)
    shutil.rmtree(previous, ignore_errors=True)
