"""Settings of a training, and how far along it is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from anydraft.errors import OptionConflict

ONE_LEVEL = ("eagle",)
"""Kinds that are taught one level and draft deeper from their own predictions."""
FIRST_LEVEL = "first level only"
"""What their estimate covers."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything that decides about the weights besides data, target and network.

    Exactly one of minutes, steps and epochs says how long. With minutes the schedule follows the time spent; with
    steps or epochs nothing depends on the clock.

    Attributes:
        objective: "kl" (the target's distribution) or "ce" (the tokens).
        depth: deepest prediction that is taught.
        depth_decay: weight of a depth relative to the one before.
        rows_share: share of the positions that each batch's loss is taken over, drawn at random.
        minutes, steps, epochs: how long.
        batch_tokens: positions that a batch is learned from.
        accumulate: batches per step (and process).
        lr: highest learning rate; it rises over `warmup` steps and falls to zero along a cosine.
        optimizer: "adamw", or "muon" for matrices with AdamW for the rest.
        weight_decay, clip: of the optimizer; largest norm of the gradient.
        precision: "bf16" multiplies in bfloat16 (weights stay in float32); "fp32".
        held_out: share of the prompts that is kept for the estimate; 0 switches estimate and early stop off.
        evaluations: how often the estimate is made over the run.
        patience: stop after so many estimates without a better one; None never.
        compile: compile the network first; worth its minute on long runs of redrafter and medusa.
        cache_features: read hidden states from disk.
        seed: of order, initial weights and noise.
    """

    objective: Literal["kl", "ce"] = "kl"
    depth: int = 6
    depth_decay: float = 0.9
    rows_share: float = 1.0
    minutes: float | None = None
    steps: int | None = None
    epochs: int | None = None
    batch_tokens: int = 4096
    accumulate: int = 1
    lr: float = 1e-3
    warmup: int = 30
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    held_out: float = 0.02
    evaluations: int = 20
    patience: int | None = None
    compile: bool = False
    cache_features: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("minutes", "steps", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionConflict(f"give one of minutes, steps and epochs; got {' and '.join(given) or 'none'}")
        for name, least in (("depth", 1), ("batch_tokens", 1), ("accumulate", 1), ("warmup", 0), ("evaluations", 1)):
            if getattr(self, name) < least:
                raise OptionConflict(f"{name} must be >= {least}, got {getattr(self, name)}")
        for name in ("minutes", "steps", "epochs", "patience", "lr", "clip", "depth_decay", "rows_share"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptionConflict(f"{name} must be > 0, got {value}")
        if self.depth_decay > 1 or self.rows_share > 1:
            raise OptionConflict(
                f"depth_decay and rows_share are at most 1, got {self.depth_decay} and {self.rows_share}"
            )
        if not 0 <= self.held_out < 1:
            raise OptionConflict(f"held_out must be >= 0 and < 1, got {self.held_out}")
        if self.patience is not None and self.held_out == 0:
            raise OptionConflict("patience counts estimates on held-out data; give held_out > 0 too")
        for name, possible in (
            ("objective", ("kl", "ce")),
            ("optimizer", ("adamw", "muon")),
            ("precision", ("bf16", "fp32")),
        ):
            if getattr(self, name) not in possible:
                raise OptionConflict(f"{name} is {' or '.join(possible)}, got {getattr(self, name)!r}")

    def require(self, kind: str) -> None:
        """Raise OptionConflict for what a kind of drafter cannot be trained with."""
        if kind == "medusa" and self.held_out == 0:
            raise OptionConflict(
                "medusa needs held_out > 0: its calibration is measured on held-out answers, and its tree made of it"
            )

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step; progress from 0 to 1."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * rising * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What two runs' descriptions disagree about, in words."""
    return [
        f"{name} was {theirs.get(name)!r} and is {mine.get(name)!r}"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
