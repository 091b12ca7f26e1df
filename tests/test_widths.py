"""Passes in half precision on a CPU have few shapes: a new one would make kernels anew, and some round otherwise."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import tiny
import torch

from anydraft import models
from anydraft.lm import LanguageModel, Nodes, chain
from anydraft.pretrained import load_model
from anydraft.shapes import KEY_BLOCK, KEY_CHUNK, LEAST_WIDTH, SPAN_STEP, WIDTHS, padded_span, padded_width, whole_span
from anydraft.target import Target


def model(dtype: torch.dtype) -> Any:
    return copy.deepcopy(tiny.model("llama")).to(dtype).eval()


KERNELS = [pytest.param(True, id="oneDNN"), pytest.param(False, id="others")]
"""Whether oneDNN makes the products in half precision, as it does for CPUs that have them."""


@pytest.fixture
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("anydraft.lm.makes_kernels", lambda dtype: request.param and dtype.itemsize == 2)
    return bool(request.param)


def widths_of(lm: LanguageModel, lengths: list[int]) -> list[int]:
    """Widths of the passes that read prompts and drafts of these lengths."""
    seen: list[int] = []
    handle = lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        for length in lengths:
            cache = lm.new_cache(1)
            lm.prefill(cache, 0, tiny.prompt(length))
            lm.score(cache, [chain(tiny.prompt(length, seed=1))])
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("kernels", KERNELS, indirect=True)
def test_few_widths_in_half_precision(kernels: bool) -> None:
    seen = widths_of(LanguageModel(model(torch.bfloat16)), list(range(1, 100)))
    if not kernels:
        assert set(seen) == set(range(1, 100))
        return
    assert {width for width in seen if width <= WIDTHS[-1]} == set(WIDTHS)
    assert {width for width in seen if width > WIDTHS[-1]} == {96, 128}
    assert 96 % SPAN_STEP == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kernels", KERNELS, indirect=True)
def test_passes_that_matter_are_never_narrow(kernels: bool, attention: str) -> None:
    """A token by itself is scored by the kernels that score it among drafted ones. Not in batches, where that costs."""
    assert [padded_width(1, rows, alike=True) for rows in (1, 2, 3, 8)] == [4, 4, 1, 1]
    assert [padded_width(width) for width in (1, 3, 5, 9, 33, 65)] == [1, 4, 6, 12, 48, 96]
    assert [padded_width(width, few=False) for width in (1, 5, 65)] == [1, 5, 65]
    assert [padded_width(width, few=False, alike=True) for width in (1, 5)] == [4, 5]
    target = model(torch.bfloat16)
    target.set_attn_implementation(attention)
    seen = {width for width in widths_of(Target(target, structure="tree"), list(range(1, 100))) if width <= WIDTHS[-1]}
    if kernels:
        assert seen == {width for width in WIDTHS if width >= LEAST_WIDTH}
    else:  # queries can be given company by themselves, where keys meet them in one known function
        assert seen == set(range(1 if attention == "sdpa" else LEAST_WIDTH, WIDTHS[-1] + 1))


def test_spans_end_where_blocks_of_keys_are_whole() -> None:
    spans = [padded_span(slots) for slots in range(1, 3000)]
    assert all(slots <= span < slots + 2 * KEY_BLOCK for slots, span in enumerate(spans, start=1))
    assert all(span % SPAN_STEP == 0 and not KEY_BLOCK < span % KEY_CHUNK < 2 * KEY_BLOCK for span in spans)
    assert spans == sorted(spans)
    assert [padded_span(slots) for slots in (150, 193, 400, 513, 705)] == [160, 384, 416, 544, 896]
    assert whole_span(193) == 224


def test_a_session_makes_room_for_padding_at_once() -> None:
    """A text of 250 slots reads 384 in the end, in keys and values that never had to be copied."""
    target = Target(model(torch.bfloat16), structure="tree")
    cache = target.new_cache(1, 250)
    before = cache.capacity
    target.prefill(cache, 0, tiny.prompt(240))
    target.score(cache, [chain(tiny.prompt(8, seed=1))])
    assert cache.current.span == 384
    assert cache.capacity == before


@cache
def packed() -> Target:
    """The target of the package in bfloat16."""
    return Target(load_model(str(models.path("target")), role="target", dtype=torch.bfloat16, device="cpu"))


measured = pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="measured with AVX")


@measured
@pytest.mark.parametrize("length", [3, 130, 250, 285, 350])
def test_a_token_is_scored_alike_whatever_is_scored_behind_it(length: int) -> None:
    """No promise (`exact=True` makes one), but what was measured: bit by bit, on the packed target of the package.

    All lengths but the first are such that narrower passes, or spans that end where blocks do not, give other bits.
    """
    target = packed()
    ids = torch.randint(10, target.vocab_size, (700,), generator=torch.Generator().manual_seed(length)).tolist()

    before = target.new_cache(1)
    target.prefill(before, 0, ids[:length])

    def scored(nodes: Nodes) -> torch.Tensor:
        logits = target.score(before, [nodes]).logits[0]
        before.advance(0, 0)
        return logits

    alone = scored(chain(ids[length : length + 1]))[0]
    for width in (5, 32):
        several = scored(chain(ids[length : length + width]))
        assert torch.equal(several[0], alone), width
        slots = target.new_cache(1)  # the last one, alone behind those before it
        target.prefill(slots, 0, ids[: length + width - 1])
        assert torch.equal(several[width - 1], target.score(slots, [chain([ids[length + width - 1]])]).logits[0, 0])


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="measured with AVX2")
@pytest.mark.parametrize("rows", [3, 8])
def test_a_token_of_a_batch_is_scored_alike(rows: int) -> None:
    """The same in batches, whose passes are not padded: there the queries have company. No promise either."""
    target = packed()
    generator = torch.Generator().manual_seed(rows)
    texts = torch.randint(10, target.vocab_size, (rows, 130), generator=generator).tolist()
    lengths = [70 + 7 * row for row in range(rows)]
    seen = []
    for count in (1, 4):
        slots = target.new_cache(rows)
        target.prefill_rows(slots, [text[:length] for text, length in zip(texts, lengths, strict=True)])
        nodes = [chain(text[length : length + count]) for text, length in zip(texts, lengths, strict=True)]
        seen.append(target.score(slots, nodes).logits[:, 0])
    assert torch.equal(seen[0], seen[1])


def test_no_padding_in_full_precision() -> None:
    assert widths_of(LanguageModel(model(torch.float32)), [3, 5, 70]) == [3, 3, 5, 5, 70, 70]


@pytest.mark.parametrize("kernels", [True], indirect=True)
@pytest.mark.parametrize("length", [1, 3, 5, 33, 65, 90])
def test_padding_changes_no_logit(length: int, kernels: bool) -> None:
    """Those of the text read as before, without padding; twice, so that what padding left in the cache would show."""
    logits = []
    for padded in (True, False):
        lm = LanguageModel(model(torch.bfloat16))
        lm._few = padded
        cache = lm.new_cache(2)
        states = lm.prefill_rows(cache, [tiny.prompt(length), tiny.prompt(7, seed=3)], hidden="all")
        assert [len(state) for state in states] == [length, 7]
        nodes = [chain(tiny.prompt(3, seed=1)), chain(tiny.prompt(2, seed=2))]
        first = lm.score(cache, nodes).logits
        for row in (0, 1):
            cache.commit(row, [0])
        second = lm.score(cache, nodes).logits
        logits.append((first[0, :3], first[1, :2], second[0, :3], second[1, :2]))
    for mine, other in zip(*logits, strict=True):
        torch.testing.assert_close(mine, other, rtol=0.05, atol=0.05)
