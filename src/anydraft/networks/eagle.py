"""EAGLE (arXiv 2401.15077): one decoder layer that goes on with the target's features instead of its tokens.

    f'_{t+1} = layer(fc([embedding(x_{t+1}) ; f_t])),    logits of token t+2 = the target's own head of f'_{t+1}

f_t is the target's last hidden state at token t. The token runs one step ahead of the feature, which settles what
was drawn from it. Below the first step the layer is given its own prediction in place of f. The layer is
transformers' Llama layer without its first norm, as in the paper; embeddings and head are the target's.

What this is not: EAGLE-3 (arXiv 2503.01840), which reads several of the target's layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn.functional import smooth_l1_loss
from transformers import LlamaConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from anydraft.errors import OptionConflict
from anydraft.hidden import OutputHead
from anydraft.int8 import Int8Weight, pays
from anydraft.layout import laid_out, linear
from anydraft.networks.config import NetworkConfig
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Level, Packed
from anydraft.onednn import LaidOut
from anydraft.packing import PackedLinear

REGRESSION = 10.0
"""Weight of the features' smooth L1 distance where cross-entropy weighs 1: the paper's 1.0 to 0.1."""

NOISE = 0.2
"""Width of the uniform noise on features in training, for a text of 512 tokens; shorter ones get more, as published."""

SHORTEST = 128
"""Below this length noise grows no further: EAGLE's texts were longer, and noise as large as the features helps not."""

PADDING = 0.75
"""Sequences are read together while the shortest has at least this share of the longest."""


