"""Narrow passes in bfloat16 on a CPU attend with four queries, and the answers are those of their own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F

from anydraft import queries
from anydraft.lm import chain
from anydraft.queries import CompanyKeys
from anydraft.shapes import LEAST_WIDTH
from anydraft.target import Target


def shaped(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Queries of every call of attention itself, padded."""
    seen: list[int] = []
    genuine = F.scaled_dot_product_attention

    class Spied:
        def __getattr__(self, name: str) -> Any:
            return getattr(F, name)

        def scaled_dot_product_attention(self, query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            seen.append(query.shape[-2])
            return genuine(query, *args, **options)

    def attention(*args: Any, **options: Any) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queries, "F", Spied())
            return inner(*args, **options)

    inner = queries._attention
    monkeypatch.setattr(queries, "_attention", attention)
    return seen


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Queries that came to such keys, call by call."""
    seen: list[int] = []
    genuine = queries._attention

    def spy(query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(query.shape[-2])
        return genuine(query, *args, **options)

    monkeypatch.setattr(queries, "_attention", spy)
    return seen


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("mask", ["none", "one line", "lines", "by head", "of bools"])
def test_few_queries_get_company(count: int, mask: str, padded: list[int]) -> None:
    query, key, value = (shaped(2, 6, length, 64).bfloat16() for length in (count, 320, 320))
    seen = {
        "none": None,
        "one line": shaped(2, 1, 1, 320),
        "lines": shaped(2, 1, count, 320),
        "by head": shaped(2, 6, count, 320),
        "of bools": shaped(2, 1, count, 320) > -1,
    }[mask]
    if seen is not None and seen.dtype != torch.bool:
        seen = seen.bfloat16()
    found = F.scaled_dot_product_attention(query, CompanyKeys.of(key), value, attn_mask=seen, scale=0.3)
    assert type(found) is torch.Tensor
    assert padded == [max(count, LEAST_WIDTH)]
    alone = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=0.3)
    torch.testing.assert_close(found, alone, rtol=0.05, atol=2e-3)
    # Bit by bit what they are among others that see the same.
    others = torch.arange(max(count, LEAST_WIDTH)).clamp(max=count - 1)
    lines = seen if seen is None or seen.shape[-2] == 1 else seen[..., others, :]
    several = F.scaled_dot_product_attention(query[..., others, :], key, value, attn_mask=lines, scale=0.3)
    assert torch.equal(found, several[..., :count, :])


def test_causal_queries_see_what_they_saw(padded: list[int]) -> None:
    query, key, value = shaped(1, 2, 2, 16), shaped(1, 2, 2, 16), shaped(1, 2, 2, 16)
    found = F.scaled_dot_product_attention(query, CompanyKeys.of(key), value, is_causal=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, is_causal=True))
    assert padded == [LEAST_WIDTH]


def test_views_are_keys_and_what_is_mixed_is_not() -> None:
    keys = CompanyKeys.of(shaped(1, 2, 5, 4))
    assert isinstance(keys[:, :, None].expand(1, 2, 3, 5, 4).reshape(1, 6, 5, 4), CompanyKeys)
    assert isinstance(keys.transpose(2, 3), CompanyKeys)
    assert type(shaped(1, 2, 1, 4) @ keys.transpose(2, 3)) is torch.Tensor
    assert type(keys + shaped(1, 2, 5, 4)) is torch.Tensor


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_every_architecture(arch: str, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All attention of a narrow pass goes through the keys, in ragged batches with a tree; logits but for rounding."""
    monkeypatch.setattr("anydraft.lm.makes_kernels", lambda dtype: False)
    model = copy.deepcopy(tiny.model(arch)).bfloat16().eval()
    if model.config._attn_implementation != "sdpa":
        pytest.skip("its attention is not scaled_dot_product_attention")
    layers = model.config.get_text_config().num_hidden_layers
    given = []
    for company in (True, False):
        target = Target(model, structure="tree")
        target._company = company
        slots = target.new_cache(3)
        target.prefill_rows(slots, [tiny.prompt(length, seed=length) for length in (9, 4, 6)])
        counts.clear()
        narrow = target.score(slots, [chain([5]), chain([6]), chain([7])]).logits[:, 0]
        assert len(counts) == (layers if company else 0)
        for row in range(3):
            slots.commit(row, [0])
        tree = target.score(slots, [([8, 9], [-1, -1]), chain([8, 9]), chain([4])]).logits
        given.append((narrow, tree[:2], tree[2, :1]))
    for mine, other in zip(*given, strict=True):
        torch.testing.assert_close(mine, other, rtol=0.05, atol=0.05)
