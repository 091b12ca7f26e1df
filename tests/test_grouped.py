"""Query heads that share keys are asked together: the same numbers, bit by bit, and only in passes of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from anydraft import grouped, models
from anydraft.grouped import MARK, NAME, agrees, attention, group_queries, suits
from anydraft.lm import chain
from anydraft.pretrained import load_model
from anydraft.queries import CompanyKeys
from anydraft.target import Target

GROUPED = ("llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma3", "starcoder2", "cohere", "olmo2", "mistral-window")
DTYPES = (torch.bfloat16, torch.float32)


class Module(torch.nn.Module):
    """What transformers looks at in an attention layer."""

    num_key_value_groups = 3
    is_causal = True


def shaped(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def inputs(width: int, span: int, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return shaped(rows, 6, width, 64), shaped(rows, 2, span, 64), shaped(rows, 2, span, 64, seed=1)


def masked(rows: int, width: int, span: int, kind: str) -> torch.Tensor:
    if kind == "of bools":
        return shaped(rows, 1, width, span) > -1
    seen = shaped(rows, 1, 1 if kind == "one line" else width, span) > -1
    mask = torch.where(seen, 0.0, torch.finfo(torch.bfloat16).min)
    return mask.expand(rows, 1, width, span)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the queries of each grouped call."""
    seen: list[tuple[int, ...]] = []
    genuine = F.scaled_dot_product_attention

    class Spied:
        def scaled_dot_product_attention(self, query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            seen.append(tuple(query.shape))
            return genuine(query, *args, **options)

    monkeypatch.setattr(grouped, "F", Spied())
    return seen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["one line", "lines", "of bools"])
