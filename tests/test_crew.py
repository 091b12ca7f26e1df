"""Drafters that break are left out: a warning, a note in the figures, and the tokens of plain decoding."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Oracle
from test_promise import universal

import anydraft
from anydraft import Decoder, Generation
from anydraft.crew import Crew
from anydraft.drafters import AssistantDrafter, LookupDrafter
from anydraft.errors import DrafterWarning, WrongTarget
from anydraft.growth import Bounds
from anydraft.lm import LanguageModel
from anydraft.pacing import Fixed
from anydraft.prompts import Intake
from anydraft.row import Row
from anydraft.tree import DraftTree

NEW = 12
BOUNDS = Fixed(Bounds(4, 2, 8))


def plain(prompt: Any = (5, 6, 7)) -> list[int]:
    result = tiny.decoder("llama").generate(list(prompt), max_new_tokens=NEW, ignore_eos=True)
    assert isinstance(result, Generation)
    return result.tokens


class Breaking(Oracle):
    """Right, until something in it fails."""

    name = "breaking"
    hidden = "all"

    def __init__(self, where: str, after: int = 2, error: BaseException | None = None) -> None:
        super().__init__(tiny.VOCAB, {0: plain()}, depth=2)
        self.where, self.after, self.error = where, after, error or RuntimeError("out of luck")
        self.stopped: list[Row] = []

    def _fail(self, where: str) -> None:
        if where == self.where:
            self.after -= 1
            if self.after < 0:
                raise self.error

    def start(self, rows: Sequence[Row]) -> None:
        self.after = -1 if self.where == "start" else self.after
        super().start(rows)
        self._fail("start")

    def read(self, row: Row, hidden: torch.Tensor) -> None:
        self._fail("read")

    def propose(self, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        self._fail("propose")
        return super().propose(rows, bounds)

    def stop(self, rows: Sequence[Row]) -> None:
        self.stopped += rows
        super().stop(rows)
        self._fail("stop")


def generate(decoder: Decoder) -> Generation:
    result = decoder.generate([5, 6, 7], max_new_tokens=NEW, ignore_eos=True)
    assert isinstance(result, Generation)
    return result


@pytest.mark.parametrize("where", ["start", "read", "propose"])
def test_a_drafter_that_raises(where: str) -> None:
    drafter = Breaking(where)
    decoder = Decoder(tiny.target("llama"), drafter, pacing=BOUNDS)
    with pytest.warns(DrafterWarning, match="drafter 'breaking' RuntimeError: out of luck; going on without it"):
        result = generate(decoder)
    assert result.tokens == plain()
    assert result.stats.drafter_failures == ("drafter 'breaking' RuntimeError: out of luck",)
    assert result.stats.to_dict()["drafter_failures"]
    assert drafter.stopped, "what it kept of the row is let go"
    assert not drafter.known


def test_a_drafter_that_raises_when_rows_leave() -> None:
    decoder = Decoder(tiny.target("llama"), Breaking("stop", after=0), pacing=BOUNDS)
    with pytest.warns(DrafterWarning):
        assert generate(decoder).tokens == plain()


def test_the_next_request_tries_again() -> None:
    drafter = Breaking("propose", after=0)
    decoder = Decoder(tiny.target("llama"), drafter, pacing=BOUNDS)
    with pytest.warns(DrafterWarning):
        generate(decoder)
    drafter.where = "nowhere"
    result = generate(decoder)
    assert result.stats.num_accepted_tokens > 0
    assert result.stats.drafter_failures == ()


def test_the_others_go_on() -> None:
    """With pacing that chooses, and a drafter beside the broken one."""
    oracle = Oracle(tiny.VOCAB, {0: plain()})
    decoder = Decoder(tiny.target("llama"), [Breaking("start"), oracle])
    with pytest.warns(DrafterWarning):
        result = generate(decoder)
    assert result.tokens == plain()
    assert len(result.stats.drafter_failures) == 1
    assert oracle.calls > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_interruptions_are_not_swallowed(error: BaseException) -> None:
    drafter = Breaking("propose", error=error)
    decoder = Decoder(tiny.target("llama"), drafter, pacing=BOUNDS)
    with pytest.raises(type(error)):
        generate(decoder)
    assert not drafter.known
    drafter.where = "nowhere"
    assert generate(decoder).tokens == plain()


def test_what_the_user_asked_for_and_cannot_be_done_is_an_error() -> None:
    decoder = Decoder(tiny.target("llama"), Breaking("start", error=WrongTarget("not yours")), pacing=BOUNDS)
    with pytest.raises(WrongTarget, match="not yours"):
        generate(decoder)


def _not_numbers(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    return model


def test_an_assistant_whose_scores_are_not_numbers() -> None:
    lm = LanguageModel(_not_numbers(copy.deepcopy(tiny.model("llama"))))
    decoder = Decoder(tiny.target("llama"), AssistantDrafter(lm, vocab_size=tiny.VOCAB), pacing=BOUNDS)
    with pytest.warns(DrafterWarning, match="scores that are not numbers"):
        assert generate(decoder).tokens == plain()


def test_a_universal_drafter_whose_scores_are_not_numbers() -> None:
    drafter = universal()
    broken = LanguageModel(_not_numbers(copy.deepcopy(drafter.lm.model)))
    drafter.lm = drafter.model.lm = broken
    decoder = Decoder(tiny.target("llama"), drafter, pacing=BOUNDS)
    with pytest.warns(DrafterWarning, match="scores that are not numbers"):
        assert generate(decoder).tokens == plain()


def test_a_tree_whose_scores_are_not_numbers() -> None:
    class Lost(Oracle):
        def draft(self, row: Row, bound: Bounds) -> DraftTree:
            return DraftTree((1,), (-1,), (float("nan"),))

    decoder = Decoder(tiny.target("llama"), Lost(tiny.VOCAB, {}), pacing=BOUNDS)
    with pytest.warns(DrafterWarning, match="gave scores that are not numbers"):
        assert generate(decoder).tokens == plain()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (DraftTree((1, 2), (-1, 0), (-0.1,)), "not one for each token"),
        (DraftTree((1,), (-1,), (None,)), "scores that are not numbers"),  # type: ignore[arg-type]
        (DraftTree((1.5,), (-1,)), "token ids that are no integers, such as 1.5"),  # type: ignore[arg-type]
    ],
)
def test_other_garbage(tree: DraftTree, message: str) -> None:
    class Lost(Oracle):
        def draft(self, row: Row, bound: Bounds) -> DraftTree:
            return tree

    decoder = Decoder(tiny.target("llama"), Lost(tiny.VOCAB, {}))
    with pytest.warns(DrafterWarning, match=message):
        assert generate(decoder).tokens == plain()


def test_two_drafters_of_one_name_are_told_apart() -> None:
    crew = Crew(tiny.target("llama"), [LookupDrafter(), LookupDrafter(), LookupDrafter()], "exact")
    assert crew.names == ("lookup", "lookup-2", "lookup-3")


def test_a_drafter_meets_a_row_when_it_is_first_asked() -> None:
    """Until then it costs nothing; what it will want to read is kept for it."""

    class Reader(Oracle):
        hidden = "all"

        def __init__(self) -> None:
            super().__init__(tiny.VOCAB, {0: plain()})
            self.count = 0

        def read(self, row: Row, hidden: torch.Tensor) -> None:
            assert row in self.known
            self.count += len(hidden)

    reader = Reader()
    target = tiny.target("llama")
    crew = Crew(target, [reader], "exact")
    (row,), _ = Intake(target, None).rows([5, 6, 7], anydraft.SamplingParams(max_new_tokens=9), None)
    crew.rows = [row]
    crew.hearing.keep(row, torch.zeros(2, 4))
    crew.hearing.keep(row, torch.zeros(1, 4))
    assert not crew.met(0, row)
    assert reader.known == []
    crew.propose(0, [row], [Bounds(2, 1, 4)])
    assert crew.met(0, row)
    assert reader.count == 3
    crew.propose(0, [row], [Bounds(2, 1, 4)])
    assert reader.count == 3
    crew.leave([row])
    assert reader.known == []
