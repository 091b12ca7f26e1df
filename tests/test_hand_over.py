"""A drafter that reads hidden states is given those of every committed token, once, in order, and of its own row."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import tiny
import torch
from drafters_for_tests import Noisy, Oracle, Scripted
from tiny import RAGGED, VOCAB

from anydraft import Decoder, SamplingParams
from anydraft.growth import Bounds
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree

LONG = 40


class Reading:
    """Another drafter's drafts, with what was read until each of them checked against the model itself."""

    name = "reading"

    def __init__(self, inner: Scripted, target: Target, hidden: Literal["last", "all"]) -> None:
        self.inner, self.target, self.hidden = inner, target, hidden
        self.states: dict[Row, list[torch.Tensor]] = {}
        self.checked = 0

    def start(self, rows: list[Row]) -> None:
        self.inner.start(rows)
        self.states |= {row: [] for row in rows}

    def stop(self, rows: list[Row]) -> None:
        self.inner.stop(rows)
        for row in rows:
            self.states.pop(row, None)

    def read(self, row: Row, hidden: torch.Tensor) -> None:
        assert row.finish_reason is None
        assert hidden.ndim == 2
        self.states[row].append(hidden.clone())

    def propose(self, rows: list[Row], bounds: list[Bounds]) -> list[DraftTree]:
        for row in rows:
            known = [*row.prompt, *row.tokens][:-1]  # the root is not in the cache yet
            if not known:
                assert self.states[row] == []
                continue
            with torch.no_grad():
                wanted = self.target.model.base_model(torch.tensor([known])).last_hidden_state[0]
            found = torch.cat(self.states[row])
            if self.hidden == "last":
                assert all(len(state) == 1 for state in self.states[row])
                found, wanted = found[-1:], wanted[-1:]
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
            self.checked += 1
        return self.inner.propose(rows, bounds)


def truth(target: Target, params: list[SamplingParams]) -> dict[int, list[int]]:
    """Plain decoding's tokens by row."""
    told: dict[int, list[int]] = {row: [] for row in range(len(params))}
    for passed in Decoder(target).passes(RAGGED, params):
        for step in passed:
            told[step.row.index] += step.tokens
    return told


@pytest.mark.parametrize("hidden", ["last", "all"])
@pytest.mark.parametrize("drafts", ["noisy", "oracle", "nothing right"])
@pytest.mark.parametrize("options", [{}, {"exact": True}], ids=["trees", "fixed shapes"])
def test_of_every_committed_token(hidden: Literal["last", "all"], drafts: str, options: dict[str, Any]) -> None:
    """Rows begin ragged (one with a prompt of one token), are sampled or greedy, and end at different times."""
    target = Target(tiny.model("llama"), tiny.byte_level(), **options)
    params = [
        SamplingParams(max_new_tokens=new, temperature=temperature, seed=3, ignore_eos=True)
        for new, temperature in ((LONG, 0.0), (7, 1.0), (LONG // 2, 1.0), (LONG, 1.0))
    ]
    told = truth(target, params)
    inner: Scripted
    if drafts == "oracle":
        inner = Oracle(VOCAB, told, depth=3, decoys=0 if options else 1)
    elif options:
        inner = Oracle(VOCAB, told if drafts == "noisy" else {}, depth=2)
    else:
        inner = Noisy(VOCAB, told, right=0.7 if drafts == "noisy" else 0.0)
    reading = Reading(inner, target, hidden)
    tokens: dict[int, list[int]] = {row: [] for row in range(len(params))}
    accepted = 0
    for passed in tiny.decoder(target, reading).passes(RAGGED, params):
        for step in passed:
            tokens[step.row.index] += step.tokens
            accepted += len(step.accepted)
    assert tokens == told
    assert reading.states == {}
    assert accepted > 10 if drafts != "nothing right" else accepted == 0
    assert reading.checked > 20
