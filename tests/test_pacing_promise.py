"""Nothing that a pacing decides changes a token: random decisions and measured ones, against plain decoding."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import tiny
from drafters_for_tests import Adversarial, Noisy, Oracle
from test_promise import SETTINGS, mixed, reference, universal
from tiny import RAGGED

import anydraft
from anydraft import Decoder, OptionConflict, models
from anydraft.crew import Crew
from anydraft.drafters import AssistantDrafter, LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.growth import Bounds
from anydraft.lm import LanguageModel
from anydraft.pacing import Draft, Fixed, Measured, Outcome, PacingReport, Steady
from anydraft.row import Row
from anydraft.tree import DraftTree


class Restless:
    """Decides at random: who drafts, how much, what is left of it, or nobody; row by row and step by step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        drafts = [Draft(DraftTree.EMPTY) for _ in rows]
        for which in crew.working:
            places = [i for i in range(len(rows)) if self.rng.random() < 0.5]
            rng = self.rng
            bounds = [Bounds(rng.randint(0, 6), rng.randint(1, 4), rng.randint(0, 14)) for _ in places]
            trees = crew.propose(which, [rows[i] for i in places], bounds)
            for i, tree in zip(places, trees, strict=True):
                size = self.rng.randint(0, len(tree))
                drafts[i] = Draft(tree.keep(range(size)), which)
        return drafts

    def observe(self, outcome: Outcome) -> None:
        for draft, accepted in zip(outcome.drafts, outcome.accepted, strict=True):
            assert all(0 <= node < len(draft.tree) for node in accepted)

    def report(self, row: Row) -> PacingReport | None:
        return None


def crowd(arch: str, truth: dict[int, list[int]]) -> list[Drafter]:
    """Drafters of every kind."""
    same = AssistantDrafter(
        LanguageModel(tiny.relative(arch)), vocab_size=tiny.VOCAB, eos_token_ids=frozenset({tiny.EOS})
    )
    return [
        LookupDrafter(min_ngram=1),
        same,
        universal(),
        Adversarial(tiny.VOCAB, truth),
        Noisy(tiny.VOCAB, truth),
        Oracle(tiny.VOCAB, truth, decoys=2),
    ]


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3", "mistral"])
@pytest.mark.parametrize("pacing", ["restless", "measured"])
def test_tokens_are_those_of_plain_decoding(arch: str, pacing: str) -> None:
    names = [(setting, i) for setting in SETTINGS for i in range(len(RAGGED))]
    truth = {place: reference(arch, setting)[i] for place, (setting, i) in enumerate(names)}
    how = Restless(seed=len(arch)) if pacing == "restless" else Measured()
    decoder = Decoder(tiny.target(arch), crowd(arch, truth), pacing=how)
    drafted = 0
    for _ in range(2):  # what was learned of the first batch decides in the second
        for (setting, i), result in mixed(decoder).items():
            assert result.tokens == reference(arch, setting)[i], (setting, i)
            drafted += result.stats.num_draft_tokens
    assert drafted > 0


def test_who_drafted_is_said() -> None:
    plain = tiny.decoder("llama").generate([5, 6, 7], max_new_tokens=40, ignore_eos=True)
    assert isinstance(plain, anydraft.Generation)
    oracle = Oracle(tiny.VOCAB, {0: plain.tokens})
    decoder = Decoder(tiny.target("llama"), [Adversarial(tiny.VOCAB, {0: plain.tokens}), oracle])
    result = decoder.generate([5, 6, 7], max_new_tokens=40, ignore_eos=True)
    assert isinstance(result, anydraft.Generation)
    assert result.tokens == plain.tokens
    assert result.proposers.count("oracle") > 10
    report = result.stats.pacing
    assert report is not None
    assert report.steps["oracle"] >= 1
    assert sum(report.steps.values()) == result.stats.num_passes
    assert result.stats.to_dict()["pacing"]["chosen"] == report.chosen
    assert result.stats.to_dict()["pacing"]["steps"] == report.steps


def test_several_drafters_by_name() -> None:
    target = str(models.path("target"))
    decoder = anydraft.load(target, ["lookup", str(models.path("redrafter")), str(models.path("assistant"))])
    assert [drafter.name for drafter in decoder.drafters] == ["lookup", "redrafter", "universal"]
    for bad, message in (
        ({"drafter": []}, "a list of drafters holds"),
        ({"drafter": ["lookup", None]}, "a list of drafters holds"),
        ({"drafter": ["lookup", "lookup"], "draft_tokens": 3}, "a fixed draft length is for one drafter"),
        ({"drafter": ["lookup", "lookup"], "pacing": Steady()}, "a fixed draft length is for one drafter"),
        ({"drafter": ["lookup"], "assistant": target}, "takes no assistant= beside it"),
    ):
        with pytest.raises(OptionConflict, match=message):
            anydraft.load(target, **bad)


def test_one_drafter_is_enough_for_pacings_that_do_not_choose() -> None:
    for pacing in (Steady(), Fixed(Bounds(2, 1, 2))):
        with pytest.raises(OptionConflict, match="asks one drafter only, got 2"):
            Decoder(tiny.target("llama"), [LookupDrafter(), LookupDrafter()], pacing=pacing)
    with pytest.raises(OptionConflict, match="with verification='exact' only"):
        Decoder(tiny.target("llama"), [LookupDrafter(), LookupDrafter()], verification="rejection")
