"""Attention of few queries, made as that of four: so a token is rounded alike by itself and among drafted ones.

On a CPU attention in bfloat16 takes other kernels for up to three queries than for more. Where nothing else of a pass
depends on its width, padding the whole pass would multiply its time, and the queries are all that needs company. They
meet the cache's keys in `scaled_dot_product_attention`; so keys that are handed out for a narrow pass see to it,
whatever the architecture, and no model is changed for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional as F

from anydraft.shapes import LEAST_WIDTH


class CompanyKeys(torch.Tensor):
    """Keys (B, heads, T, d), or views of them, to which fewer than `LEAST_WIDTH` queries never come alone."""

    @classmethod
    def of(cls, keys: torch.Tensor) -> CompanyKeys:
        """The same keys."""
        return keys.as_subclass(cls)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Attention with company; what else is made of the keys by itself is keys as well."""
        options = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is F.scaled_dot_product_attention:
                return _attention(*args, **options)
            result = func(*args, **options)
        alone = all(not isinstance(value, torch.Tensor) or isinstance(value, cls) for value in args)
        return result.as_subclass(cls) if alone and type(result) is torch.Tensor else result


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    key = key.as_subclass(torch.Tensor)
    count = query.shape[-2]
    lacking = LEAST_WIDTH - count
    if lacking > 0:  # behind the others, where they change nothing, causal or not
        query = torch.constant_pad_nd(query, (0, 0, 0, lacking))
        if attn_mask is not None and attn_mask.shape[-2] > 1:
            attn_mask = torch.cat([attn_mask, attn_mask[..., -1:, :].expand(*attn_mask.shape[:-2], lacking, -1)], -2)
    found = F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)
    return found.narrow(-2, 0, count)
