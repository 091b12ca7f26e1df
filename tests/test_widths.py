"""Passes in half precision on a CPU have few widths: every new one would make kernels anew."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch

from anydraft.lm import SPAN_STEP, WIDTHS, LanguageModel, chain


def model(dtype: torch.dtype) -> Any:
    return copy.deepcopy(tiny.model("llama")).to(dtype).eval()


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


def test_few_widths_in_half_precision() -> None:
    seen = widths_of(LanguageModel(model(torch.bfloat16)), list(range(1, 100)))
    assert {width for width in seen if width <= WIDTHS[-1]} == set(WIDTHS)
    assert {width for width in seen if width > WIDTHS[-1]} == {96, 128}
    assert 96 % SPAN_STEP == 0


def test_no_padding_in_full_precision() -> None:
    assert widths_of(LanguageModel(model(torch.float32)), [3, 5, 70]) == [3, 3, 5, 5, 70, 70]


@pytest.mark.parametrize("length", [1, 3, 5, 33, 65, 90])
def test_padding_changes_no_logit(length: int) -> None:
    """Those of the text read as before, without padding; twice, so that what padding left in the cache would show."""
    logits = []
    for padded in (True, False):
        lm = LanguageModel(model(torch.bfloat16))
        lm._padded = padded
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
