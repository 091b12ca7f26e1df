"""Hidden states kept for drafters, against keeping them row by row as they come."""

from __future__ import annotations

import random

import pytest
import torch

from anydraft import SamplingParams
from anydraft.hearing import MANY, Hearing
from anydraft.processors import Processors
from anydraft.row import Row

SIZE = 3


class Reader:
    """A drafter as far as hearing looks at it."""

    def __init__(self, hidden: str) -> None:
        self.hidden = hidden


def made(count: int) -> list[Row]:
    return [Row(i, [0], SamplingParams(), Processors()) for i in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_states_are_those_kept_row_by_row(seed: int) -> None:
    """Plain and wide passes, rows that leave, drafters that read now and then: the same as one list a row."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    rows = made(4)
    hearing = Hearing({0: Reader("all"), 2: Reader("last")})  # type: ignore[dict-item]
    naive: dict[int, dict[Row, list[torch.Tensor]]] = {0: {}, 2: {}}

    def heard(row: Row, states: torch.Tensor) -> None:
        if len(states):
            naive[0].setdefault(row, []).append(states)
            naive[2][row] = [states[-1:]]

    for i, row in enumerate(rows):
        prompt = torch.randn(i, SIZE)  # the first row's prompt is one token: nothing was read of it
        hearing.keep(row, prompt)
        heard(row, prompt)
    read = 0
    for number in range(MANY):
        width = 1 if chance.random() < 0.95 else 4
        hidden = torch.randn(len(rows), width, SIZE)
        accepted = [sorted(chance.sample(range(width - 1), chance.randint(0, width - 1))) for _ in rows]
        hearing.keep_pass(rows, hidden, accepted)
        for row, states, nodes in zip(rows, hidden, accepted, strict=True):
            heard(row, states[[0, *(node + 1 for node in nodes)]])
        if chance.random() < 0.03:
            which, row = chance.choice([0, 2]), chance.choice(rows)
            expected, found = naive[which].pop(row, None), hearing.take(which, row)
            assert (found is None) == (expected is None)
            if found is not None:
                torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=0)
                read += 1
        if number == 100:
            gone, rows = rows[1], [rows[0], *rows[2:]]
            for which in naive:
                hearing.forget(which, [gone])
                assert hearing.take(which, gone) is None
    assert read
    for which in naive:
        for row in rows:
            states = hearing.take(which, row)
            if row in naive[which]:
                torch.testing.assert_close(states, torch.cat(naive[which][row]), rtol=0, atol=0)
            assert hearing.take(which, row) is None


def test_what_is_kept_of_one_row_does_not_hold_the_others() -> None:
    """States of a row are no view of all rows' states, whose memory would stay until the last row is done."""
    rows = made(3)
    hearing = Hearing({0: Reader("all")})  # type: ignore[dict-item]
    for width, accepted in ((1, []), (4, [1])):
        hearing.keep_pass(rows, torch.randn(3, width, SIZE), [accepted] * 3)
        hearing.forget(0, rows[1:])
        states = hearing.take(0, rows[0])
        assert states is not None
        assert states.untyped_storage().nbytes() == states.nbytes == (1 + len(accepted)) * SIZE * 4


def test_a_dropped_drafter_hears_nothing_and_the_other_goes_on() -> None:
    (row,) = made(1)
    hearing = Hearing({0: Reader("all"), 1: Reader("all")})  # type: ignore[dict-item]
    hearing.keep_pass([row], torch.ones(1, 1, SIZE), [[]])
    hearing.drop(0)
    hearing.keep_pass([row], torch.ones(1, 1, SIZE), [[]])
    hearing.forget(0, [row])
    states = hearing.take(1, row)
    assert states is not None
    assert states.shape == (2, SIZE)
