"""Masks of passes against a naive twin that asks, node by node and slot by slot, who may see what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anydraft.cache import SlotCache
from anydraft.masks import Masks

CPU = torch.device("cpu")


def planned(rows: list[tuple[int, list[int], int]], width: int, span: int | None = None) -> tuple[SlotCache, list[int]]:
    """A cache of rows given as (prefix, parents of the tail, new nodes among them), with the pass over the new ones."""
    cache = SlotCache(len(rows), 64)
    for i, (length, parents, _) in enumerate(rows):
        cache.lengths[i] = length
        cache.append(i, parents)
    starts = [length + len(parents) - count for length, parents, count in rows]
    cache.plan(range(len(rows)), starts, width, max(starts) + width if span is None else span)
    return cache, [count for _, _, count in rows]


def naive(rows: list[tuple[int, list[int], int]], width: int, span: int, window: int) -> torch.Tensor:
    """(rows, 1, width, span) 0 where a node sees a slot, else the least number."""
    mask = np.full((len(rows), 1, width, span), torch.finfo(torch.float32).min)
    for i, (length, parents, count) in enumerate(rows):
        first = len(parents) - count

        def depth(node: int, parents: list[int] = parents) -> int:
            return 0 if node < 0 else 1 + depth(parents[node])

        for j in range(width):
            node = first + j
            if j >= count:
                mask[i, 0, j, length + node] = 0
                continue
            place = length + depth(node) - 1
            visible = {slot: slot for slot in range(length)}
            while node >= 0:
                visible[length + node] = length + depth(node) - 1
                node = parents[node]
            for slot, position in visible.items():
                if not window or place - position < window:
                    mask[i, 0, j, slot] = 0
    return torch.from_numpy(mask).float()


TREE = [-1, 0, 0, 1, 3, 2]
ROWS: dict[str, tuple[list[tuple[int, list[int], int]], int]] = {
    "plain": ([(20, [-1], 1)], 1),
    "plain, two rows": ([(20, [-1], 1), (20, [-1], 1)], 1),
    "plain, ragged": ([(20, [-1], 1), (7, [-1], 1), (0, [-1], 1)], 1),
    "second node": ([(5, [-1, 0], 1)], 1),
    "tree": ([(9, TREE, 6)], 6),
    "tree in two passes": ([(9, TREE, 4)], 4),
    "tree, padded": ([(9, TREE, 6), (13, [-1, 0], 2), (4, [], 0)], 8),
    "prompt": ([(0, list(range(-1, 11)), 12)], 12),
}


@pytest.mark.parametrize("window", [0, 4, 12, 100])
@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize("name", list(ROWS))
def test_masks(name: str, extra: int, window: int) -> None:
    rows, width = ROWS[name]
    cache, counts = planned(rows, width)
    span = cache.current.span + extra
    cache, counts = planned(rows, width, span)
    kinds = ["full_attention", "sliding_attention"]
    masks = Masks(kinds, window, torch.float32)
    for _ in range(2):  # what is kept between passes changes nothing
        made: Any = masks.of(cache, range(len(rows)), counts, width, CPU)
        assert torch.equal(made["full_attention"], naive(rows, width, span, 0))
        assert torch.equal(made["sliding_attention"], naive(rows, width, span, window))
    only = Masks(["sliding_attention"], window, torch.float32).of(cache, range(len(rows)), counts, width, CPU)
    assert torch.equal(torch.as_tensor(only), naive(rows, width, span, window))  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [[20], [20, 20], [20, 7, 0]])
def test_padding_of_plain_passes_sees_something(lengths: list[int]) -> None:
    """Or its numbers would be none; what it sees does not matter."""
    rows = [(length, [-1], 1) for length in lengths]
    cache, counts = planned(rows, 4)
    made = torch.as_tensor(Masks(["full_attention"], 0, torch.float32).of(cache, range(len(rows)), counts, 4, CPU))  # type: ignore[arg-type]
    assert torch.equal(made[:, :, :1], naive(rows, 4, cache.current.span, 0)[:, :, :1])
    assert (made == 0).any(-1).all()


def test_masks_of_growing_texts() -> None:
    masks = Masks(["full_attention"], 0, torch.bfloat16)
    for length, behind in [(1, 0), (3, 28), (30, 1), (29, 2), (70, 25), (2, 200), (90, 300)]:
        cache, counts = planned([(length, [-1], 1)], 1, length + 1 + behind)
        made = masks.of(cache, range(1), counts, 1, CPU)
        assert isinstance(made, torch.Tensor)
        assert made.shape == (1, 1, 1, length + 1 + behind)
        assert made.dtype == torch.bfloat16
        assert (made == 0).sum() == length + 1
        assert not made[..., : length + 1].any()
        assert (made[..., length + 1 :] == torch.finfo(torch.bfloat16).min).all()
