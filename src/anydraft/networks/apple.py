"""Apple's form of the recurrent drafter (arXiv 2403.09919), with the names of its own code and checkpoints.

s_0 = 0, s_k = SiLU(rnn_w e_k + rnn_u s_(k-1)), x = [h ; s_k], residual blocks x + SiLU(Wx + b), and a head of its own
over the whole vocabulary. What is saved is what apple/ml-recurrent-drafter writes, so that TensorRT-LLM up to 1.2 can
convert it; its config carries the target under a further key, which others ignore.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from anydraft.errors import BrokenCheckpoint
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.recall import Memory
from anydraft.networks.state import State

APPLE_MODEL_TYPE = "recurrent_drafting_drafter"
OWN_KEY = "anydraft"
OTHER_NAMES = (
    (re.compile(r"^input_projs\.(0\.)?"), "input_proj."),
    (re.compile(r"^(lm_heads\.)?0\.(?=\d+\.)"), "lm_head."),
    (re.compile(r"^lm_heads\.(?=\d)"), "lm_head."),
    (re.compile(r"^(?=\d+\.)"), "lm_head."),
)
"""What other releases of the training code call the same tensors; TensorRT-LLM reads them too."""


class ResBlock(nn.Module):
    """x + SiLU(Wx + b)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., size) to (..., size)."""
        return x + F.silu(self.linear(x))


class AppleBody(nn.Module):
    """Cell, blocks and head under Apple's names.

    Args:
        hidden_size: H of the target.
        vocab_size: rows of the head.
        exit_dim: E, width of the blocks; a projection is added unless it is 2H.
        num_layers: residual blocks.
        rnn: False adds embeddings up instead of running the cell.
    """

    def __init__(self, hidden_size: int, vocab_size: int, exit_dim: int, num_layers: int, rnn: bool) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.rnn = rnn
        if rnn:
            self.rnn_w = nn.Linear(hidden_size, hidden_size, bias=False)
            self.rnn_u = nn.Linear(hidden_size, hidden_size)
        self.input_proj = nn.Linear(2 * hidden_size, exit_dim) if exit_dim != 2 * hidden_size else None
        blocks = [ResBlock(exit_dim) for _ in range(num_layers)]
        self.lm_head = nn.Sequential(*blocks, nn.Linear(exit_dim, vocab_size, bias=False))

    @property
    def each_level(self) -> nn.Module:
        """A module that every drafted level calls once."""
        called: nn.Module = self.rnn_u if self.rnn else self.lm_head[0]
        return called

    @property
    def head(self) -> torch.Tensor:
        """(V, E)"""
        weight: torch.Tensor = self.lm_head[-1].weight  # type: ignore[assignment]
        return weight

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        """State before the first token of hidden states (B, H)."""
        hidden = hidden.to(self.dtype)[:, None]
        return State(torch.zeros_like(hidden), (hidden,))

    def advance(self, state: State, embedded: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read embeddings (B, W, H); input of the head (B, W, E) and the new state."""
        embedded = embedded.to(self.dtype)
        if self.rnn:
            cell = F.silu(self.rnn_w(embedded) + self.rnn_u(state.cell))
        else:
            cell = embedded + state.cell
        x = torch.cat([state.context[0].expand_as(cell), cell], -1)
        if self.input_proj is not None:
            x = self.input_proj(x)
        for block in list(self.lm_head)[:-1]:
            x = block(x)
        return x, State(cell, state.context)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, W, V) of what `advance` gave."""
        scores: torch.Tensor = self.lm_head[-1](x)
        return scores


def apple_config(sizes: dict[str, Any], target: TargetIdentity, trained_depth: int | None) -> dict[str, Any]:
    """Content of `config.json` as Apple's code and TensorRT-LLM read it."""
    return {
        "model_type": APPLE_MODEL_TYPE,
        "architectures": ["Drafter"],
        "hidden_size": target.hidden_size,
        "vocab_size": target.vocab_size,
        **sizes,
        "num_lookback_tokens": 1,
        OWN_KEY: {"target": target.to_dict(), "trained_depth": trained_depth},
    }


def read_apple_config(content: dict[str, Any]) -> dict[str, Any]:
    """Apple's config as keyword arguments of ours; a checkpoint of others knows its target by its sizes only.

    Raises:
        BrokenCheckpoint: a size is missing.
    """
    try:
        own = content.get(OWN_KEY) or {}
        hidden_size, vocab_size = int(content["hidden_size"]), int(content["vocab_size"])
        if min(hidden_size, vocab_size) < 1:
            raise ValueError(f"hidden_size={hidden_size} and vocab_size={vocab_size} must be positive")
        target = own.get("target", {"name": "unknown"})
        return {
            "target": TargetIdentity.from_dict({**target, "hidden_size": hidden_size, "vocab_size": vocab_size}),
            "arch": "redrafter",
            "exit_dim": int(content.get("exit_dim") or 2 * hidden_size),
            "num_layers": int(content["num_draft_layers"]),
            "rnn": bool(content.get("rnn", False)),
            "trained_depth": own.get("trained_depth"),
        }
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise BrokenCheckpoint(f"config.json does not describe a {APPLE_MODEL_TYPE}: {problem!r}") from problem


def apple_name(name: str) -> str:
    """Apple's name of a tensor that another release of its training code named differently."""
    for pattern, replacement in OTHER_NAMES:
        name = pattern.sub(replacement, name)
    return name