@dataclass(frozen=True, kw_only=True)
class EagleConfig(NetworkConfig):
    """Sizes of the layer.
"""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = (self.num_heads, self.num_kv_heads, self.head_dim, self.intermediate_size)
        width = self.target.hidden_size
        if min(sizes) < 1 or self.num_heads % self.num_kv_heads or self.head_dim % 2 or width % self.num_heads:
            raise OptionConflict(
                "an EAGLE layer needs positive sizes, an even head_dim, num_heads divisible by num_kv_heads, and a "
                f"hidden size divisible by num_heads; got hidden size {width}, "
                f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}, head_dim={self.head_dim}, "
                f"intermediate_size={self.intermediate_size}"
            )

    @classmethod
    def for_model(cls, model: PreTrainedModel, *, vocabulary_size: int | None = None, **sizes: Any) -> Self:
        """A layer like the target's own, where its config says what that is; `sizes` override."""
        target, config = TargetIdentity.of(model), model.config.get_text_config()
        width = target.hidden_size
        heads = _number(config, "num_attention_heads") or max(1, width // 64)
        kv_heads = _number(config, "num_key_value_heads") or heads
        head_dim = _number(config, "head_dim") or max(2, int(config.hidden_size) // heads)
        found: dict[str, Any] = {
            "num_heads": heads,
            "num_kv_heads": kv_heads if heads % kv_heads == 0 else heads,
            "head_dim": head_dim + head_dim % 2,
            # Without a config that says: as many weights as an ungated MLP of the usual four widths.
            "intermediate_size": _number(config, "intermediate_size") or -(-8 * width // 96) * 32,
            "rope_theta": _theta(config),
            "rms_norm_eps": float(getattr(config, "rms_norm_eps", None) or 1e-6),
        }
        return cls(target=target, vocabulary_size=vocabulary_size, **{**found, **sizes})


class EagleNetwork(DrafterNetwork):
    """The layer and the projection in front of it.

    Args:
        config: its sizes.
        vocabulary: (V',) target ids of a reduced head, as many as the config says.
    """

    kind = "eagle"
    config_class = EagleConfig
    config: EagleConfig
    head: torch.Tensor
    laid: LaidOut | None
    """The head as the target's packed one or `prepare` have it; None where it is used as it is."""
    bias: torch.Tensor | None
    scale: float
    rotary: LlamaRotaryEmbedding

    def __init__(self, config: EagleConfig, vocabulary: torch.Tensor | None = None) -> None:
        super().__init__(config, vocabulary)
        width = config.target.hidden_size
        llama = LlamaConfig(
            hidden_size=width,
            intermediate_size=config.intermediate_size,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attn_implementation="sdpa",
        )
        self.fc = torch.nn.Linear(2 * width, width)
        self.layer = LlamaDecoderLayer(llama, 0)
        self.layer.input_layernorm = torch.nn.Identity()
        # Around Module.__setattr__: its frequencies must not be rounded together with the weights.
        with torch.device("cpu"):  # they come with no weights that would fill them
            object.__setattr__(self, "rotary", LlamaRotaryEmbedding(llama))

    def attach(self, model: PreTrainedModel, *, any_target: bool = False) -> Self:
        """Take the target's embeddings and head.

        Raises:
            WrongTarget: the network was trained for another target.
            UnsupportedModel: its logits are not those of its head, or that is offloaded.
        """
        super().attach(model, any_target=any_target)
        output = OutputHead(model)
        head, bias = self.target_head, None if output.bias is None else output.bias.detach()
        if self.vocabulary is not None:
            rows = self.vocabulary.to(head.device)
            head, bias = head[rows], None if bias is None else bias[rows]
        own = model.get_output_embeddings()
        shared = self.vocabulary is None and isinstance(own, PackedLinear)
        object.__setattr__(self, "laid", own.laid if shared else None)
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "scale", output.scale)
        return self

    def prepare(self) -> Self:
        """Pack the weights for decoding, a reduced head too; see `DrafterNetwork.prepare`."""
        if pays(self.head):
            many = None if isinstance(self.laid, Int8Weight) else self.laid
            object.__setattr__(self, "laid", Int8Weight(self.head, many))
        elif self.laid is None:
            object.__setattr__(self, "laid", laid_out(self.head))
        return super().prepare()

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.fc.parameters()).dtype

    def forward(
        self,
        tokens: torch.Tensor,
        features: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Predicted features (rows, width, H).

        Args:
            tokens: (rows, width) x_{t+1}; features: (rows, width, H) f_t; positions: (rows, width) t.
            mask: (rows, 1, width, span) additive; None is causal.
            cache: keys and values of earlier passes.
        """
        pair = torch.cat([self.embedded(tokens).to(self.dtype), features.to(self.dtype)], dim=-1)
        states = self.fc(pair)
        rotated = self.rotary(states, positions)
        layer: Any = self.layer
        return layer(  # type: ignore[no-any-return]
            states, attention_mask=mask, position_ids=positions, past_key_values=cache, position_embeddings=rotated
        )

    def logits(self, predicted: torch.Tensor) -> torch.Tensor:
        """Logits (..., V') float32, on the head's device, of predicted features (..., H).

        As the target makes them of its own, but without a softcap: training leaves it out as well.
        """
        inputs = predicted.to(self.head.device, self.head.dtype)
        return linear(inputs, self.head, self.laid, self.bias).float() * self.scale

    @property
    def reads_context(self) -> bool:
        """Its layer attends to all of it."""
        return True

    def levels(self, batch: Packed, depth: int) -> Iterator[Level]:
        """The one level that EAGLE is trained on; deeper ones follow by its feeding on its own predictions."""
        valid = batch.valid(1)
        last = len(batch) - 1
        following = batch.features[torch.arange(1, last + 2, device=valid.device).clamp_(max=last)]
        predicted = self._along(batch)
        distance = smooth_l1_loss(predicted.float(), following.float(), reduction="none").mean(-1)
        regression = REGRESSION * (distance * valid).sum() / valid.sum().clamp(min=1)
        bias = None if self.bias is None else self.bias * self.scale
        yield Level(1, predicted * self.scale, self.head, bias, regression)

    def bytes_per_step(self) -> int:
        """Weights read to draft one level, in bytes: the layer, the projection, and the head's rows."""
        own = sum(parameter.numel() * parameter.element_size() for parameter in self.parameters())
        return own + self.head.numel() * self.head.element_size()

    def _along(self, batch: Packed) -> torch.Tensor:
        """Predicted features (N, H) of packed sequences, each of which sees only itself."""
        _, counts = torch.unique_consecutive(batch.documents, return_counts=True)
        lengths = counts.tolist()
        starts = [0, *counts.cumsum(0).tolist()]
        tokens, features = batch.shifted(1), batch.features
        if self.training:
            share = 512 / counts.clamp(min=SHORTEST).repeat_interleave(counts)
            features = features.float()
            features = features + (torch.rand_like(features) - 0.5) * NOISE * share[:, None]
        predicted: list[torch.Tensor] = [tokens] * len(lengths)
        for group in _of_like_length(lengths):
            # Padded on the right, where causal attention does not look.
            pieces = [slice(starts[i], starts[i + 1]) for i in group]
            pad = torch.nn.utils.rnn.pad_sequence
            states = self(
                pad([tokens[piece] for piece in pieces], batch_first=True),
                pad([features[piece] for piece in pieces], batch_first=True),
                pad([batch.positions[piece] for piece in pieces], batch_first=True),
            )
            for place, i in enumerate(group):
                predicted[i] = states[place, : lengths[i]]
        return torch.cat(predicted)


def _of_like_length(lengths: list[int]) -> Iterator[list[int]]:
    """Indices in groups of similar lengths, so that little is padded."""
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[i] < PADDING * lengths[group[0]]:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _number(config: Any, name: str) -> int:
    """A positive size of a config, 0 where it has none (or one per layer)."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _theta(config: Any) -> float:
    """Base of the rotary positions; the default where the target has none, or several."""
    parameters = getattr(config, "rope_parameters", None) or {}
    theta = parameters.get("rope_theta") or getattr(config, "rope_theta", None)
    return float(theta or 10000.0)
