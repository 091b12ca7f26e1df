"""Attention over a few drafted tokens, for models whose query heads share keys: asked together, not one by one.

Where several query heads share a head of keys and values (grouped queries, arXiv 2305.13245), transformers repeats
those for each of them as soon as there is a mask and more than one token. For a few tokens on a CPU, copying takes as
long as attending, and attending takes as many small products as there are heads. Here the queries of a group stand
below each other as if they were further tokens, so that keys and values are read where they lie. Numbers are the same
bit by bit, on trial with each shape of heads (`agrees`), or all stays as it is.

It is an attention implementation of transformers by name. Models that are loaded here are marked for it, and it is
theirs for the length of a pass of the engine only: to everyone else they are models with `sdpa`.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from anydraft.queries import CompanyKeys
from anydraft.shapes import LEAST_WIDTH

logger = logging.getLogger(__name__)

NAME = "anydraft_grouped"
"""Of the implementation, as in `attn_implementation`."""

MARK = "anydraft_groups_queries"
"""Attribute of a model that may attend so."""

MOST_WIDTH = 32
"""Tokens up to which queries are grouped: beyond, attending takes much longer than copying."""

BLOCK = 32
"""Queries that torch takes at once, or a multiple of it; what is left over must not be few (`shapes.LEAST_WIDTH`)."""

TRIED_WIDTHS, TRIED_SPANS = (4, 6, 8, 12, 16, 24, 32), (32, 192, 384, 1056)

OTHER = ("position_bias", "softcap", "output_attentions", "cache")
"""Arguments that change what attention is."""


class Grouping:
    """While it is entered, a marked model attends so; nothing happens with others.

    Two threads may be in passes of a model at once: whoever leaves first only makes the other one copy keys.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._config = model.config if getattr(model, MARK, False) else None
        if self._config is not None:
            AttentionInterface.register(NAME, attention)
            AttentionMaskInterface.register(NAME, sdpa_mask)

    def __enter__(self) -> None:
        if self._config is not None and self._config._attn_implementation == "sdpa":
            self._config._attn_implementation_internal = NAME

    def __exit__(self, *failure: object) -> None:
        if self._config is not None and self._config._attn_implementation == NAME:
            self._config._attn_implementation_internal = "sdpa"


def group_queries(model: PreTrainedModel) -> bool:
    """Mark a model on a CPU to attend so in passes of the engine, where numbers are the same; whether it will.

    Only for a model that nobody else relies on.
    """
    shape = _heads(model)
    if shape is None:
        return False
    if not agrees(*shape, model.dtype, torch.get_num_threads()):
        logger.info("%s attends as before: grouped queries give other digits here", type(model).__name__)
        return False
    setattr(model, MARK, True)
    return True


def _heads(model: PreTrainedModel) -> tuple[int, int, int] | None:
    """Query heads, heads of keys, and numbers of each; None where these are not shared, or attention is special."""
    config = model.config
    if config._attn_implementation != "sdpa" or config.get_text_config() is not config or model.device.type != "cpu":
        return None
    try:
        heads, shared = getattr(config, "num_attention_heads", 0), getattr(config, "num_key_value_heads", None)
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
    except (AttributeError, RuntimeError, TypeError, ZeroDivisionError):  # RuntimeError: layers that differ in it
        return None
    if not shared or heads <= shared or heads % shared:
        return None
    kind: Any = type(model)
    return (heads, shared, size) if _takes_any_name(kind) else None


@cache
def _takes_any_name(kind: Any) -> bool:
    """Whether models of a class ask for their attention by name alone, and do nothing else where that is "sdpa"."""
    can_set = getattr(kind, "_can_set_attn_implementation", None)
    if can_set is None or not can_set():
        return False
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError):
        return False
    return re.search("['\"]sdpa['\"]", source) is None


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: query (B, heads, N, d), key and value (B, shared heads, T, d).

    Returns:
        (B, N, heads, d), and no weights.
    """
    company = isinstance(key, CompanyKeys)
    with torch._C.DisableTorchFunctionSubclass():
        plain = key.as_subclass(torch.Tensor) if company else key
        batch, heads, width, size = query.shape
        lines = heads // plain.shape[1] * width
    if (
        attention_mask is None
        or attention_mask.ndim != 4
        or attention_mask.shape[1] != 1
        or not (company or LEAST_WIDTH <= width <= MOST_WIDTH)
        or not suits(lines)
        or not query.is_cpu
        or dropout
        or any(options.get(name) is not None and options[name] is not False for name in OTHER)
    ):
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **options
        )
        return found
    if attention_mask.shape[2] == 1 or attention_mask.stride(2) == 0:
        attention_mask = attention_mask[:, :, :1].expand(-1, -1, lines, -1)
    else:
        attention_mask = attention_mask.repeat(1, 1, lines // width, 1)
    below = query.reshape(batch, plain.shape[1], lines, size)
    attended = F.scaled_dot_product_attention(below, plain, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(batch, heads, width, -1).transpose(1, 2).contiguous(), None


def suits(lines: int) -> bool:
    """Whether so many queries are many enough, and no block of them is left with a few, which round otherwise."""
    return lines >= LEAST_WIDTH and not 0 < lines % BLOCK < LEAST_WIDTH


@cache
@torch.inference_mode()
def agrees(heads: int, shared: int, size: int, dtype: torch.dtype, threads: int) -> bool:
    """Whether grouped queries give the bits of single ones, with random numbers at several widths and spans.

    Args:
        size: of a head; threads: of torch, with which it is tried.
    """
    numbers = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=numbers, device="cpu").to(dtype)

    group = heads // shared
    for span in TRIED_SPANS:
        key, value = some(1, shared, span, size), some(1, shared, span, size)
        keys, values = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        for width in TRIED_WIDTHS:
            if not suits(group * width):
                continue
            query = some(1, heads, width, size)
            mask = torch.where(some(1, 1, width, span) > -1, 0.0, torch.finfo(dtype).min).to(dtype)
            mask[..., 0] = 0.0
            single = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            together, _ = attention(torch.nn.Module(), query, key, value, mask)
            if not torch.equal(together.transpose(1, 2), single):
                return False
    return True
