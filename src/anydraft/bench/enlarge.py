"""Makes a model that computes the same function as a small one at the real cost of a larger one.

A small model decodes in a few milliseconds, most of them Python; what speculation is worth on a large target
cannot be read from it. This module builds a larger model of the same answers:

- *width*: the residual stream gets further channels that are always zero. RMSNorm then averages over more
  channels, which its weight (times sqrt(d / width)) and its epsilon (times d / width) undo;
- *heads* and *MLP channels*: new ones have random weights, and zero columns in the projection behind them;
- *layers*: new ones have random weights and output projections that are zero, so they add zero.

Every new weight is read and multiplied like any other, so time and memory are those of a model of the new
shape; only the answers are the old ones, up to rounding (float32: 5e-6 of the largest logit). Numbers taken
from such a model must say so: it does not show how often drafts for a *better* target would be accepted.
"""

import copy
import math

import torch
from transformers import PreTrainedModel

from anydraft.bench.shape import Shape
from anydraft.errors import UnsupportedModel
from anydraft.packing import plain_parameters


def enlarge(
    model: PreTrainedModel,
    width: int | None = None,
    layers: int | None = None,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    intermediate: int | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return a new model of the same function and the given shape; the given model is not touched.

    Heads and MLP channels that are not given grow with the width; head_dim, dtype and device stay. Raises
    UnsupportedModel for a model that is not of Llama form, ValueError for a shape that cannot hold it.
    """
    small = Shape.of(model)
    shape = small.grown(width=width, layers=layers, heads=heads, kv_heads=kv_heads, intermediate=intermediate)
    return _enlarged(model, small, shape, seed)


def enlarge_to(model: PreTrainedModel, parameters: float = 400e6, *, seed: int = 0) -> PreTrainedModel:
    """Return a new model of the same function with at least so many parameters, in common proportions.

    Raises UnsupportedModel for a model that is not of Llama form, ValueError where it is larger already.
    """
    small = Shape.of(model)
    present = sum(parameter.numel() for parameter in model.parameters())
    if parameters < present:
        raise ValueError(f"the model has {present:,} parameters already; asked for {parameters:,.0f}")
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = {id(end.weight): len(end.weight) for end in ends}  # tied ones count once
    return _enlarged(model, small, small.reaching(parameters, vocabulary=sum(rows.values())), seed)


@torch.no_grad()
def _enlarged(model: PreTrainedModel, small: Shape, shape: Shape, seed: int) -> PreTrainedModel:
    at = places(small, shape, len(model.get_input_embeddings().weight), model.device)
    scale = math.sqrt(small.width / shape.width)
    large = _random(model, shape, seed)
    targets = dict(large.named_parameters())
    unknown = [name for name, _ in model.named_parameters() if name not in targets or _module(name) not in at]
    if unknown:
        raise UnsupportedModel(f"only plain Llama form can be enlarged; this model also has {', '.join(unknown[:3])}")
    _silence(large)
    for name, parameter in plain_parameters(model):
        rows, columns = at[_module(name)]
        value = parameter * scale if name.endswith(("layernorm.weight", "model.norm.weight")) else parameter
        if parameter.ndim == 1:
            targets[name][rows] = value
        else:
            targets[name][rows[:, None], columns] = value
    return large


def _module(parameter_name: str) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `q_proj`."""
    return parameter_name.split(".")[-2]


def _random(model: PreTrainedModel, shape: Shape, seed: int) -> PreTrainedModel:
    """A model of the same class and the new shape with random weights from `seed`."""
    config = copy.deepcopy(model.config)
    config.rms_norm_eps *= model.config.hidden_size / shape.width
    config.hidden_size = shape.width
    config.num_hidden_layers = shape.layers
    config.num_attention_heads = shape.heads
    config.num_key_value_heads = shape.kv_heads
    config.head_dim = shape.head_dim
    config.intermediate_size = shape.intermediate
    kinds = getattr(config, "layer_types", None)
    if kinds:
        config.layer_types = [*kinds, *[kinds[-1]] * (shape.layers - len(kinds))]
    with torch.random.fork_rng():  # the caller's random numbers stay as they were
        torch.manual_seed(seed)
        large = type(model)._from_config(config, dtype=model.dtype)
    large.generation_config = copy.deepcopy(model.generation_config)
    large.requires_grad_(False)
    placed: PreTrainedModel = large.to(model.device).eval()
    return placed


def _silence(large: PreTrainedModel) -> None:
    """Let whatever writes into the residual stream write zero."""
    large.get_input_embeddings().weight.zero_()
    for layer in large.model.layers:
        for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
            for parameter in writer.parameters():
                parameter.zero_()


def places(
    small: Shape, shape: Shape, vocabulary: int, device: torch.device
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each kind of module: the rows and columns of the larger weight where the smaller one goes."""

    def first(count: int) -> torch.Tensor:
        return torch.arange(count, device=device)

    # Query head j of kv group k stands at k * group + j, so that it still reads its own keys and values.
    heads = (first(small.kv_heads)[:, None] * shape.group + first(small.group)).flatten()
    query = (heads[:, None] * small.head_dim + first(small.head_dim)).flatten()
    key = first(small.kv_heads * small.head_dim)
    residual, channel, token = first(small.width), first(small.intermediate), first(vocabulary)
    return {
        "embed_tokens": (token, residual),
        "lm_head": (token, residual),
        "q_proj": (query, residual),
        "k_proj": (key, residual),
        "v_proj": (key, residual),
        "o_proj": (residual, query),
        "gate_proj": (channel, residual),
        "up_proj": (channel, residual),
        "down_proj": (residual, channel),
        "input_layernorm": (residual, residual),
        "post_attention_layernorm": (residual, residual),
        "norm": (residual, residual),
    }
