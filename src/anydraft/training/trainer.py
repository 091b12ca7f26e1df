"""The loop that trains a drafter's network against its frozen target.

A step is a function of what came before and of (seed, step) alone: batches come from a place in a fixed order, and all
random numbers of a step are seeded by its number. A checkpoint therefore holds weights, optimizer, step, place and
what early stop knows, and a run that was killed ends with the same weights as one that was not (on one machine, where
the arithmetic is the same; with minutes the schedule follows the clock). Several processes (accelerate) read different
batches; their gradients are summed and divided by the number of rows of all, which is what one process would do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Level, Packed
from anydraft.training.batches import Dataset, Ints, Order, pack
from anydraft.training.checkpoint import Checkpoints
from anydraft.training.compiled import Compiled
from anydraft.training.estimate import Estimate
from anydraft.training.features import Computed, Features
from anydraft.training.held_out import HeldOut
from anydraft.training.interrupt import Interrupt
from anydraft.training.log import Log
from anydraft.training.objectives import Objective
from anydraft.training.optimizers import Optimizers
from anydraft.training.processes import agreed, seeded
from anydraft.training.progress import Listener, TrainingProgress
from anydraft.training.settings import FIRST_LEVEL, ONE_LEVEL, TrainingSettings
from anydraft.training.teacher import Teacher

SMOOTHING = 0.95


class Trainer:
    """A training, ready to run.

    Args:
        network: attached to the target, weights in float32.
        target: the frozen target.
        dataset: sequences.
        settings: how.
        checkpoints: where the state is kept.
        log: takes records.
        accelerator: device and processes.
        features: where hidden states come from; by default from the target as needed.
        checkpoint_minutes: between two checkpoints.
        listener: told after every step.
    """

    def __init__(
        self,
        network: DrafterNetwork,
        target: Computed,
        dataset: Dataset,
        settings: TrainingSettings,
        *,
        checkpoints: Checkpoints | None = None,
        log: Log | None = None,
        accelerator: Accelerator | None = None,
        features: Features | None = None,
        checkpoint_minutes: float = 5.0,
        listener: Listener | None = None,
    ) -> None:
        settings.require(network.kind)
        self.network, self.target, self.dataset, self.settings = network, target, dataset, settings
        self.checkpoints, self.log, self.listener = checkpoints, log, listener
        self.accelerator = accelerator if accelerator is not None else Accelerator(cpu=target.device.type == "cpu")
        self.features: Features = features if features is not None else target
        self.checkpoint_minutes = checkpoint_minutes
        self.device = target.device
        self.half = settings.precision == "bf16"
        dtype = torch.bfloat16 if self.half else torch.float32
        self.objective = Objective(settings.objective, settings.depth_decay, settings.rows_share, dtype)
        self.teacher = Teacher(target.head, network.vocabulary)
        train, held = dataset.split(settings.held_out)
        self.depth = None if network.reads_context else settings.depth
        self.order = Order(dataset, train, settings.batch_tokens, settings.seed, self.depth)
        self.held = HeldOut(
            dataset,
            held,
            tokens=settings.batch_tokens,
            depth=self.depth,
            packed=self._packed,
            accelerator=self.accelerator,
        )
        self.unroll: Callable[[Packed, int], Iterable[Level]] = network.levels
        if settings.compile:
            self.unroll = Compiled(network)
        self.optimizers = Optimizers(network, settings)
        self.progress = TrainingProgress()
        self.best: dict[str, Tensor] | None = None
        self.steps = settings.steps
        if settings.epochs is not None:
            per_step = settings.accumulate * self.accelerator.num_processes
            self.steps = -(-self.order.total(settings.epochs) // per_step)
        self._restore()

    @property
    def share(self) -> float:
        """How much of the run is done, from 0 to 1."""
        if self.steps is not None:
            return self.progress.step / self.steps
        return self.progress.seconds / (60 * (self.settings.minutes or 1.0))

    def run(self) -> TrainingProgress:
        """Train to the end; the network then has the weights of the best estimate (of the end, without estimates).

        Ctrl-C ends it after the current step, which is saved.

        Raises:
            KeyboardInterrupt: by Ctrl-C.
            OSError: a checkpoint could not be written; the one before is intact.
        """
        with Interrupt() as interrupt:
            self._train(interrupt)
        self.save()
        if self.best is not None:
            self.network.load_state_dict(self.best)
        self.network.eval()
        return self.progress

    def _train(self, interrupt: Interrupt) -> None:
        state = self.progress
        began, saved = time.monotonic(), time.monotonic()
        before, tokens = state.seconds, state.tokens
        batches = self.order.walk(state.epoch, state.place)
        self.network.train()
        while self.share < 1 and not state.stopped:
            loss, rate = self._step(batches)
            state.seconds, asked = agreed(
                self.accelerator, self.device, before + time.monotonic() - began, interrupt.asked
            )
            state.loss = loss if state.loss is None else SMOOTHING * state.loss + (1 - SMOOTHING) * loss
            speed = (state.tokens - tokens) / max(state.seconds - before, 1e-9)
            seconds = round(state.seconds, 3)
            self._write({"step": state.step, "loss": loss, "lr": rate, "tokens": state.tokens, "seconds": seconds})
            due = int(min(1.0, self.share) * self.settings.evaluations)
            if due > state.evaluated:
                state.evaluated = due
                self._evaluate()
            if self.listener is not None and self.accelerator.is_main_process:
                self.listener(state, min(1.0, self.share), speed)
            if asked or time.monotonic() - saved > 60 * self.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
            if asked:
                raise KeyboardInterrupt

    def estimate(self) -> Estimate | None:
        """Of the weights as they are, on held-out sequences; None where none are held out."""
        return self.held.estimate(self.network, self.target.head, self.settings.depth, self.device, self._autocast)

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it could not be written; the one before is intact.
        """
        if self.checkpoints is None or not self.accelerator.is_main_process:
            return
        self.checkpoints.save(
            {
                "network": self.network.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "progress": asdict(self.progress),
                "best": self.best,
            }
        )

    def _restore(self) -> None:
        state = None if self.checkpoints is None else self.checkpoints.load(self.device)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.progress, self.best = TrainingProgress(**state["progress"]), state["best"]

    def _step(self, batches: Iterator[tuple[Ints, int, int]]) -> tuple[float, float]:
        """One step of the optimizer; mean loss per row, and the learning rate."""
        settings, state, processes = self.settings, self.progress, self.accelerator.num_processes
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        place = [state.epoch, state.place]
        with seeded([settings.seed, state.step, self.accelerator.process_index], self.device):
            for number in range(settings.accumulate * processes):
                indices, *place = next(batches)
                if number % processes != self.accelerator.process_index:
                    continue
                batch = self._packed(indices)
                with self._autocast():
                    levels = list(self.unroll(batch, settings.depth))
                loss = self.objective(levels, batch, self.teacher)
                self.accelerator.backward(loss.total)
                tokens = batch.answers.sum()
                totals += torch.stack([loss.total.detach().double(), loss.weight.double(), tokens.double()])
        totals = self.accelerator.reduce(totals, "sum")
        total, weight, tokens = totals.tolist()
        weights = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        for parameter in weights:
            assert parameter.grad is not None
            parameter.grad = self.accelerator.reduce(parameter.grad, "sum").div_(max(weight, 1.0))
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        rate = settings.rate(state.step, self.share)
        self.optimizers.step(rate)
        # Not before: what is saved is the state between two steps.
        state.epoch, state.place = place
        state.step += 1
        state.tokens += int(tokens)
        return total / max(weight, 1.0), rate

    def _evaluate(self) -> None:
        """Estimate; keep the weights if they are the best so far, or lose patience."""
        found, state, settings = self.estimate(), self.progress, self.settings
        if found is None:
            return
        state.estimate = asdict(found)
        if self.network.kind in ONE_LEVEL:
            state.estimate["covers"] = FIRST_LEVEL
        self._write({"step": state.step, **state.estimate})
        if state.best is None or found.tokens_per_pass > state.best:
            state.best, state.waited = found.tokens_per_pass, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        else:
            state.waited += 1
            state.stopped = settings.patience is not None and state.waited >= settings.patience

    def _packed(self, indices: Ints) -> Packed:
        return pack(
            self.dataset,
            indices,
            self.features.of(self.dataset, indices),
            depth=self.depth,
            device=self.device,
            multiple=self.settings.batch_tokens if self.settings.compile else 1,
        )

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)

    def _write(self, record: dict[str, Any]) -> None:
        if self.log is not None and self.accelerator.is_main_process:
            self.log.write(record)
