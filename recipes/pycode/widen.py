"""A wider model of the same function, to go on from a smaller one instead of from nothing.

New embedding columns are zero, weights that write new dimensions are zero and weights that read them are small and
random: the new dimensions carry nothing at first, yet the embeddings learn through the readers. RMSNorm divides by the
mean over more dimensions, so its weights are scaled by sqrt(old / new) and its eps by old / new. (Net2Net,
arXiv:1511.05641, gave the idea.)
"""

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@torch.no_grad()
def widened(model: LlamaForCausalLM, config: LlamaConfig, seed: int = 0) -> LlamaForCausalLM:
    """A model of the config's sizes that computes what `model` computes, in float32 up to rounding.

    Width, heads and MLP channels may grow; layers, key/value heads, head dimension and vocabulary stay. Raises
    ValueError for anything else.
    """
    old = model.config
    for name in ("num_hidden_layers", "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings"):
        if getattr(old, name) != getattr(config, name):
            raise ValueError(f"widening keeps {name}: it is {getattr(old, name)}, asked for {getattr(config, name)}")
    for name in ("hidden_size", "num_attention_heads", "intermediate_size"):
        if getattr(old, name) > getattr(config, name):
            raise ValueError(f"widening cannot shrink {name} from {getattr(old, name)} to {getattr(config, name)}")
    if old.num_key_value_heads != 1 and old.num_attention_heads != config.num_attention_heads:
        raise ValueError("query heads can only be added where they share a single key/value head")

    ratio = old.hidden_size / config.hidden_size
    config.rms_norm_eps = old.rms_norm_eps * ratio
    noise = torch.Generator().manual_seed(seed)
    wide = LlamaForCausalLM(config).float()
    source = dict(model.named_parameters())
    for name, weight in wide.named_parameters():
        before = source[name].float()
        if "norm" in name:
            weight.fill_(before.mean() * ratio**0.5)
            weight[: len(before)] = before * ratio**0.5
        elif "embed_tokens" in name or "o_proj" in name or "down_proj" in name:
            weight.copy_(_padded(before, weight, None))
        else:
            weight.copy_(_padded(before, weight, noise))
    return wide


def _padded(before: Tensor, like: Tensor, noise: torch.Generator | None) -> Tensor:
    """The old matrix in the corner of a new one: zeros around it, or noise of half its own spread."""
    out = torch.zeros_like(like)
    if noise is not None:
        out = torch.randn(like.shape, generator=noise) * (before.std() * 0.5)
    out[: before.shape[0], : before.shape[1]] = before
    return out
