"""What a recalling drafter remembers: each row its own committed tokens, in order, however they came and went."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import tiny
import torch

from anydraft.drafters.recollection import START, Recollection
from anydraft.drafters.recurrent import RecurrentDrafter
from anydraft.networks.folded import FoldedLean
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.lean import LeanBody
from anydraft.networks.recall import HEAD_DIM, RowMemory
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.processors import Processors
from anydraft.row import Row
from anydraft.sampling import SamplingParams

HEADS, HIDDEN = 2, 32


@cache
def network() -> RecurrentNetwork:
    torch.manual_seed(0)
    model = tiny.model("llama")
    made = RecurrentNetwork(RecurrentConfig(target=TargetIdentity.of(model), recall_heads=HEADS))
    return made.attach(model).eval()


def body() -> LeanBody:
    folded = network().fold()
    assert isinstance(folded, FoldedLean)
    return folded.body


def row_of(index: int, prompt: int, tokens: int) -> Row:
    ids = tiny.prompt(prompt + tokens, index)
    row = Row(index, ids[:prompt], SamplingParams(), Processors())
    row.tokens += ids[prompt:]
    return row


def states_of(row: Row) -> torch.Tensor:
    """The target's hidden states of all tokens but the root."""
    count = len(row.prompt) + len(row.tokens) - 1
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(row.index))


@torch.no_grad()
def whole(row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values (n, heads, 64) of a row, made at once."""
    following = torch.tensor([*row.prompt, *row.tokens][1:])
    keys, values = body().remembered(states_of(row), network().embedded(following))
    return keys.view(-1, HEADS, HEAD_DIM), values.view(-1, HEADS, HEAD_DIM)


def same(memory: RowMemory, rows: Sequence[Row]) -> None:
    """The memory holds of every row what is made at once, and what else it holds is not seen."""
    longest = max(len(states_of(row)) for row in rows)
    assert memory.keys.shape == memory.values.shape == (len(rows), HEADS, longest, HEAD_DIM)
    for i, row in enumerate(rows):
        count = len(states_of(row))
        for found, wanted in zip((memory.keys, memory.values), whole(row), strict=True):
            torch.testing.assert_close(found[i, :, :count].transpose(0, 1), wanted, atol=1e-5, rtol=1e-4)
        if memory.seen is None:
            assert count == longest
        else:
            assert memory.seen[i, 0, 0].tolist() == [place < count for place in range(longest)]


def read(recollection: Recollection, row: Row, pieces: Sequence[int]) -> None:
    """Hand over the row's states: the prompt's, then so many at a time as passes commit them."""
    states, tokens = states_of(row), row.tokens
    start = len(row.prompt) - 1
    row.tokens = []
    recollection.add(row, states[:start])
    for piece in pieces:
        row.tokens = tokens[: len(row.tokens) + piece]
        recollection.add(row, states[start : start + piece])
        start += piece
    assert row.tokens == tokens


@torch.no_grad()
@pytest.mark.parametrize("prompt", [2, 3, START - 2, START + 1])
def test_in_pieces_as_at_once_beyond_the_room_there_was(prompt: int) -> None:
    pieces = [1, 3, 1, 2, 30, 1]
    row = row_of(0, prompt, sum(pieces))
    recollection = Recollection(network(), body())
    read(recollection, row, pieces)
    same(recollection.of([row]), [row])


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(5, 5, 5), (4, 11, 7), (300, 4, 120)])
def test_rows_side_by_side_keep_their_own(lengths: tuple[int, ...]) -> None:
    rows = [row_of(i, 3, length) for i, length in enumerate(lengths)]
    recollection = Recollection(network(), body())
    for row in rows:
        read(recollection, row, [1, 2, len(row.tokens) - 3])
    same(recollection.of(rows), rows)
    same(recollection.of(rows[::-1]), rows[::-1])
    same(recollection.of(rows[1:]), rows[1:])
    same(recollection.of(rows[:1]), rows[:1])


@torch.no_grad()
def test_a_row_that_comes_back_begins_anew() -> None:
    row, other = row_of(0, 4, 6), row_of(1, 4, 6)
    drafter = RecurrentDrafter(network(), tiny.target("llama"))
    recollection = drafter._recollection
    assert recollection is not None
    read(recollection, row, [6])
    read(recollection, other, [6])
    drafter.stop([row])
    same(recollection.of([other]), [other])
    with pytest.raises(KeyError):
        recollection.of([row])
    read(recollection, row, [2, 4])
    same(recollection.of([row, other]), [row, other])


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(6, 6), (9, 1, 4)])
def test_attention_is_the_naive_twin(lengths: tuple[int, ...]) -> None:
    """One row, one branch and one head at a time, over what the row has."""
    generator = torch.Generator().manual_seed(5)
    longest, width = max(lengths), 3
    keys, values = torch.randn(2, len(lengths), HEADS, longest, HEAD_DIM, generator=generator)
    query = torch.randn(len(lengths), width, HEADS * HEAD_DIM, generator=generator)
    seen = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None])[:, None, None]
    found = RowMemory(keys, values, None if len({*lengths}) == 1 else seen).attend(query)
    for i, length in enumerate(lengths):
        for branch in range(width):
            for head in range(HEADS):
                part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
                weights = (keys[i, head, :length] @ query[i, branch, part] / HEAD_DIM**0.5).softmax(0)
                torch.testing.assert_close(
                    found[i, branch, part], weights @ values[i, head, :length], atol=1e-5, rtol=1e-4
                )