@pytest.mark.parametrize(("rows", "width"), [(1, 4), (1, 6), (3, 5), (2, 8), (1, 32)])
def test_the_same_numbers(
    dtype: torch.dtype, kind: str, rows: int, width: int, lines: list[tuple[int, ...]]
) -> None:
    query, key, value = (states.to(dtype) for states in inputs(width, 320, rows))
    mask = masked(rows, width, 320, kind)
    mask = mask if mask.dtype == torch.bool else mask.to(dtype)
    found, weights = attention(Module(), query, key, value, mask, scaling=0.2)
    assert weights is None
    assert found.is_contiguous()
    assert lines == [(rows, 2, 3 * width, 64)]
    expected, _ = sdpa_attention_forward(Module(), query, key, value, mask, scaling=0.2)
    if agrees(6, 2, 64, dtype, torch.get_num_threads()):
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_few_queries_keep_each_other_company(width: int, lines: list[tuple[int, ...]]) -> None:
    query, key, value = (states.bfloat16() for states in inputs(width, 320))
    mask = masked(1, width, 320, "lines").bfloat16()
    found, _ = attention(Module(), query, CompanyKeys.of(key), value, mask, scaling=0.2)
    assert lines == ([(1, 2, 3 * width, 64)] if width > 1 else [])  # three by themselves are too few
    others = torch.arange(4).clamp(max=width - 1)
    expected, _ = sdpa_attention_forward(
        Module(), query[:, :, others], key, value, mask[:, :, others], scaling=0.2
    )
    if agrees(6, 2, 64, torch.bfloat16, torch.get_num_threads()):
        assert torch.equal(found, expected[:, :width])
    torch.testing.assert_close(found, expected[:, :width], rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("case", ["no mask", "by head", "few", "many", "a few too many", "bias"])
def test_what_it_is_not_made_for_is_as_transformers_does_it(case: str, lines: list[tuple[int, ...]]) -> None:
    width = {"few": 2, "many": 40, "a few too many": 11}.get(case, 8)  # 33 queries of a group: a block and one more
    query, key, value = inputs(width, 64)
    mask: torch.Tensor | None = masked(1, width, 64, "lines")
    if case == "no mask":
        mask = None
    elif case == "by head":
        mask = shaped(1, 6, width, 64)
    options = {"position_bias": shaped(1, 6, width, 64)} if case == "bias" else {}
    found, _ = attention(Module(), query, key, value, mask, scaling=0.2, **options)
    expected, _ = sdpa_attention_forward(Module(), query, key, value, mask, scaling=0.2, **options)
    assert torch.equal(found, expected)
    assert lines == []


def test_what_transformers_refuses_is_refused() -> None:
    query, key, value = inputs(8, 64)
    with pytest.raises(ValueError, match="softcap"):
        attention(Module(), query, key, value, masked(1, 8, 64, "lines"), softcap=30.0)


def test_blocks_that_leave_a_few() -> None:
    assert [count for count in range(1, 101) if not suits(count)] == [1, 2, 3, 33, 34, 35, 65, 66, 67, 97, 98, 99]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for arch in GROUPED:
        tiny.make(arch).save_pretrained(folder / arch)
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arch", GROUPED)
def test_every_architecture(
    arch: str, dtype: torch.dtype, saved: Path, lines: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged batches with trees in loaded models: every layer attends so, and logits are those without."""
    monkeypatch.setattr(grouped, "agrees", lambda *shape: True)
    model = load_model(str(saved / arch), role="target", dtype=dtype, device="cpu")
    given = []
    for marked in (True, False):
        setattr(model, MARK, marked)
        target = Target(model, structure="tree")
        cache = target.new_cache(3)
        target.prefill_rows(cache, [tiny.prompt(length, seed=length) for length in (9, 4, 6)])
        lines.clear()
        wide = ([5, 6, 7, 8, 9], [-1, -1, 0, 0, 1])
        logits = target.score(cache, [wide, chain([5, 6, 7]), wide]).logits
        assert len(lines) == (model.config.num_hidden_layers if marked else 0)
        assert model.config._attn_implementation == "sdpa"
        given.append([logits[0, :5], logits[1, :3], logits[2, :5]])
    for mine, other in zip(*given, strict=True):
        torch.testing.assert_close(mine, other, rtol=0.05, atol=0.05 if dtype == torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_embedded_models_give_the_same_bits(dtype: torch.dtype) -> None:
    model = load_model(str(models.path("target")), role="target", dtype=dtype, device="cpu")
    if not getattr(model, MARK, False):
        pytest.skip("on trial other digits came out on this machine")
    for width in (1, 4, 6, 16):
        given = []
        for marked in (True, False):
            setattr(model, MARK, marked)
            target = Target(model, structure="tree")
            cache = target.new_cache(2)
            target.prefill_rows(cache, [list(range(20, 20 + length)) for length in (300, 45)])
            given.append(target.score(cache, [chain([7] * width)] * 2).logits)
        assert torch.equal(*given), (dtype, width)


def test_to_others_a_model_is_as_it_was(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "agrees", lambda *shape: True)
    model = load_model(str(saved / "llama"), role="target", device="cpu")
    target = Target(model, structure="tree")
    inside: list[str] = []
    model.model.layers[0].register_forward_hook(lambda *given: inside.append(model.config._attn_implementation))
    cache = target.new_cache(1)
    target.score(cache, [chain([5, 6, 7, 8])])
    assert inside == [NAME]
    assert model.config._attn_implementation == "sdpa"

    def fails(*given: Any) -> None:
        raise RuntimeError("broken")

    model.model.layers[1].register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="broken"):
        target.score(cache, [chain([5, 6, 7, 8])])
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")  # whoever asks for something else has it
    inside.clear()
    with pytest.raises(RuntimeError, match="broken"):
        target.score(cache, [chain([5, 6, 7, 8])])
    assert inside == ["eager"]
    assert model.config._attn_implementation == "eager"


def test_which_models_stay_as_they_are(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "agrees", lambda *shape: True)
    assert group_queries(tiny.make("llama"))
    for arch in ("gpt2", "gpt-neox"):  # every head has its own keys
        assert not group_queries(tiny.make(arch))
    given = tiny.make("llama")
    assert load_model(given, role="target") is given
    assert not hasattr(given, MARK)
    assert not hasattr(load_model(str(saved / "llama"), role="target", packed=False), MARK)
    eager = tiny.make("llama")
    eager.set_attn_implementation("eager")
    assert not group_queries(eager)
    assert not group_queries(tiny.make("llama", num_key_value_heads=4, num_attention_heads=4))
    monkeypatch.setattr(grouped, "agrees", lambda *shape: False)
    assert not hasattr(load_model(str(saved / "llama"), role="target", device="cpu"), MARK)


def test_models_with_other_ideas_of_attention_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "agrees", lambda *shape: True)
    grouped._takes_any_name.cache_clear()
    for source in ("if config._attn_implementation == 'sdpa': mask = index_mask", 'names = ("eager", "sdpa")'):
        monkeypatch.setattr(grouped.inspect, "getsource", lambda module, source=source: source)
        assert not group_queries(tiny.make("llama"))
        grouped._takes_any_name.cache_clear()

    class LayersDiffer:
        _attn_implementation = "sdpa"

        def get_text_config(self) -> Any:
            return self

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("ambiguous")

    model = tiny.make("llama")
    model.config = LayersDiffer()
    assert not group_queries(model)


def test_numbers_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, off = grouped.attention, [0.0]

    def otherwise(*args: Any) -> tuple[torch.Tensor, None]:
        found, weights = genuine(*args)
        return (found + off[0] if args[1].shape[2] == 24 else found), weights

    # Both ways of the comparison by the same function, so that other machines find what this one does.
    monkeypatch.setattr(grouped, "attention", otherwise)
    monkeypatch.setattr(grouped, "F", SameWay())
    agrees.cache_clear()
    try:
        assert agrees(6, 2, 32, torch.float32, 1)
        agrees.cache_clear()
        off[0] = 1e-3
        assert not agrees(6, 2, 32, torch.float32, 1)
    finally:
        agrees.cache_clear()


class SameWay:
    """Attention whose digits do not depend on how many queries or heads there are."""

    @staticmethod
    def scaled_dot_product_attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor, scale: float | None = None
    ) -> torch.Tensor:
        scores = (query[..., None, :] * key[..., None, :, :]).sum(-1) / query.shape[-1] ** 0.5 + attn_mask
        return (scores.softmax(-1)[..., None] * value[..., None, :, :]).sum(-2)


def test_groups_that_leave_a_few_are_tried_where_they_do_not() -> None:
    agrees.cache_clear()
    agrees(22, 2, 16, torch.float32, 1)  # six tokens make 66 queries, two more than two blocks: not grouped
    agrees.cache_clear()


@pytest.mark.parametrize("given", [(1, 1, 1, 320), (2, 1, 1, 320)])
def test_masks_of_one_line(given: tuple[int, ...], lines: list[tuple[int, ...]]) -> None:
    query, key, value = inputs(5, 320, rows=2)
    mask = torch.where(shaped(*given) > -1, 0.0, -1e9)
    found, _ = attention(Module(), query, key, value, mask, scaling=0.2)
    expected, _ = sdpa_attention_forward(Module(), query, key, value, mask, scaling=0.2)
    torch.testing.assert_close(found, expected)
    assert lines == [(2, 2, 15, 64)]
