"""The recurrent drafter's network (ReDrafter, arXiv 2403.09919), in Apple's form or the lean one.

It holds the weights, reads and writes them, and unrolls along known tokens for training. Decoding steps are in
`start` and `step`; `fold()` gives the fast form of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.nn import functional as F

from anydraft.errors import OptionConflict
from anydraft.networks.apple import APPLE_MODEL_TYPE, AppleBody, apple_config, apple_name, read_apple_config
from anydraft.networks.config import NetworkConfig
from anydraft.networks.folded import FoldedLean
from anydraft.networks.lean import LeanBody
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Level, Packed
from anydraft.networks.recall import Memory, PackedMemory
from anydraft.networks.state import State, Steps

BODY = "body."
WIDEST_STATE = 512
RECALL_HEADS = 4


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(NetworkConfig):
    """Sizes of a recurrent drafter.

    Attributes:
        arch: "lean", or "redrafter" for Apple's form, whose files Apple's code and TensorRT-LLM up to 1.2 read.
        num_layers: residual blocks.
        exit_dim: width of Apple's blocks and head; default 2H.
        rnn: Apple's form without its cell adds embeddings up.
        state_size: width r of the lean form; default min(H, 512).
        cell: lean form's recurrence, "gated" (GRU) or "elman".
        context_in_cell: let the target's hidden state into the lean form's recurrence.
        recall_heads: of the lean form's attention to the text before (`recall.py`); 0 = none; default RECALL_HEADS.
        vocabulary_size: rows of the lean form's head when it drafts a part of the vocabulary only.
        trained_depth: levels that training unrolled; None when unknown. Drafts far beyond it are rarely right.
    """

    arch: Literal["redrafter", "lean"] = "lean"
    num_layers: int = 2
    exit_dim: int | None = None
    rnn: bool = True
    state_size: int | None = None
    cell: Literal["gated", "elman"] = "gated"
    context_in_cell: bool = True
    recall_heads: int | None = None
    trained_depth: int | None = None

    @property
    def repeated(self) -> int:
        """Residual blocks."""
        return self.num_layers

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arch not in ("redrafter", "lean"):
            raise OptionConflict(f"arch is 'lean' or 'redrafter', got {self.arch!r}")
        if self.cell not in ("gated", "elman"):
            raise OptionConflict(f"cell is 'gated' or 'elman', got {self.cell!r}")
        if self.arch == "redrafter" and (self.vocabulary_size is not None or self.state_size is not None):
            raise OptionConflict("vocabulary_size and state_size belong to arch='lean'; leave them out for 'redrafter'")
        if self.arch == "lean" and self.exit_dim is not None:
            raise OptionConflict("exit_dim belongs to arch='redrafter'; for 'lean' set state_size")
        if self.recall_heads is None:
            object.__setattr__(self, "recall_heads", RECALL_HEADS if self.arch == "lean" else 0)
        if self.arch == "redrafter" and self.recall_heads:
            raise OptionConflict("recall_heads belongs to arch='lean'; leave it out for 'redrafter'")
        hidden_size = self.target.hidden_size
        if self.arch == "redrafter" and self.exit_dim is None:
            object.__setattr__(self, "exit_dim", 2 * hidden_size)
        if self.arch == "lean" and self.state_size is None:
            object.__setattr__(self, "state_size", min(hidden_size, WIDEST_STATE))
        least_of = {"num_layers": 0, "recall_heads": 0, "exit_dim": 1, "state_size": 1, "trained_depth": 1}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionConflict(f"{name} must be >= {least}, got {value}")


class RecurrentNetwork(DrafterNetwork):
    """Weights of a recurrent drafter.

    With arch="redrafter", `save_pretrained` writes Apple's names and config, and `from_pretrained` reads them. The lean
    form has no counterpart there: Apple's has no gated cell, no normalisation and no tied or reduced head.

    Args:
        config: its sizes.
        vocabulary: (V',) target ids that a reduced head drafts; needed for a fresh one of `config.vocabulary_size`.
    """

    kind = "redrafter"
    config_class: ClassVar[type[NetworkConfig]] = RecurrentConfig
    config: RecurrentConfig

    def __init__(self, config: RecurrentConfig, vocabulary: torch.Tensor | None = None) -> None:
        super().__init__(config, vocabulary)
        target = config.target
        self.body: AppleBody | LeanBody
        if config.arch == "redrafter":
            self.body = AppleBody(
                target.hidden_size, target.vocab_size, config.exit_dim or 0, config.num_layers, config.rnn
            )
        else:
            self.body = LeanBody(
                target.hidden_size,
                config.state_size or 0,
                config.num_layers,
                gated=config.cell == "gated",
                context_in_cell=config.context_in_cell,
                recall_heads=config.recall_heads or 0,
            )

    @property
    def head(self) -> torch.Tensor:
        """(V', E) what turns the output of `advance` into logits: a parameter of Apple's form, else the target's."""
        if isinstance(self.body, AppleBody):
            return self.body.head
        head = self.target_head
        return head if self.vocabulary is None else head[self.vocabulary.to(head.device)]

    def levels(self, batch: Packed, depth: int) -> Iterator[Level]:
        """Predictions along the batch's own tokens: row t starts from h_t and reads tokens t + 1 to t + depth."""
        if isinstance(self.body, LeanBody):
            yield from self._lean_levels(self.body, batch, depth)
            return
        state, weight = self.body.start(batch.features), self.head.to(batch.features.device)
        for i in range(1, depth + 1):
            inputs, state = self.body.advance(state, self.embedded(batch.shifted(i))[:, None])
            yield Level(i, inputs[:, 0], weight)

    def _lean_levels(self, body: LeanBody, batch: Packed, depth: int) -> Iterator[Level]:
        """The same with what depths share taken once, and only for rows that something is learned from."""
        rows = torch.stack([batch.valid(i) for i in range(1, depth + 1)]).any(0).nonzero()[:, 0]
        embedded = self.embedded(batch.tokens)
        added, weight = body.tokens(embedded), self.head.to(batch.features.device)
        memory = None
        if body.recall is not None:
            keys, values = body.remembered(batch.features, embedded[batch.index(1)])
            memory = PackedMemory.of(keys, values, batch.documents, rows)
        state = body.start(batch.features[rows], memory)
        for i in range(1, depth + 1):
            y, state = body.narrow(state, added[batch.index(i)[rows]][:, None])
            inputs = body.out(y[:, 0] * body.scale)
            yield Level(i, inputs.new_zeros(len(batch), inputs.shape[1]).index_copy(0, rows, inputs), weight)

    @property
    def reads_context(self) -> bool:
        """Whether it recalls the text before."""
        return bool(self.config.recall_heads)

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        """State before the first token, from the target's last hidden states (B, H)."""
        return self.body.start(hidden, memory)

    def step(self, state: State, tokens: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read tokens (B, W), target ids; logits (B, W, V') of what follows them, and the new state."""
        inputs, state = self.body.advance(state, self.embedded(tokens))
        if isinstance(self.body, AppleBody):
            return self.body.logits(inputs), state
        return F.linear(inputs, self.head.to(inputs)), state

    def fold(self) -> Steps:
        """The form for decoding: products of frozen weights are taken once (Apple's form has none in its way)."""
        return FoldedLean(self) if isinstance(self.body, LeanBody) else self

    def bytes_per_step(self) -> int:
        """Bytes of weights read to draft one level (of one branch) in the folded form."""
        body = self.body
        if isinstance(body, AppleBody):
            return sum(p.numel() * p.element_size() for p in body.parameters())
        size = body.scale.element_size()
        rows = self.config.vocabulary_size or self.config.target.vocab_size
        weights = body.recurrent.weight.numel() + sum(p.numel() for p in body.blocks.parameters())
        if body.recall is not None:
            weights += body.recall.query.weight.numel() + body.recall.out.weight.numel()
        return size * (weights + body.token_in.out_features + rows * len(body.scale))

    def config_dict(self) -> dict[str, Any]:
        """Content of `config.json`: Apple's own keys for Apple's form."""
        config = self.config
        if config.arch == "lean":
            return super().config_dict()
        sizes = {"exit_dim": config.exit_dim, "num_draft_layers": config.num_layers, "rnn": config.rnn}
        return apple_config(sizes, config.target, config.trained_depth)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Content of `model.safetensors`: Apple's own names for Apple's form."""
        return {name.removeprefix(BODY): tensor for name, tensor in super().tensors().items()}

    def fill(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take weights by the names under which they are saved.

        Raises:
            BrokenCheckpoint: tensors are missing, too many, or of other shapes than the config says.
        """
        if self.config.arch == "redrafter":
            tensors = {apple_name(name): tensor for name, tensor in tensors.items()}
        super().fill({name if name == "vocabulary" else BODY + name: tensor for name, tensor in tensors.items()})

    @classmethod
    def config_of(cls, content: dict[str, Any]) -> NetworkConfig:
        """The config from the content of `config.json`, ours or Apple's; see `DrafterNetwork.config_of`."""
        if content.get("model_type") != APPLE_MODEL_TYPE:
            return super().config_of(content)
        return RecurrentConfig(**read_apple_config(content))
