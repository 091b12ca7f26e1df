"""The largest scores, found in numpy on a CPU, are those that torch finds."""

from __future__ import annotations

import pytest
import torch

from anydraft.choice import greedy_choices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_largest_scores_are_those_of_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 777).to(dtype)
    assert greedy_choices(logits) == logits.argmax(-1).tolist()
    part = logits[:, ::2, 3:700]  # as a slice of a padded pass
    assert greedy_choices(part) == part.argmax(-1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_scores_the_first_is_chosen(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 3, 100, dtype=dtype)
    logits[0, 1, [40, 41, 99]] = 1.0
    logits[0, 2] = -torch.inf
    assert greedy_choices(logits) == [[0, 40, 0]]


def test_of_tokens_ruled_out_none_is_chosen() -> None:
    logits = torch.full((1, 1, 50), -torch.inf)
    logits[0, 0, 31] = -1e30
    assert greedy_choices(logits) == [[31]]
